"""Probes: what can be read from activations. Fits are functions of arrays, mapped over leading axes in one program."""

from interp_jax.probes.baselines import mass_mean, pca, ridge
from interp_jax.probes.controls import OnlineCode, control_task, online_code
from interp_jax.probes.das import Interchange, Swap, class_subspace, orthonormal, swap, swapped, train_das
from interp_jax.probes.linear import LinearProbe
from interp_jax.probes.neighbours import NeighboursProbe, nearest_neighbours
from interp_jax.probes.paths import Path, path
from interp_jax.probes.perceptron import MLPProbe, mlp
from interp_jax.probes.regression import logistic
from interp_jax.probes.scoring import Scores, scores
from interp_jax.probes.units import UnitProbe, best_unit, unit_auc

__all__ = [
    "Interchange",
    "LinearProbe",
    "MLPProbe",
    "NeighboursProbe",
    "OnlineCode",
    "Path",
    "Scores",
    "Swap",
    "UnitProbe",
    "best_unit",
    "class_subspace",
    "control_task",
    "logistic",
    "mass_mean",
    "mlp",
    "nearest_neighbours",
    "online_code",
    "orthonormal",
    "path",
    "pca",
    "ridge",
    "scores",
    "swap",
    "swapped",
    "train_das",
    "unit_auc",
]
