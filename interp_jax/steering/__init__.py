"""Steering: what changes a model's behaviour: vectors, trained edits, features, heads; with controls, swept, saved."""

from interp_jax.steering import axbench, judges, truthx
from interp_jax.steering.ablation import DirectionScores, ablation, best_direction, direction_scores, orthogonalize
from interp_jax.steering.feature import Feature
from interp_jax.steering.function_vectors import function_vector, head_effects, head_means
from interp_jax.steering.inference_time import head_shifts
from interp_jax.steering.making import difference_of_means, lat, pca_of_differences, random, shuffled
from interp_jax.steering.q_probe import QProbe, kl_from_samples
from interp_jax.steering.reading import vectors
from interp_jax.steering.reft import LoReFT, ReFTr1
from interp_jax.steering.saving import load, save
from interp_jax.steering.split_softmax import split_softmax
from interp_jax.steering.steerer import Steerer
from interp_jax.steering.sweep import sweep
from interp_jax.steering.training import Losses, train
from interp_jax.steering.vector import SteeringVector

__all__ = [
    "DirectionScores",
    "Feature",
    "LoReFT",
    "Losses",
    "QProbe",
    "ReFTr1",
    "Steerer",
    "SteeringVector",
    "ablation",
    "axbench",
    "best_direction",
    "difference_of_means",
    "direction_scores",
    "function_vector",
    "head_effects",
    "head_means",
    "head_shifts",
    "judges",
    "kl_from_samples",
    "lat",
    "load",
    "orthogonalize",
    "pca_of_differences",
    "random",
    "save",
    "shuffled",
    "split_softmax",
    "sweep",
    "train",
    "truthx",
    "vectors",
]
