"""Reports: pages that show what features do."""

from interp_jax.report.activity import Firings, firings
from interp_jax.report.dashboard import Example, Feature, describe, page
from interp_jax.report.labels import Label, Words, label, telling, words

__all__ = [
    "Example",
    "Feature",
    "Firings",
    "Label",
    "Words",
    "describe",
    "firings",
    "label",
    "page",
    "telling",
    "words",
]
