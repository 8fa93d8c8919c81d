"""Reports: pages of what features fire on, where heads look and what they do over a corpus, what layers would say.

`Board`, `serve` and `write_static` are the dashboard, of which the page in `web` is the other half.
"""

from interp_jax.explain import Excerpt, Firings, Label, Words, firings, label, telling, words
from interp_jax.report.attention import attention_page
from interp_jax.report.board import Board, Live
from interp_jax.report.dashboard import Feature, describe, page
from interp_jax.report.effects import effects_page
from interp_jax.report.head_list import HeadList, head_list
from interp_jax.report.heads import Head, HeadExample, describe_head, heads_page
from interp_jax.report.lens import lens_page
from interp_jax.report.serving import dashboard_app, listening, serve
from interp_jax.report.static_copy import write_static
from interp_jax.report.why import NodeView, why_page

__all__ = [
    "Board",
    "Excerpt",
    "Feature",
    "Firings",
    "Head",
    "HeadExample",
    "HeadList",
    "Label",
    "Live",
    "NodeView",
    "Words",
    "attention_page",
    "dashboard_app",
    "describe",
    "describe_head",
    "effects_page",
    "firings",
    "head_list",
    "heads_page",
    "label",
    "lens_page",
    "listening",
    "page",
    "serve",
    "telling",
    "why_page",
    "words",
    "write_static",
]
