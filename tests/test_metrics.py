"""Metrics against scipy, in numpy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from interp_jax import metrics

BATCH, POSITION, VOCAB = 5, 7, 11


@pytest.fixture
def logits() -> jax.Array:
    return 3 * jax.random.normal(jax.random.key(0), (BATCH, VOCAB))


@pytest.fixture
def answers() -> jax.Array:
    return jnp.array([0, 3, 10, 4, 4])


@pytest.fixture
def distractors() -> jax.Array:
    return jnp.array([1, 2, 0, 9, 5])


def test_single_token_metrics(logits: jax.Array, answers: jax.Array, distractors: jax.Array) -> None:
    wide, row = np.asarray(logits, np.float64), np.arange(BATCH)
    expected = {
        metrics.logit_diff(answers, distractors): wide[row, answers] - wide[row, distractors],
        metrics.log_prob(answers): log_softmax(wide, -1)[row, answers],
        metrics.prob(answers): softmax(wide, -1)[row, answers],
        metrics.accuracy(answers): wide.argmax(-1) == answers,
    }
    for metric, want in expected.items():
        got = metric(logits)
        assert got.shape == (BATCH,) and got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_log_odds(logits: jax.Array) -> None:
    """Of the tokens together, each counted once; exact where the probability is nearly 1."""
    p = softmax(np.asarray(logits, np.float64), axis=-1)[:, [2, 0]].sum(-1)
    got = metrics.log_odds(jnp.array([2, 0, 2]))(logits)
    assert np.allclose(got, np.log(p) - np.log1p(-p), atol=1e-5)
    assert np.allclose(metrics.log_odds(jnp.array([1]))(jnp.array([[0.0, 60.0]])), 60.0)


def test_cross_entropy_counts_pairs_of_real_tokens() -> None:
    logits = jax.random.normal(jax.random.key(1), (3, POSITION, VOCAB))
    tokens = jax.random.randint(jax.random.key(2), (3, POSITION), 0, VOCAB)
    mask = jnp.array([[1] * 7, [0, 0, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0]], bool)
    log_probs = log_softmax(np.asarray(logits, np.float64), -1)
    want = []
    for b in range(3):
        pairs = [t for t in range(POSITION - 1) if mask[b, t] and mask[b, t + 1]]
        want.append(-sum(log_probs[b, t, tokens[b, t + 1]] for t in pairs) / max(len(pairs), 1))
    np.testing.assert_allclose(metrics.cross_entropy(tokens, mask)(logits), want, rtol=1e-5)
    np.testing.assert_allclose(metrics.cross_entropy(tokens)(logits)[0], want[0], rtol=1e-5)


def test_kl(logits: jax.Array) -> None:
    reference = jax.random.normal(jax.random.key(3), logits.shape).at[:, 2].set(-jnp.inf)
    p, q = softmax(np.asarray(reference, np.float64), -1), softmax(np.asarray(logits, np.float64), -1)
    np.testing.assert_allclose(metrics.kl(reference)(logits), rel_entr(p, q).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(metrics.kl(logits)(logits), 0, atol=1e-6)


def test_normalized(logits: jax.Array, answers: jax.Array) -> None:
    metric, other = metrics.log_prob(answers), logits[:, ::-1]
    clean, corrupted = metric(logits), metric(other)
    rescaled = metrics.normalized(metric, clean, corrupted)
    np.testing.assert_allclose(rescaled(logits), 1, rtol=1e-5)
    np.testing.assert_allclose(rescaled(other), 0, atol=1e-6)
    plain = metrics.normalized(lambda x: x.sum(-1), 2, 1)
    np.testing.assert_allclose(jax.jit(lambda m, x: m(x))(plain, logits), logits.sum(-1) - 1, rtol=1e-4)
    with pytest.raises(ValueError, match=r"clean equals corrupted in examples \[2\]"):
        metrics.normalized(metric, clean, corrupted.at[2].set(clean[2]))
    assert jnp.isnan(jax.jit(lambda c: metrics.normalized(metric, c, c)(logits))(clean)).all()


def test_metrics_are_arguments(logits: jax.Array, answers: jax.Array, distractors: jax.Array) -> None:
    traces = []

    @jax.jit
    def value(metric: metrics.Metric, x: jax.Array) -> jax.Array:
        traces.append(1)
        return metric(x)

    for right, wrong in ((answers, distractors), (distractors, answers)):
        metric = metrics.logit_diff(right, wrong)
        np.testing.assert_array_equal(value(metric, logits), metric(logits))
        np.testing.assert_array_equal(jax.vmap(lambda m, x: m(x))(metric, logits), metric(logits))
    assert len(traces) == 1


def test_bfloat16_is_computed_in_float32(logits: jax.Array, answers: jax.Array) -> None:
    half = logits.astype(jnp.bfloat16)
    for metric in (metrics.log_prob(answers), metrics.kl(half), metrics.accuracy(answers)):
        assert metric(half).dtype == jnp.float32
        np.testing.assert_array_equal(metric(half), metric(half.astype(jnp.float32)))


def test_logits_of_every_position_are_refused(answers: jax.Array, distractors: jax.Array) -> None:
    every = jnp.zeros((BATCH, POSITION, VOCAB))
    one = metrics.logit_diff(answers, distractors), metrics.log_prob(answers), metrics.prob(answers)
    for metric in (*one, metrics.accuracy(answers), metrics.kl(every[:, 0])):
        with pytest.raises(ValueError, match=r"wants logits of shape \[5, 'd_vocab'\], got \[5, 7, 11\].*logits_at="):
            metric(every)
    with pytest.raises(ValueError, match=r"cross_entropy: wants logits of shape \[5, 7, 'd_vocab'\]"):
        metrics.cross_entropy(jnp.zeros((BATCH, POSITION), jnp.int32))(every[:, 0])


def test_a_token_past_the_vocabulary_gives_nan(logits: jax.Array, answers: jax.Array) -> None:
    assert jnp.isnan(metrics.log_prob(answers.at[1].set(VOCAB))(logits)).tolist() == [False, True, False, False, False]
