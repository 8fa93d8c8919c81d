"""Graphs of features: replacement models, and what each feature does to later ones and to the output."""

from interp_jax.graphs.graph import KINDS, Graph, Scores
from interp_jax.graphs.replacement import Held, hold, replace_mlps
from interp_jax.graphs.targets import difference, feature
from interp_jax.graphs.tracing import attribution_graph

__all__ = [
    "Graph",
    "Held",
    "KINDS",
    "Scores",
    "attribution_graph",
    "difference",
    "feature",
    "hold",
    "replace_mlps",
]
