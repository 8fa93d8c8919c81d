"""Probes: what can be read from a model's activations, and at which layers. They take arrays, not models."""

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

__all__ = [
    "EdgeProbe",
    "EdgeState",
    "Edges",
    "centre_of_gravity",
    "check_edges",
    "converged_layer",
    "edge_scores",
    "edge_step",
    "expected_layer",
    "jump_layer",
    "prefixes",
    "train_edges",
]
