"""Reports: pages of what features fire on, where heads look and what they do over a corpus, what layers would say."""

from interp_jax.explain import Excerpt, Firings, Label, Words, firings, label, telling, words
from interp_jax.report.attention import attention_page
from interp_jax.report.dashboard import Feature, describe, page
from interp_jax.report.effects import effects_page
from interp_jax.report.heads import Head, HeadExample, describe_head, heads_page
from interp_jax.report.lens import lens_page
from interp_jax.report.why import NodeView, why_page

__all__ = [
    "Excerpt",
    "Feature",
    "Firings",
    "Head",
    "HeadExample",
    "Label",
    "NodeView",
    "Words",
    "attention_page",
    "describe",
    "describe_head",
    "effects_page",
    "firings",
    "heads_page",
    "label",
    "lens_page",
    "page",
    "telling",
    "why_page",
    "words",
]
