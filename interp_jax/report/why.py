"""A page of one prediction: which nodes made it one token rather than another, and a look at each of them. No network.

Nodes stand in a table that goes by any of their scores; a chosen one shows what it attends to or fires on, what it
writes in words, what is upstream of it, and what the model says without it. OpenAI's Transformer Debugger, 2024.
Caveat: a node is shown by itself; what several do together is `explain.ablate` of all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_jax.explain import Ablated, Node, Why
from interp_jax.report.rendering import render, visible

UPSTREAM = 8  # nodes that are shown before one
SAID = 5  # tokens that are shown of what a model says


@dataclass(frozen=True)
class NodeView:
    """What a page shows of one node beside its scores.

    Attributes:
      node: which.
      without: the run without it, or None.
      looks: of a head what it gives to each token, `[position]`, or None.
      raised, lowered: the tokens that its write makes likelier and less likely, with the effect on their logits.
      upstream: from `why_active`, or None.
      attends: from `why_attends`, of the token that it looks at most, or None.
      words: what it is about, as an explanation says; "" where none is known.
      fires_on: the tokens on which it fires most, and their shares.
    """

    node: Node
    without: Ablated | None = None
    looks: Any = None
    raised: tuple[tuple[str, float], ...] = ()
    lowered: tuple[tuple[str, float], ...] = ()
    upstream: Why | None = None
    attends: Why | None = None
    words: str = ""
    fires_on: tuple[tuple[str, float], ...] = ()


def why_page(found: Why, views: Sequence[NodeView], *, title: str, facts: Mapping[str, str] | None = None) -> str:
    """The page, as one HTML text that needs nothing else. Whatever it shows is escaped.

    Args:
      found: from `explain.why`.
      views: the nodes that can be looked at.
      title: the heading.
      facts: name -> value, shown in a row under it.

    Raises:
      ValueError: no node; a node that `found` does not have; attention that is not one number a token.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import models, report
      >>> from interp_jax.explain import why
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> tokens = jnp.array(tokenizer.encode("when Mary and John went to the park , John gave a ring to"))
      >>> found = why(models.forward, " Mary", " John", tokenizer=tokenizer)(model, models.weights(model), tokens)
      >>> html = report.why_page(found, [report.NodeView(row.node) for row in found.top(3)], title="<why>")
      >>> "&lt;why&gt;" in html, "head 3.2" in html, "http" in html
      (True, True, False)
    """
    if not views:
        raise ValueError("why_page: no node to look at; give some of found.top()")
    real = np.asarray(found.real)
    shown = np.cumsum(real) - 1  # where a token stands among those that are no padding
    words = [visible(word) for word, kept in zip(found.words(), real, strict=True) if kept]
    parts = [{"name": part.kind, "value": float(part.values["direct"].sum())} for part in found.parts]
    total: dict[str, float] = {}
    for part in parts:
        total[part["name"]] = total.get(part["name"], 0.0) + part["value"]
    total["constants"] = float(found.constants["direct"])
    data = {
        "tokens": words,
        "position": int(shown[int(found.position)]),
        "value": round(float(found.value), 4),
        "says": _said(found.likeliest(SAID)),
        "names": list(found.names),
        "parts": [[name, round(value, 4)] for name, value in total.items()],
        "nodes": [_view(found, view, real, shown) for view in views],
    }
    return render("why.html", title=title, question=found.title, facts=facts or {}, data=data)


def _said(tokens: Sequence[tuple[str, float]]) -> list[list[Any]]:
    return [[visible(word), round(value, 3)] for word, value in tokens]


def _view(found: Why, view: NodeView, real: np.ndarray, shown: np.ndarray) -> dict[str, Any]:
    looks = None if view.looks is None else np.asarray(view.looks, np.float32)
    if looks is not None and looks.shape != real.shape:
        raise ValueError(f"why_page: {view.node}: attention {list(looks.shape)} for {len(real)} tokens")
    try:
        scores = found[view.node].scores
    except KeyError as error:
        raise ValueError(f"why_page: {error.args[0]}") from None
    return {
        **_placed(view.node, shown),
        "kind": view.node.kind,
        "scores": [round(x, 4) for x in scores.values()],
        "without": None if view.without is None else round(float(view.without.value), 4),
        "says": [] if view.without is None else _said(view.without.likeliest(SAID)),
        "looks": None if looks is None else [round(float(x), 3) for x in looks[real]],
        "raised": _said(view.raised),
        "lowered": _said(view.lowered),
        "upstream": None if view.upstream is None else _upstream(view.upstream, shown),
        "attends": None if view.attends is None else _upstream(view.attends, shown),
        "words": view.words,
        "fires_on": _said(view.fires_on),
    }


def _placed(node: Node, shown: np.ndarray) -> dict[str, Any]:
    return {"name": node.name, "at": int(shown[node.position])}


def _upstream(found: Why, shown: np.ndarray) -> dict[str, Any]:
    """The nodes before one: those that add most to it, of an attention score on either side."""
    names = [name for name in found.names if name != "magnitude"]
    sides = [name for name in names if name in found.constants]
    rows = dict.fromkeys(row.node for name in sides for row in found.top(UPSTREAM // len(sides), by=name))
    return {
        "title": found.title,
        "value": round(float(found.value), 3),
        "names": names,
        "rows": [
            {**_placed(node, shown), "scores": [round(found[node].scores[name], 3) for name in names]} for node in rows
        ],
    }
