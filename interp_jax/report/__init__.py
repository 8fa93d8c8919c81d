"""Reports: pages that show what features fire on, and where heads look."""

from interp_jax.report.activity import Firings, firings
from interp_jax.report.attention import attention_page
from interp_jax.report.dashboard import Excerpt, Feature, describe, page
from interp_jax.report.labels import Label, Words, label, telling, words

__all__ = [
    "Excerpt",
    "Feature",
    "Firings",
    "Label",
    "Words",
    "attention_page",
    "describe",
    "firings",
    "label",
    "page",
    "telling",
    "words",
]
