"""Reports: pages that show what features fire on, where heads look in a prompt, and what they do over a corpus."""

from interp_jax.report.activity import Firings, firings
from interp_jax.report.attention import attention_page
from interp_jax.report.dashboard import Excerpt, Feature, describe, page
from interp_jax.report.heads import Head, HeadExample, describe_head, heads_page
from interp_jax.report.labels import Label, Words, label, telling, words

__all__ = [
    "Excerpt",
    "Feature",
    "Firings",
    "Head",
    "HeadExample",
    "Label",
    "Words",
    "attention_page",
    "describe",
    "describe_head",
    "firings",
    "heads_page",
    "label",
    "page",
    "telling",
    "words",
]
