"""Explaining units, features and neurons, in words: where they fire, what that is about, and whether the words hold.

The name is also that of a function: `interp_jax.explain(g, *args)` says what a transformed function does, see
`interp_jax.core.explain`.
"""

import sys
from types import ModuleType
from typing import Any

from interp_jax import core
from interp_jax.explain import judges, scores, simulators, thoughts
from interp_jax.explain.ablating import Ablated, ablate, ablations, node_means
from interp_jax.explain.ablation import ablation
from interp_jax.explain.asking import Cost, Question, ask, cost
from interp_jax.explain.chains import Chain
from interp_jax.explain.estimates import Score
from interp_jax.explain.evidence import Evidence, TooFew, gather, hard, levels, marked
from interp_jax.explain.excerpts import Excerpt
from interp_jax.explain.exchange import from_delphi, to_delphi
from interp_jax.explain.explainers import by_activations, by_contrast, by_marks
from interp_jax.explain.explanations import Explanation, load_explanations, save_explanation
from interp_jax.explain.firings import Firings, firings
from interp_jax.explain.found import Node, Row, Scores, Why
from interp_jax.explain.head_words import HeadExplanation, HeadScore, explain_head, score_head
from interp_jax.explain.labels import Label, Words, label, telling, words
from interp_jax.explain.language_autoencoder import Reconstructor, as_token, embedding_norm, fve, reconstruct, reward
from interp_jax.explain.methods import Explained, Method, by_model, cost_of, explain_units, offline
from interp_jax.explain.neuronpedia import Release, feature_details, to_neuronpedia
from interp_jax.explain.recording import record
from interp_jax.explain.records import Records
from interp_jax.explain.records_files import load_card, load_records, save_records
from interp_jax.explain.removal import Removal, removal
from interp_jax.explain.revision import revise, revised, sentences
from interp_jax.explain.scores import Scored
from interp_jax.explain.tallies import EDGES, Examples
from interp_jax.explain.token_statistics import TokenStatistics, by_statistics
from interp_jax.explain.why import why, why_active, why_attends
from interp_jax.explain.writing import written

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
