"""Patching: what a place in the model does, found by changing it."""

from interp_jax.patching.atp_star import atp_star
from interp_jax.patching.attribution import attribution_patch
from interp_jax.patching.circuit import Circuit
from interp_jax.patching.completeness import Completeness, completeness, greedy_removal
from interp_jax.patching.edge_circuit import EdgeCircuit
from interp_jax.patching.edges import Edges, edge_attribution
from interp_jax.patching.faithfulness import Faithfulness, Minimality, faithfulness, minimality
from interp_jax.patching.paths import path_patch
from interp_jax.patching.summary import Summary, summarize
from interp_jax.patching.sweep import activation_patch, sweep
from interp_jax.patching.tracing import Trace, causal_trace

__all__ = [
    "Circuit",
    "Completeness",
    "EdgeCircuit",
    "Edges",
    "Faithfulness",
    "Minimality",
    "Summary",
    "Trace",
    "activation_patch",
    "atp_star",
    "attribution_patch",
    "causal_trace",
    "completeness",
    "edge_attribution",
    "faithfulness",
    "greedy_removal",
    "minimality",
    "path_patch",
    "summarize",
    "sweep",
]
