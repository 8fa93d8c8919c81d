"""Patching: what a place in the model does, found by changing it."""

from interp_jax.patching.summary import Summary, summarize
from interp_jax.patching.sweep import activation_patch, sweep

__all__ = ["Summary", "activation_patch", "summarize", "sweep"]
