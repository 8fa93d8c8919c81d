"""Heads over a corpus, and the geometry of embeddings, on trained models."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import geometry, heads, models, report
from interp_jax.data import corpus
from tests.real.conftest import Real

pytestmark = pytest.mark.real


def test_known_heads_come_first_on_words_said_twice(smollm: Real) -> None:
    half = jax.random.randint(jax.random.key(0), (4, 24), 1000, 40000)
    found = heads.survey(models.forward)(smollm.model, [jnp.concatenate([half, half], axis=1)])
    assert found.first("induction") == (18, 6) and found.scores["induction"][18, 6] > 0.7
    assert found.scores["previous"][found.first("previous")] > 0.8
    assert (found.top.peak[18, 6, :4] > 0.9).all()  # one of each text


def test_known_heads_are_among_the_first_of_a_text(smollm: Real, real_data: Path) -> None:
    """Four heads do induction in SmolLM2, on words said twice and in Wikipedia's text."""
    text = corpus.read(smollm.tokenizer, real_data / "wikitext2" / "valid.txt", n_tokens=3000, n_positions=96)
    tokens, real = text.tokens[:24], text.real[:24]
    batches = [(tokens[at : at + 8], real[at : at + 8]) for at in (0, 8, 16)]
    found = heads.survey(models.forward, n_top=4)(smollm.model, batches)
    first = np.argsort(-found.scores["induction"], axis=None)[:6]
    assert 18 * 9 + 6 in first
    strings = smollm.tokenizer.to_str_tokens(range(smollm.tokenizer.d_vocab))
    shown = report.describe_head(found, 18, 6, tokens, strings, mask=real)
    assert len(shown.top) == 4 and "Head 18.6" in report.heads_page([shown], found, title="SmolLM2")


def test_two_models_share_their_geometry(smollm: Real, gemma: Real) -> None:
    words = [real.tokenizer.to_str_tokens(range(real.tokenizer.d_vocab)) for real in (smollm, gemma)]
    ids, others = geometry.shared_words(*words)
    assert len(ids) > 30_000 and all(words[0][i] == words[1][j] for i, j in zip(ids[:99], others[:99], strict=True))
    some = np.random.default_rng(0).permutation(len(ids))[:1000]
    a = models.weights(smollm.model)["W_E"][ids[some]]
    b = models.weights(gemma.model)["W_E"][others[some]]
    mixed = b[np.random.default_rng(1).permutation(1000)]
    assert geometry.relative_orientation(a, b) > 0.1 > abs(geometry.relative_orientation(a, mixed))
    near = [geometry.nearest_neighbours(x, 10) for x in (a, b)]
    own = geometry.lle_similarity(near[0], geometry.lle_weights(a, near[0]), near[1], geometry.lle_weights(b, near[1]))
    assert own.mean() > 0.1  # by chance it is k / n, 0.01
