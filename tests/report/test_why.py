"""The page of one prediction: what it holds, that whatever it shows is escaped, and that it needs no network."""

from dataclasses import replace
import json
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import report
from interp_jax.explain import Ablated, Node, Scores, Why

EVIL = "<script>alert(1)</script>"


class Words:
    """A tokenizer whose every token is code."""

    def to_str_tokens(self, ids: Any) -> list[str]:
        return [EVIL for _ in ids]


@pytest.fixture
def found() -> Why:
    heads = {name: jnp.array([[[0.0], [2.0], [1.0], [0.0]]]) for name in ("magnitude", "direct", "gradient")}
    nothing = {name: jnp.zeros((1, 4, 1)) for name in heads}
    parts = Scores("head", (3,), heads), Scores("embed", (None,), nothing)
    real, logits = jnp.array([False, True, True, True]), jnp.arange(5.0)
    tokens, value = jnp.arange(4), jnp.float32(3.5)
    return Why(
        f"{EVIL} rather", Words(), tokens, real, jnp.int32(3), value, {"direct": jnp.float32(0.5)}, parts, logits
    )


def test_the_page_shows_nodes_and_escapes_what_it_shows(found: Why) -> None:
    node = Node("head", 3, 0, 1)
    view = report.NodeView(
        node,
        without=Ablated(jnp.float32(1.5), jnp.arange(5.0), Words()),
        looks=np.array([0.0, 1.0, 0.0, 0.0]),
        raised=((EVIL, 1.0),),
        upstream=found,
        words=EVIL,
    )
    html = report.why_page(found, [view], title=EVIL, facts={EVIL: EVIL})
    assert "<script>alert" not in html and "http" not in html and len(html) < 30_000
    data = json.loads(re.search(r"nodes } = (.*);", html)[1])
    assert (len(data["tokens"]), data["position"], data["value"]) == (3, 2, 3.5)  # padding is cut away
    assert data["parts"] == [["head", 3.0], ["embed", 0.0], ["constants", 0.5]]
    (shown,) = data["nodes"]
    assert (shown["name"], shown["at"], shown["scores"], shown["without"]) == ("head 3.0", 0, [2, 2, 2], 1.5)
    assert shown["looks"] == [1.0, 0.0, 0.0] and len(shown["upstream"]["rows"]) == 2


@pytest.mark.parametrize(
    ("views", "told"),
    [
        ([], "no node to look at"),
        ([report.NodeView(Node("head", 4, 0, 1))], "there is no such node"),
        ([report.NodeView(Node("head", 3, 0, 1), looks=np.zeros(3))], r"attention \[3\] for 4 tokens"),
    ],
)
def test_bad_input_is_told_in_one_line(found: Why, views: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        report.why_page(replace(found, title="why"), views, title="why")
