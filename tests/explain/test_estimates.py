"""Numbers and their intervals, beside numpy, scikit-learn, scipy and explicit draws."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from interp_jax.explain.explanations import estimates

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("seed", range(5))
def test_two_classes(seed) -> None:
    rng = np.random.default_rng(seed)
    active, value = rng.random(40) < 0.4, np.round(rng.random(40), 1)  # with ties
    said = value > 0.5
    assert estimates.balanced_accuracy(said, active).value == pytest.approx(
        metrics.balanced_accuracy_score(active, said)
    )
    assert estimates.f1(said, active).value == pytest.approx(metrics.f1_score(active, said))
    assert estimates.area(value, active).value == pytest.approx(metrics.roc_auc_score(active, value))


def test_correlation_is_over_all_tokens_together() -> None:
    texts = [RNG.normal(size=(2, n)) * 1e-3 + 1e4 for n in (5, 9, 1, 30)]
    texts[1][0, 3] = np.nan
    score = estimates.correlation([x for x, _ in texts], [y for _, y in texts], [0, 0, 1, 1])
    every = np.concatenate(texts, axis=1)
    every = every[:, np.isfinite(every).all(0)]
    assert score.value == pytest.approx(np.corrcoef(every)[0, 1], abs=1e-6)
    assert score.low < score.value < score.high


def test_what_is_not_defined_is_none() -> None:
    no, yes = np.zeros(3, bool), np.ones(3, bool)
    for active in (no, yes, no[:0]):
        said = np.ones(len(active), bool)
        assert estimates.balanced_accuracy(said, active) is None and estimates.f1(said, active) is None
        assert estimates.area(said.astype(float), active) is None
    assert estimates.share(np.zeros(0)) is None
    flat, some = np.zeros(4), np.arange(4.0)
    for pair in (([flat], [some]), ([some], [flat]), ([], [])):
        assert estimates.correlation(*pair, [0] * len(pair[0])) is None
    assert estimates.f1(no, np.array([True, False, True])).value == 0  # nothing is called active


def test_intervals_beside_scipy() -> None:
    """Drawn within each class. scipy's own draws are others, so that the ends agree to their error alone."""
    active = np.arange(80) < 40
    value = RNG.normal(size=80) + active
    said = value > 0.5
    got = estimates.balanced_accuracy(said, active)
    want = stats.bootstrap(
        (said[active].astype(float), ~said[~active]),
        lambda a, b, axis: (a.mean(axis) + b.mean(axis)) / 2,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (got.low, got.high) == pytest.approx(tuple(want), abs=0.02)
    area = estimates.area(value, active)
    want = stats.bootstrap(
        (value[active], value[~active]),
        lambda a, b: metrics.roc_auc_score([1] * len(a) + [0] * len(b), [*a, *b]),
        method="percentile",
        n_resamples=600,
        vectorized=False,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (area.low, area.high) == pytest.approx(tuple(want), abs=0.02)


def test_intervals_of_explicit_draws() -> None:
    """The same draws made one by one: whole texts stand in one or are absent, within their stratum."""
    texts = [RNG.normal(size=(2, n)) for n in (4, 6, 8, 5, 7)]
    strata = [0, 0, 1, 1, 1]
    got = estimates.correlation([x for x, _ in texts], [y for _, y in texts], strata)
    values = []
    counts = [estimates._draws(2, 0), estimates._draws(3, 1)]
    for i in range(estimates.N_DRAWS):
        n = np.concatenate([counts[0][i], counts[1][i]]).astype(int)
        drawn = np.concatenate([text for text, k in zip(texts, n, strict=True) for _ in range(k)], axis=1)
        values.append(np.corrcoef(drawn)[0, 1])
    assert (got.low, got.high) == pytest.approx(np.percentile(values, [2.5, 97.5]))
    assert (counts[0].sum(1) == 2).all() and (counts[1].sum(1) == 3).all()
