"""Probes: what can be read from activations. Fits are functions of arrays, mapped over leading axes in one program."""

from interp_jax.probes.baselines import mass_mean, pca, ridge
from interp_jax.probes.controls import OnlineCode, control_task, online_code
from interp_jax.probes.das import Interchange, Swap, class_subspace, orthonormal, swap, swapped, train_das
from interp_jax.probes.dbm import train_dbm
from interp_jax.probes.depth import converged_layer, jump_layer
from interp_jax.probes.edge import (
    EdgeProbe,
    Edges,
    centre_of_gravity,
    check_edges,
    edge_scores,
    expected_layer,
    prefixes,
)
from interp_jax.probes.edge_training import EdgeState, edge_step, train_edges
from interp_jax.probes.linear import LinearProbe
from interp_jax.probes.neighbours import NeighboursProbe, nearest_neighbours
from interp_jax.probes.paths import Path, path
from interp_jax.probes.perceptron import MLPProbe, mlp
from interp_jax.probes.regression import logistic
from interp_jax.probes.scoring import Scores, scores
from interp_jax.probes.units import UnitProbe, best_unit, unit_auc

__all__ = [
    "EdgeProbe",
    "EdgeState",
    "Edges",
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
    "centre_of_gravity",
    "check_edges",
    "class_subspace",
    "control_task",
    "converged_layer",
    "edge_scores",
    "edge_step",
    "expected_layer",
    "jump_layer",
    "logistic",
    "mass_mean",
    "mlp",
    "nearest_neighbours",
    "online_code",
    "orthonormal",
    "path",
    "pca",
    "prefixes",
    "ridge",
    "scores",
    "swap",
    "swapped",
    "train_das",
    "train_dbm",
    "train_edges",
    "unit_auc",
]
