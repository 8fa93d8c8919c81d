"""A board of hand-made records: the model is a table, so that it is known what fires where; some tokens are no good."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, explain, heads, report

EVIL = "<script>document.title='owned'</script>"
STRINGS = ["<bos>", " the", " cat", EVIL, "\n", "a\u200bb", "\u202eשלום", " end"]
N_TEXTS, WIDTH = 12, 24
CAT, DEAD = 2, 7


def look(table, tokens):
    x = ij.site(table[tokens], "seen", axes=("position", "d_model"))
    return ij.site(2 * x, "other", axes=("position", "d_model"))


def tokens() -> np.ndarray:
    drawn = np.random.default_rng(0).integers(1, 7, (N_TEXTS, WIDTH)).astype(np.int32)
    drawn[:, 0] = 0
    return drawn


@pytest.fixture(scope="session")
def records() -> dict[str, explain.Records]:
    """Feature i fires on token i, stronger for a larger i; the last one on a token that does not occur."""
    table = jnp.diag(jnp.arange(1.0, 9.0))
    features = dictionaries.ReLU.create(jax.random.key(0), d_in=8, d_sae=8)
    zeros = jnp.zeros(8)
    features = replace(features, W_enc=jnp.eye(8), b_enc=zeros, W_dec=jnp.eye(8) + 0.1, b_dec=zeros)
    where = {"seen": features, "other": None}
    return explain.record(look, where, effects=lambda rows: rows - 0.3)(table, tokens(), skip=(0,))


@pytest.fixture(scope="session")
def head_list() -> report.HeadList:
    def examples(*shape: int) -> heads.Examples:
        at = np.zeros((1, 2, *shape), np.int32)
        keys, weights = np.full((*at.shape, 1), 3), np.full((*at.shape, 1), 0.5, np.float32)
        return heads.Examples(np.full(at.shape, 0.5, np.float32), at, at + 5, keys, weights)

    scores = {"self": np.array([[0.25, 0.5]]), "distance_variance": np.array([[3.0, np.nan]])}
    survey = heads.Survey(scores, np.array([[0.5, 0.1]]), examples(1), examples(5, 1), N_TEXTS, 99)
    written = {(0, 5): (EVIL, " cat")}
    each = [report.describe_head(survey, 0, head, tokens(), STRINGS, written=written) for head in range(2)]
    return report.head_list(survey, each)


@pytest.fixture
def board(records, head_list) -> report.Board:
    """Live, with a model that fires on every "cat" and says how strongly it is steered."""

    def fire(source: str, unit: int, text: str) -> tuple[list[str], list[float]]:
        words = [f" {word}" for word in text.split()]
        return words, [unit * float(word == " cat") for word in words]

    def steer(source: str, unit: int, prompt: str, strength: float) -> tuple[str, str]:
        if "impossible" in prompt:
            raise ValueError("the text is too long;\nshorten it")
        return " goes on", f" held {unit} at {strength:g} <b>"

    scores = {"simulation": explain.Score(0.5, 0.25, 0.75), "fuzzing": explain.Score(0.875, np.nan, np.nan)}
    said = [explain.Explanation("seen", CAT, f"cats {EVIL}", "me", scores)]
    live = report.Live(fire, steer, frozenset({"seen", "other"}), frozenset({"seen"}))
    return report.Board("a <title>", records, STRINGS, {"seen": {"kind": "ReLU"}}, said, head_list, live)
