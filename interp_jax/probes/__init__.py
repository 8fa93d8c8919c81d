"""Probes: what can be read from activations. Fits are functions of arrays, mapped over leading axes in one program."""

from interp_jax.probes.baselines import mass_mean, pca, ridge
from interp_jax.probes.linear import LinearProbe
from interp_jax.probes.neighbours import NeighboursProbe, nearest_neighbours
from interp_jax.probes.paths import Path, path
from interp_jax.probes.perceptron import MLPProbe, mlp
from interp_jax.probes.regression import logistic
from interp_jax.probes.scoring import Scores, scores

__all__ = [
    "LinearProbe",
    "MLPProbe",
    "NeighboursProbe",
    "Path",
    "Scores",
    "logistic",
    "mass_mean",
    "mlp",
    "nearest_neighbours",
    "path",
    "pca",
    "ridge",
    "scores",
]
