"""The page of attention patterns: its numbers, its cut padding, and that no token becomes markup."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import report

NASTY = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '" onmouseover="x', "&lt;", "<!--"]


@pytest.fixture
def pattern() -> np.ndarray:
    """Two layers of three heads, four tokens, each row 1 in all."""
    scores = np.random.default_rng(0).exponential(size=(2, 3, 4, 4)) * np.tril(np.ones((4, 4)))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def data_of(html: str) -> dict:
    """What the page's script reads."""
    (found,) = re.findall(r"^const \{ tokens, .* \} = (.*);$", html, re.MULTILINE)
    return json.loads(found)


def test_the_page_holds_every_value(pattern: np.ndarray) -> None:
    scores = {"b": np.full((2, 3), 0.25), "a": np.array([[0.1, np.nan, 0.3], [0.4, 0.5, 1.0]])}
    html = report.attention_page(pattern, ["<bos>", " the", "\n", " "], title="a <b>", scores=scores)
    data = data_of(html)
    assert html.startswith("<!doctype html>") and "<h1>a &lt;b&gt;</h1>" in html and "http" not in html
    assert data["tokens"] == ["<bos>", "the", "↵", "␣"]
    np.testing.assert_allclose(np.array(data["thousandths"]) / 1000, pattern.reshape(2, 3, 16), atol=5.1e-4)
    assert list(data["scores"]) == ["b", "a"]
    assert data["scores"]["a"] == [[0.1, None, 0.3], [0.4, 0.5, 1.0]]


def test_tokens_are_text_and_nothing_else() -> None:
    pattern = np.eye(len(NASTY))[None, None]
    html = report.attention_page(pattern, NASTY, title=NASTY[0], scores={NASTY[0]: np.zeros((1, 1))})
    assert html.count("<script>") == html.count("</script>") == 1
    assert "<img" not in html and "<!--" not in html and "alert(1)&lt;/script&gt;" in html
    assert data_of(html)["tokens"] == NASTY
    assert "innerHTML" not in html


def test_padding_is_cut_away(pattern: np.ndarray) -> None:
    mask = jnp.array([False, True, True, True])
    html = report.attention_page(pattern, ["<pad>", "a", "b", "c"], title="t", mask=mask)
    assert html == report.attention_page(pattern[:, :, 1:, 1:], ["a", "b", "c"], title="t")


def test_bfloat16_and_edited_rows(pattern: np.ndarray) -> None:
    half = jnp.asarray(pattern, jnp.bfloat16)
    values = np.array(data_of(report.attention_page(2 * half, list("abcd"), title="t"))["thousandths"]) / 2000
    np.testing.assert_allclose(values, pattern.reshape(2, 3, 16), atol=5e-3)


def test_a_page_of_many_heads_is_light() -> None:
    pattern = np.tril(np.random.default_rng(0).uniform(size=(12, 12, 30, 30)))
    assert len(report.attention_page(pattern, ["word"] * 30, title="t")) < 600_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": ["a"]}, r"a pattern of shape \[2, 3, 4, 4\] is not \[layer head query key\] of 1 tokens"),
        ({"pattern": np.ones((2, 1, 3, 4, 4))}, r"take one prompt of blocks.attn.pattern$"),
        ({"pattern": np.ones((0, 3, 4, 4))}, r"a pattern of shape \[0, 3, 4, 4\]"),
        ({"mask": np.ones(3, bool)}, r"a mask of shape \[3\] with 3 real tokens does not fit 4 tokens"),
        ({"mask": np.zeros(4, bool)}, r"with 0 real tokens"),
        ({"pattern": np.full((2, 3, 4, 4), -1.0)}, "not blocks.attn.attn_scores"),
        ({"pattern": np.full((2, 3, 4, 4), np.nan)}, "negative or infinite values or nan"),
        ({"scores": {"x": np.ones((3, 2))}}, r"scores 'x' of shape \[3, 2\] are not \[layer head\] \[2, 3\]"),
    ],
)
def test_what_does_not_fit_is_one_line(pattern: np.ndarray, change: dict, message: str) -> None:
    arguments = {"pattern": pattern, "tokens": list("abcd"), "title": "t"} | change
    with pytest.raises(ValueError, match=f"^attention_page: .*{message}") as error:
        report.attention_page(**arguments)
    assert "\n" not in str(error.value)
