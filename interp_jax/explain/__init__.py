"""Explaining units, features and neurons, in words: where they fire, what that is about, and whether the words hold.

The name is also that of a function: `interp_jax.explain(g, *args)` says what a transformed function does, see
`interp_jax.core.explain`.
"""

import sys
from types import ModuleType
from typing import Any

from interp_jax import core
from interp_jax.explain.ablating import Ablated, ablate, ablations, node_means
from interp_jax.explain.excerpts import Excerpt
from interp_jax.explain.exchange import from_delphi, to_delphi
from interp_jax.explain.firings import Firings, firings
from interp_jax.explain.found import Node, Row, Scores, Why
from interp_jax.explain.head_words import HeadExplanation, HeadScore, explain_head, score_head
from interp_jax.explain.labels import Label, Words, label, telling, words
from interp_jax.explain.neuronpedia import Release, feature_details, to_neuronpedia
from interp_jax.explain.recording import record
from interp_jax.explain.records import Records
from interp_jax.explain.records_files import load_card, load_records, save_records
from interp_jax.explain.tallies import EDGES, Examples
from interp_jax.explain.why import why, why_active, why_attends
from interp_jax.explain.writing import written

__all__ = [
    "EDGES",
    "Ablated",
    "Examples",
    "Excerpt",
    "Firings",
    "HeadExplanation",
    "HeadScore",
    "Label",
    "Node",
    "Records",
    "Release",
    "Row",
    "Scores",
    "Why",
    "Words",
    "ablate",
    "ablations",
    "explain_head",
    "feature_details",
    "firings",
    "from_delphi",
    "label",
    "load_card",
    "load_records",
    "node_means",
    "record",
    "save_records",
    "score_head",
    "telling",
    "to_delphi",
    "to_neuronpedia",
    "why",
    "why_active",
    "why_attends",
    "words",
    "written",
]


class _Room(ModuleType):
    """This room, which is a function besides: a package has one attribute of a name."""

    def __call__(self, g: Any, *args: Any, **kwargs: Any) -> core.Explanation:
        return core.explain(g, *args, **kwargs)


sys.modules[__name__].__class__ = _Room
