"""Explaining units, features and neurons, in words: where they fire, what that is about, and whether the words hold."""

from interp_jax.explain.ablating import Ablated, ablate, ablations, node_means
from interp_jax.explain.excerpts import Excerpt
from interp_jax.explain.firings import Firings, firings
from interp_jax.explain.found import Node, Row, Scores, Why
from interp_jax.explain.labels import Label, Words, label, telling, words
from interp_jax.explain.why import why, why_active, why_attends
from interp_jax.explain.writing import written

__all__ = [
    "Ablated",
    "Excerpt",
    "Firings",
    "Label",
    "Node",
    "Row",
    "Scores",
    "Why",
    "Words",
    "ablate",
    "ablations",
    "firings",
    "label",
    "node_means",
    "telling",
    "why",
    "why_active",
    "why_attends",
    "words",
    "written",
]
