"""The page of lenses: its words and probabilities, its cut padding, and that no token becomes markup."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from interp_jax import report

NASTY = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '" onmouseover="x', "&lt;", "<!--"]
LOGITS = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)  # layer, position, word
TOKENS = ["<bos>", " the", "\n", " "]


def words(ids):
    return [f" w{i}" for i in ids]


def data_of(html: str) -> dict:
    """What the page's script reads."""
    (found,) = re.findall(r"^const \{ tokens, .* \} = (.*);$", html, re.MULTILINE)
    return json.loads(found)


def test_the_page_holds_the_top_words() -> None:
    readings = {"b": LOGITS, "a": jnp.asarray(-LOGITS, jnp.bfloat16)}
    html = report.lens_page(readings, TOKENS, words, title="a <b>", logits=LOGITS[-1], k=3)
    data = data_of(html)
    assert html.startswith("<!doctype html>") and "<h1>a &lt;b&gt;</h1>" in html and "http" not in html
    assert data["tokens"] == ["<bos>", "the", "↵", "␣"] and list(data["lenses"]) == ["b", "a"]
    order, shares = np.argsort(-LOGITS, -1)[..., :3], np.sort(softmax(LOGITS, -1), -1)[..., ::-1][..., :3]
    assert [data["words"][i] for i in np.ravel(data["lenses"]["b"]["words"])] == [f"w{i}" for i in order.ravel()]
    np.testing.assert_allclose(np.array(data["lenses"]["b"]["thousandths"]) / 1000, shares, atol=5.1e-4)
    assert data["own"]["words"][0] == data["lenses"]["b"]["words"][-1]
    assert np.shape(data["lenses"]["a"]["words"]) == (3, 4, 3)
    assert data_of(report.lens_page({"b": LOGITS}, TOKENS, words, title="t"))["own"] is None


def test_tokens_are_text_and_nothing_else() -> None:
    readings = {NASTY[0]: np.eye(5)[None]}
    html = report.lens_page(readings, NASTY, lambda ids: [NASTY[i] for i in ids], title=NASTY[0], layers=[NASTY[1]])
    assert html.count("<script>") == html.count("</script>") == 1
    assert "<img" not in html and "<!--" not in html and "innerHTML" not in html
    data = data_of(html)
    assert data["tokens"] == data["words"] == NASTY and data["layers"] == NASTY[1:2]


def test_padding_is_cut_away() -> None:
    mask = jnp.array([False, True, True, True])
    html = report.lens_page({"a": LOGITS}, TOKENS, words, title="t", mask=mask, logits=LOGITS[0])
    assert html == report.lens_page({"a": LOGITS[:, 1:]}, TOKENS[1:], words, title="t", logits=LOGITS[0, 1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"readings": {}}, "0 lenses and k=8 words: give at least one of each"),
        ({"k": 0}, "1 lenses and k=0 words"),
        ({"tokens": ["a"]}, r"reading 'a' of shape \[3, 4, 5\] is not \[layer position d_vocab\] of 1 tokens"),
        ({"readings": {"a": LOGITS, "b": LOGITS[:2]}}, r"reading 'b' of shape \[2, 4, 5\]"),
        ({"logits": LOGITS}, r"logits of shape \[3, 4, 5\], wanted \[4, 5\]"),
        ({"logits": LOGITS[0] * np.nan}, "logits has infinite values or nan"),
        ({"layers": ["0"]}, "1 names for 3 layers"),
        ({"mask": np.zeros(4, bool)}, "with 0 real tokens"),
    ],
)
def test_what_does_not_fit_is_one_line(change: dict, message: str) -> None:
    arguments = {"readings": {"a": LOGITS}, "tokens": TOKENS, "words": words, "title": "t"} | change
    with pytest.raises(ValueError, match=f"^lens_page: .*{message}") as error:
        report.lens_page(**arguments)
    assert "\n" not in str(error.value)
