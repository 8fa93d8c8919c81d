"""Explaining units, features and neurons, in words: where they fire, what that is about, and whether the words hold.

The name is also that of a function: `interp_jax.explain(g, *args)` says what a transformed function does, see
`interp_jax.core.explain`.
"""

import sys
from types import ModuleType
from typing import Any

from interp_jax import core
from interp_jax.explain.excerpts import Excerpt
from interp_jax.explain.exchange import from_delphi, to_delphi
from interp_jax.explain.firings import Firings, firings
from interp_jax.explain.labels import Label, Words, label, telling, words
from interp_jax.explain.neuronpedia import Release, feature_details, to_neuronpedia
from interp_jax.explain.recording import record
from interp_jax.explain.records import Records
from interp_jax.explain.records_files import load_card, load_records, save_records
from interp_jax.explain.tallies import EDGES, Examples

__all__ = [
    "EDGES",
    "Examples",
    "Excerpt",
    "Firings",
    "Label",
    "Records",
    "Release",
    "Words",
    "feature_details",
    "firings",
    "from_delphi",
    "label",
    "load_card",
    "load_records",
    "record",
    "save_records",
    "telling",
    "to_delphi",
    "to_neuronpedia",
    "words",
]


class _Room(ModuleType):
    """This room, which is a function besides: a package has one attribute of a name."""

    def __call__(self, g: Any, *args: Any, **kwargs: Any) -> core.Explanation:
        return core.explain(g, *args, **kwargs)


sys.modules[__name__].__class__ = _Room
