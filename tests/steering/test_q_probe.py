"""Q-probes: the KL identity on completions that can be counted, both objectives, and what they choose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multinomial
from sklearn.linear_model import LinearRegression

from interp_jax import steering
from interp_jax.steering.q_probe import policy_loss, reward_loss

RNG = np.random.default_rng(0)
PHI = jnp.asarray(RNG.normal(size=(40, 6, 5)) * 3 + 1, jnp.float32)
REWARDS = PHI @ jnp.asarray(RNG.normal(size=5), jnp.float32) + 2
PROBE = steering.QProbe(jnp.asarray(RNG.normal(size=5), jnp.float32), jnp.float32(0.3))


def test_many_samples_give_the_tilted_policy():
    """What is chosen of k samples of three completions nears p0 exp(q / beta) / Z as 1 / k does."""
    p0, q, beta = np.array([0.5, 0.3, 0.2]), np.array([0.0, 0.4, 1.0]), 0.7
    probe = steering.QProbe(jnp.ones(1), jnp.zeros(()))
    tilted = p0 * np.exp(q / beta) / (p0 * np.exp(q / beta)).sum()
    far = []
    for k in (1, 8, 64):
        counts = np.array([(i, j, k - i - j) for i in range(k + 1) for j in range(k + 1 - i)])
        chance = multinomial.pmf(counts, k, p0)
        drawn = np.array([np.repeat(range(3), count) for count in counts])  # in any order: what counts is how often
        weights = np.asarray(probe.choose(jnp.asarray(q[drawn], jnp.float32)[..., None], beta))
        chosen = np.array([(chance * (weights * (drawn == a)).sum(1)).sum() for a in range(3)])
        assert chosen.sum() == pytest.approx(1, abs=1e-5)
        far.append(np.abs(chosen - tilted).max())
    assert far[1] < far[0] / 2 and far[2] < far[1] / 4
    # Of all policies it has the most of E[q] - beta KL, which is beta log E exp(q / beta).
    most = beta * np.log((p0 * np.exp(q / beta)).sum())

    def value(policy):
        return (policy * q).sum() - beta * (policy * np.log(policy / p0)).sum()

    assert value(tilted) == pytest.approx(most)
    assert all(value(policy) <= most + 1e-12 for policy in RNG.dirichlet(np.ones(3), 50))


def test_the_divergence_is_that_from_any_of_them_alike():
    weights = PROBE.choose(PHI, 0.5)
    k = weights.shape[-1]
    want = (np.asarray(weights) * np.log(np.maximum(np.asarray(weights), 1e-30) * k)).sum(-1)
    np.testing.assert_allclose(steering.kl_from_samples(weights), want, atol=1e-4)
    np.testing.assert_allclose(steering.kl_from_samples(PROBE.choose(PHI, 1e6)), 0, atol=1e-4)
    np.testing.assert_allclose(steering.kl_from_samples(jnp.eye(4)), np.log(4), atol=1e-5)


def test_the_reward_objective_is_regression():
    probe = steering.QProbe.train(jax.random.key(0), PHI, REWARDS, n_steps=3000, weight_decay=0.0)
    fit = LinearRegression().fit(np.asarray(PHI).reshape(-1, 5), np.asarray(REWARDS).ravel())
    np.testing.assert_allclose(probe.w, fit.coef_, atol=2e-2)
    np.testing.assert_allclose(probe.b, fit.intercept_, atol=5e-2)
    assert float(reward_loss(probe, PHI, REWARDS, 1.0)) < 1e-3


def test_the_policy_objective_is_the_mean_reward_of_the_choice():
    beta = 0.4
    q = np.asarray(PHI) @ np.asarray(PROBE.w) + 0.3
    weights = np.exp((q - q.max(-1, keepdims=True)) / beta)
    weights /= weights.sum(-1, keepdims=True)
    want = -(weights * np.asarray(REWARDS)).sum(-1).mean()
    assert float(policy_loss(PROBE, PHI, REWARDS, beta)) == pytest.approx(want, rel=1e-4)
    trained = steering.QProbe.train(jax.random.key(0), PHI, REWARDS, objective="policy", beta=beta)
    best = np.asarray(REWARDS).max(-1).mean()
    assert -float(policy_loss(trained, PHI, REWARDS, beta)) > 0.95 * best


def test_jit_vmap_and_bfloat16():
    weights = PROBE.choose(PHI, 0.5)
    np.testing.assert_allclose(jax.jit(lambda p, x, beta: p.choose(x, beta))(PROBE, PHI, 0.5), weights, atol=1e-6)
    many = jax.vmap(lambda beta: PROBE.choose(PHI, beta))(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(many[0], weights, atol=1e-6)
    half = PROBE.choose(PHI.astype(jnp.bfloat16), 0.5)
    assert half.dtype == jnp.float32 and float(jnp.abs(half - weights).max()) < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda key: PROBE.choose(PHI, 0.0), "beta=0.0: it must be above 0"),
        (lambda key: steering.QProbe.train(key, PHI, REWARDS, beta=-1.0), "beta=-1.0"),
        (lambda key: steering.QProbe.train(key, PHI, REWARDS[:, :3]), "rewards [40, 3]"),
        (lambda key: steering.QProbe.train(key, PHI, REWARDS, objective="ppo"), "objective='ppo'"),
        (lambda key: steering.QProbe.train(key, PHI[:0], REWARDS[:0]), "phi [0, 6, 5]"),
        (lambda key: steering.QProbe.train(key, PHI, REWARDS, n_steps=0), "n_steps=0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError) as caught:
        call(jax.random.key(0))
    assert message in str(caught.value)
