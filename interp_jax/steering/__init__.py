"""Steering: vectors that change what a model does, made from examples, swept over layers and strengths, saved."""

from interp_jax.steering.function_vectors import function_vector, head_effects, head_means
from interp_jax.steering.inference_time import head_shifts
from interp_jax.steering.making import difference_of_means, lat, pca_of_differences, random, shuffled
from interp_jax.steering.reading import vectors
from interp_jax.steering.saving import load, save
from interp_jax.steering.sweep import sweep
from interp_jax.steering.truthx import Autoencoder, TruthX, train_truthx, truthx_loss
from interp_jax.steering.vector import SteeringVector

__all__ = [
    "Autoencoder",
    "SteeringVector",
    "TruthX",
    "difference_of_means",
    "function_vector",
    "head_effects",
    "head_means",
    "head_shifts",
    "lat",
    "load",
    "pca_of_differences",
    "random",
    "save",
    "shuffled",
    "sweep",
    "train_truthx",
    "truthx_loss",
    "vectors",
]
