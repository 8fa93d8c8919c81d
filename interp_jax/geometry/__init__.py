"""The shape of representations: what models share, what a context lays out, and how it is bound together."""

from interp_jax.geometry.binding import (
    binding_vectors,
    exchange,
    exchanging,
    interchange,
    option_log_probs,
    shift,
)
from interp_jax.geometry.composition import Composition, Verdict, composition, composition_form
from interp_jax.geometry.context import context_representations, mean_representations
from interp_jax.geometry.graph_energy import (
    dirichlet_energy,
    least_energy,
    principal_components,
    shuffled_energies,
    spectral_agreement,
    spectral_embedding,
)
from interp_jax.geometry.local import intrinsic_dimension, lle_similarity, lle_weights, nearest_neighbours
from interp_jax.geometry.maps import LinearMap, least_squares_map, shared_words
from interp_jax.geometry.orientation import relative_orientation

__all__ = [
    "Composition",
    "LinearMap",
    "Verdict",
    "binding_vectors",
    "composition",
    "composition_form",
    "context_representations",
    "dirichlet_energy",
    "exchange",
    "exchanging",
    "interchange",
    "intrinsic_dimension",
    "least_energy",
    "least_squares_map",
    "lle_similarity",
    "lle_weights",
    "mean_representations",
    "nearest_neighbours",
    "option_log_probs",
    "principal_components",
    "relative_orientation",
    "shared_words",
    "shift",
    "shuffled_energies",
    "spectral_agreement",
    "spectral_embedding",
]
