"""Heads in words: known heads get their own sentence, which predicts other texts; sentences of others do not."""

from typing import Any

import numpy as np
import pytest

from interp_jax.explain import HeadExplanation, explain_head, score_head
from interp_jax.heads import Examples, Survey

STRINGS = [f" w{i}" for i in range(20)] + [f" Name{i}" for i in range(8)] + [" ."]


def texts(seed: int, n: int = 24, length: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, len(STRINGS), (n, length)).astype(np.int32)


def attention(kind: str, tokens: np.ndarray) -> np.ndarray:
    """A head that is known, with a little of its attention elsewhere; what it has no place for rests on the first."""
    q, k = np.arange(tokens.shape[1])[:, None], np.arange(tokens.shape[1])
    before = np.concatenate([np.full_like(tokens[:, :1], -1), tokens[:, :-1]], axis=1)
    there = {
        "previous": np.broadcast_to(k == q - 1, (len(tokens), *(k == q).shape)),
        "induction": (tokens[:, :, None] == before[:, None]) & (k < q),
        "names": ((tokens >= 20) & (tokens < 28))[:, None] & (k < q),
    }[kind]
    pattern = 0.9 * there / np.maximum(there.sum(-1, keepdims=True), 1) + 0.02 * (k <= q)
    pattern[:, :, 0] += 1 - pattern.sum(-1)
    return pattern.astype(np.float32)


def survey(tokens: np.ndarray) -> Survey:
    """Of one layer of three heads, with scores and without examples."""
    none = np.full((1, 3, 1), -1, np.int32)
    empty = Examples(none * 0.0, none, none, none[..., None] * 0, none[..., None] * 0.0)
    scores = {name: np.full((1, 3), 0.25) for name in ("self", "previous", "induction")}
    return Survey(scores, np.full((1, 3), 0.5), empty, empty, len(tokens), tokens.size)


@pytest.fixture(scope="module")
def told() -> dict[str, HeadExplanation]:
    tokens = texts(0)
    return {
        kind: explain_head(survey(tokens), 0, head, attention(kind, tokens), tokens, STRINGS)
        for head, kind in enumerate(("previous", "induction", "names"))
    }


def test_known_heads_are_said_as_what_they_are(told: dict[str, HeadExplanation]) -> None:
    assert str(told["previous"]).startswith("looks at the token before (0.25")
    assert told["induction"].place == "at what came after the same token"
    assert told["names"].place == "anywhere before"
    assert str(told["names"]) == "looks anywhere before where it is a capitalised word; 50% rests on the first token"


def test_scores_are_those_of_other_texts_and_fail_for_other_heads(told: dict[str, HeadExplanation]) -> None:
    tokens = texts(1)
    for kind, one in told.items():
        pattern = attention(kind, tokens)
        own = score_head(one, pattern, tokens)
        others = [score_head(other, pattern, tokens) for name, other in told.items() if name != kind]
        assert own.correlation > 0.9 and own.low <= own.correlation <= own.high and own.auc > 0.7
        assert all(abs(other.correlation) < 0.3 < own.low and other.auc < own.auc for other in others)
    counted = np.tril(np.ones((20, 20), bool))[None] & (np.arange(20) > 0) & (np.arange(20)[:, None] > 0)
    pairs = np.broadcast_to(counted, (len(tokens), 20, 20))
    said, pattern = told["names"].predict(tokens), attention("names", tokens)
    direct = np.corrcoef(said[pairs], pattern[pairs])[0, 1]
    np.testing.assert_allclose(score_head(told["names"], pattern, tokens).correlation, direct, rtol=1e-4)


def test_auc_is_that_of_pairs_of_keys(told: dict[str, HeadExplanation]) -> None:
    """Beside a sum over all pairs of keys, of one text."""
    tokens = texts(2, n=1, length=7)
    pattern, said = attention("induction", tokens), told["previous"].predict(tokens)
    above = weight = 0.0
    for q in range(1, 7):
        for k in range(1, q + 1):
            beside = [np.sign(said[0, q, k] - said[0, q, other]) / 2 + 0.5 for other in range(1, q + 1)]
            above, weight = above + pattern[0, q, k] * np.mean(beside), weight + pattern[0, q, k]
    np.testing.assert_allclose(score_head(told["previous"], pattern, tokens).auc, above / weight, rtol=1e-5)


def test_padding_does_not_count(told: dict[str, HeadExplanation]) -> None:
    tokens, pattern = texts(3), attention("names", texts(3))
    wide, mask = np.pad(tokens, ((0, 0), (2, 0))), np.pad(np.ones(tokens.shape, bool), ((0, 0), (2, 0)))
    wider = np.pad(pattern, ((0, 0), (2, 0), (2, 0)), constant_values=0.5)
    alone, padded = score_head(told["names"], pattern, tokens), score_head(told["names"], wider, wide, mask=mask)
    np.testing.assert_allclose(padded, alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": 3}, "head 0.3 of 1 layers of 3 heads"),
        ({"tokens": texts(0)[:3]}, "3 texts for a survey of 24"),
        ({"pattern": np.zeros((24, 4, 4))}, r"a pattern \[24, 4, 4\]"),
        ({"pattern": np.zeros((24, 20, 20))}, "looks at the first token alone"),
    ],
)
def test_bad_input_is_told_in_one_line(given: dict[str, Any], message: str) -> None:
    tokens = texts(0)
    given = {"layer": 0, "head": 0, "pattern": attention("names", tokens), "tokens": tokens, **given}
    with pytest.raises(ValueError, match=message):
        explain_head(survey(tokens), given["layer"], given["head"], given["pattern"], given["tokens"], STRINGS)
