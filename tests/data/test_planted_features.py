"""Planted features have the rates, the magnitudes and the structure that they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from interp_jax.data import planted

N, N_FEATURES, L0 = 40_000, 40, 3.0
kinds = pytest.mark.parametrize("kind", planted.KINDS)


def draw(kind, seed=0, n=N):
    return np.asarray(planted.coefficients(jax.random.key(seed), kind, n, N_FEATURES, L0), np.float64)


@kinds
def test_rates_and_magnitudes(kind):
    c, rates = draw(kind), np.asarray(planted.rates(kind, N_FEATURES, L0), np.float64)
    assert (c >= 0).all()
    error = 5 * np.sqrt(rates * (1 - rates) / N)  # five standard errors of a binomial's mean
    np.testing.assert_array_less(np.abs((c > 0).mean(0) - rates), error)
    assert abs((c > 0).sum(1).mean() - L0) < 0.1
    values = c[c > 0]
    law = stats.lognorm(1.0, scale=np.exp(-0.5)) if kind == "heavy_tailed" else stats.uniform(0.5, 1.0)
    assert stats.kstest(values, law.cdf).pvalue > 1e-3


def test_which_features_go_together():
    phi = {kind: np.corrcoef(draw(kind).T > 0) for kind in planted.KINDS}
    same = np.kron(np.eye(N_FEATURES // planted.GROUP), np.ones((planted.GROUP, planted.GROUP))) - np.eye(N_FEATURES)
    other = 1 - same - np.eye(N_FEATURES)
    for kind in ("correlated", "hierarchical"):
        assert phi[kind][same == 1].min() > 0.1
    for kind in planted.KINDS:
        assert np.abs(phi[kind][other == 1]).max() < 0.03
    # The copula: the probability that two of a group fire together is the bivariate normal's.
    rate = L0 / N_FEATURES
    normal = stats.multivariate_normal([0, 0], [[1, planted.CORRELATION], [planted.CORRELATION, 1]])
    expected = normal.cdf([stats.norm.ppf(rate)] * 2)
    c = draw("correlated") > 0
    assert abs((c[:, 0] & c[:, 1]).mean() - expected) < 5 * np.sqrt(expected / N)


def test_children_need_their_parents():
    c = draw("hierarchical") > 0
    parents, children = c[:, :: planted.GROUP], c[:, 1 :: planted.GROUP]
    assert not (children & ~parents).any()
    assert abs(children.sum() / parents.sum() - planted.CHILD) < 0.02


def test_the_tail_is_heavy():
    rates = np.asarray(planted.rates("heavy_tailed", N_FEATURES, L0))
    tail = rates[rates < planted.COMMONEST]
    np.testing.assert_allclose(tail[0] / tail[-1], N_FEATURES / (N_FEATURES - len(tail) + 1), rtol=1e-5)


@kinds
def test_inputs_are_centred_sums_of_the_directions(kind):
    rows = planted.directions(jax.random.key(1), 2 * N_FEATURES, 16).reshape(2, N_FEATURES, 16)
    sample = jax.jit(lambda key: planted.sample(key, kind, N, rows, l0=L0))
    c, x = sample(jax.random.key(0))
    assert x.shape == (2, N, 16)
    rates = np.asarray(planted.rates(kind, N_FEATURES, L0))
    np.testing.assert_allclose(x[1], (np.asarray(c) - rates) @ np.asarray(rows[1]), atol=2e-4)
    assert np.abs(np.asarray(x).mean(1)).max() < 0.05
    noisy = planted.sample(jax.random.key(0), kind, N, rows, l0=L0, noise=0.5)[1]
    assert abs(float(jnp.std(noisy - x)) - 0.5) < 0.01


@pytest.mark.parametrize(
    ("kind", "n_features", "l0", "message"),
    [
        ("dense", 40, 3.0, "planted: no kind 'dense'; there are independent"),
        ("independent", 41, 3.0, "n_features=41 must be a multiple of 4"),
        ("independent", 40, 5.0, "l0=5.0 above 0 and at most a tenth"),
    ],
)
def test_bad_input_is_named(kind, n_features, l0, message):
    with pytest.raises(ValueError, match=message):
        planted.coefficients(jax.random.key(0), kind, 10, n_features, l0)
