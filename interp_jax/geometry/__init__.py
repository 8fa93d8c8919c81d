"""The shape of representations: what a context lays out, and how it is bound together."""

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

__all__ = [
    "Composition",
    "Verdict",
    "binding_vectors",
    "composition",
    "composition_form",
    "context_representations",
    "dirichlet_energy",
    "exchange",
    "exchanging",
    "interchange",
    "least_energy",
    "mean_representations",
    "option_log_probs",
    "principal_components",
    "shift",
    "shuffled_energies",
    "spectral_agreement",
    "spectral_embedding",
]
