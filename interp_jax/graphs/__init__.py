"""Graphs of features: replacement models, and what each feature does to later ones and to the output."""

from interp_jax.graphs.changes import Changes, change, predicted, random_changes, swap
from interp_jax.graphs.changing import Effects, feature_edits, feature_effects
from interp_jax.graphs.feature_edges import FeatureEdges, FeatureNode, feature_edges
from interp_jax.graphs.feature_files import FeatureDetails, read_feature, write_features
from interp_jax.graphs.format import KINDS, cantor, to_json
from interp_jax.graphs.graph import Graph, Node, Scores
from interp_jax.graphs.loading import from_json
from interp_jax.graphs.looking import Looking, trace_attention
from interp_jax.graphs.replacement import Held, hold, replace_attention, replace_mlps
from interp_jax.graphs.sparse_circuits import (
    FeatureFaithfulness,
    FeatureNodes,
    feature_faithfulness,
    largest,
    node_effects,
)
from interp_jax.graphs.supernodes import cluster, collapse, merge
from interp_jax.graphs.targets import difference, feature
from interp_jax.graphs.tracing import attribution_graph

__all__ = [
    "Changes",
    "Effects",
    "FeatureDetails",
    "FeatureEdges",
    "FeatureFaithfulness",
    "FeatureNode",
    "FeatureNodes",
    "Graph",
    "Held",
    "KINDS",
    "Looking",
    "Node",
    "Scores",
    "attribution_graph",
    "cantor",
    "change",
    "cluster",
    "collapse",
    "difference",
    "feature",
    "feature_edges",
    "feature_edits",
    "feature_effects",
    "feature_faithfulness",
    "from_json",
    "hold",
    "largest",
    "merge",
    "node_effects",
    "predicted",
    "random_changes",
    "read_feature",
    "replace_attention",
    "replace_mlps",
    "swap",
    "to_json",
    "trace_attention",
    "write_features",
]
