"""Steering: vectors that change what a model does, made from examples, swept over layers and strengths, saved."""

from interp_jax.steering import truthx
from interp_jax.steering.making import difference_of_means, lat, pca_of_differences, random, shuffled
from interp_jax.steering.reading import vectors
from interp_jax.steering.saving import load, save
from interp_jax.steering.split_softmax import split_softmax
from interp_jax.steering.sweep import sweep
from interp_jax.steering.vector import SteeringVector

__all__ = [
    "SteeringVector",
    "difference_of_means",
    "lat",
    "load",
    "pca_of_differences",
    "random",
    "save",
    "shuffled",
    "split_softmax",
    "sweep",
    "truthx",
    "vectors",
]
