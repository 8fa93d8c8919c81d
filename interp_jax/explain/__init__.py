"""Explaining units, features and neurons, in words: where they fire, what that is about, and whether the words hold.

The name is also that of a function: `interp_jax.explain(g, *args)` says what a transformed function does, see
`interp_jax.core.explain`.
"""

import sys
from types import ModuleType
from typing import Any

from interp_jax import core
from interp_jax.explain.debugger.ablating import Ablated, ablate, ablations, node_means
from interp_jax.explain.debugger.found import Node, Row, Scores, Why
from interp_jax.explain.debugger.why import why, why_active, why_attends
from interp_jax.explain.debugger.writing import written
from interp_jax.explain.exchange import from_delphi, to_delphi
from interp_jax.explain.explanations import judges, scores, simulators
from interp_jax.explain.explanations.ablation import ablation
from interp_jax.explain.explanations.asking import Cost, Question, ask, cost
from interp_jax.explain.explanations.estimates import Score
from interp_jax.explain.explanations.evidence import Evidence, TooFew, gather, hard, levels, marked
from interp_jax.explain.explanations.explainers import by_activations, by_contrast, by_marks
from interp_jax.explain.explanations.explanations import Explanation, load_explanations, save_explanation
from interp_jax.explain.explanations.head_words import HeadExplanation, HeadScore, explain_head, score_head
from interp_jax.explain.explanations.methods import Explained, Method, by_model, cost_of, explain_units, offline
from interp_jax.explain.explanations.revision import revise, revised, sentences
from interp_jax.explain.explanations.scores import Scored
from interp_jax.explain.explanations.token_statistics import TokenStatistics, by_statistics
from interp_jax.explain.neuronpedia import Release, feature_details, to_neuronpedia
from interp_jax.explain.predictions import thoughts
from interp_jax.explain.predictions.chains import Chain
from interp_jax.explain.predictions.language_autoencoder import (
    Reconstructor,
    as_token,
    embedding_norm,
    fve,
    reconstruct,
    reward,
)
from interp_jax.explain.predictions.removal import Removal, removal
from interp_jax.explain.records.excerpts import Excerpt
from interp_jax.explain.records.files import load_card, load_records, save_records
from interp_jax.explain.records.firings import Firings, firings
from interp_jax.explain.records.labels import Label, Words, label, telling, words
from interp_jax.explain.records.recording import record
from interp_jax.explain.records.records import Records
from interp_jax.explain.records.tallies import EDGES, Examples

__all__ = [
    "Ablated",
    "Chain",
    "Cost",
    "EDGES",
    "Evidence",
    "Examples",
    "Excerpt",
    "Explained",
    "Explanation",
    "Firings",
    "HeadExplanation",
    "HeadScore",
    "Label",
    "Method",
    "Node",
    "Question",
    "Reconstructor",
    "Records",
    "Release",
    "Removal",
    "Row",
    "Score",
    "Scored",
    "Scores",
    "TokenStatistics",
    "TooFew",
    "Why",
    "Words",
    "ablate",
    "ablation",
    "ablations",
    "as_token",
    "ask",
    "by_activations",
    "by_contrast",
    "by_marks",
    "by_model",
    "by_statistics",
    "cost",
    "cost_of",
    "embedding_norm",
    "explain_head",
    "explain_units",
    "feature_details",
    "firings",
    "from_delphi",
    "fve",
    "gather",
    "hard",
    "judges",
    "label",
    "levels",
    "load_card",
    "load_explanations",
    "load_records",
    "marked",
    "node_means",
    "offline",
    "reconstruct",
    "record",
    "removal",
    "revise",
    "revised",
    "reward",
    "save_explanation",
    "save_records",
    "score_head",
    "scores",
    "sentences",
    "simulators",
    "telling",
    "thoughts",
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
