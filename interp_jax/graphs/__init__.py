"""Graphs of features: replacement models, and what each feature does to later ones and to the output."""

from interp_jax.graphs.format import KINDS, cantor, to_json
from interp_jax.graphs.graph import Graph, Node, Scores
from interp_jax.graphs.loading import from_json
from interp_jax.graphs.replacement import Held, hold, replace_mlps
from interp_jax.graphs.supernodes import cluster, collapse, merge
from interp_jax.graphs.targets import difference, feature
from interp_jax.graphs.tracing import attribution_graph

__all__ = [
    "Graph",
    "Held",
    "KINDS",
    "Node",
    "Scores",
    "attribution_graph",
    "cantor",
    "cluster",
    "collapse",
    "difference",
    "feature",
    "from_json",
    "hold",
    "merge",
    "replace_mlps",
    "to_json",
]
