"""The geometry that embeddings of models share: how tokens lie to one another, and maps from one model to another."""

from interp_jax.geometry.local import intrinsic_dimension, lle_similarity, lle_weights, nearest_neighbours
from interp_jax.geometry.maps import LinearMap, least_squares_map, shared_words
from interp_jax.geometry.orientation import relative_orientation

__all__ = [
    "LinearMap",
    "intrinsic_dimension",
    "least_squares_map",
    "lle_similarity",
    "lle_weights",
    "nearest_neighbours",
    "relative_orientation",
    "shared_words",
]
