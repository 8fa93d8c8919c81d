"""Patching: what a place in the model does, found by changing it."""

from interp_jax.nodes import Edges
from interp_jax.patching.atp_star import atp_star
from interp_jax.patching.attribution import attribution_patch
from interp_jax.patching.edges import edge_attribution
from interp_jax.patching.paths import path_patch
from interp_jax.patching.summary import Summary, summarize
from interp_jax.patching.sweep import activation_patch, sweep
from interp_jax.patching.tracing import Trace, causal_trace

__all__ = [
    "Edges",
    "Summary",
    "Trace",
    "activation_patch",
    "atp_star",
    "attribution_patch",
    "causal_trace",
    "edge_attribution",
    "path_patch",
    "summarize",
    "sweep",
]
