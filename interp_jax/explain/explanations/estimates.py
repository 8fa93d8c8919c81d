"""Scores of explanations as numbers with intervals: correlation, balanced accuracy, F1, area under the ROC curve.

    interval: the 2.5th and 97.5th percentile of the score over 1,000 draws of as many texts, with replacement

Texts are drawn, not tokens, since tokens of one text are alike; and those that should be active apart from the others,
as they were chosen. A score of two classes is of what was judged; what could not be judged is counted beside it.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

N_DRAWS = 1000
TAILS = (2.5, 97.5)


class Score(NamedTuple):
    """A number, and the interval that holds it in 95 of 100 draws of the texts."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def correlation(simulated: Sequence[np.ndarray], real: Sequence[np.ndarray], strata: Sequence[int]) -> Score | None:
    """Pearson's correlation over all tokens of several texts together.

    Args:
      simulated: of each text, float `[token]`; nan at tokens that do not count.
      real: likewise.
      strata: of each text, the number of the kind that it is of.

    Returns:
      None where it is not defined: one of the two does not vary.

    Example:
      >>> import numpy as np
      >>> from interp_jax.explain.explanations import estimates
      >>> one, other = np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0, 4.0])
      >>> round(estimates.correlation([one, one], [other, other], [0, 0]).value, 4)
      0.9608
    """
    rows = []
    for x, y in zip(simulated, real, strict=True):
        usable = np.isfinite(x) & np.isfinite(y)
        rows.append((x[usable], y[usable]))
    every = np.concatenate([np.stack(row) for row in rows], axis=1) if rows else np.zeros((2, 0))
    if not every.size or (np.ptp(every, axis=1) == 0).any():
        return None
    # Sums of shifted and scaled values: correlation does not change, and small differences are not lost.
    (mean_x, mean_y), (scale_x, scale_y) = every.mean(1), every.std(1)
    sums = []
    for x, y in rows:
        u, v = (x - mean_x) / scale_x, (y - mean_y) / scale_y
        sums.append((len(u), u.sum(), v.sum(), u @ u, v @ v, u @ v))
    return of_sums(np.array(sums), _pearson, strata)


def balanced_accuracy(said: np.ndarray, active: np.ndarray) -> Score | None:
    """The mean of the share of active texts that are called so and of the others that are not.

    Args:
      said: bool `[text]`, what was said.
      active: bool `[text]`, what is true.

    Returns:
      None where there is no text of one of the two kinds.

    Example:
      >>> import numpy as np
      >>> from interp_jax.explain.explanations import estimates
      >>> estimates.balanced_accuracy(np.array([True, True, False]), np.array([True, False, False])).value
      0.75
    """
    return _of_two_classes(said, active, lambda n: (n[..., 0] / (n[..., 0] + n[..., 1]) + _specificity(n)) / 2)


def f1(said: np.ndarray, active: np.ndarray) -> Score | None:
    """The harmonic mean of precision and recall; arguments and returns as those of `balanced_accuracy`."""
    return _of_two_classes(said, active, lambda n: 2 * n[..., 0] / (2 * n[..., 0] + n[..., 1] + n[..., 2]))


def area(value: np.ndarray, active: np.ndarray) -> Score | None:
    """The area under the ROC curve: how often an active text has the larger value of the two, ties counting half.

    Args:
      value: float `[text]`.
      active: bool `[text]`, what is true.

    Returns:
      None where there is no text of one of the two kinds.

    Example:
      >>> import numpy as np
      >>> from interp_jax.explain.explanations import estimates
      >>> estimates.area(np.array([0.9, 0.2, 0.2]), np.array([True, True, False])).value
      0.75
    """
    positive, negative = value[active], value[~active]
    if not len(positive) or not len(negative):
        return None
    wins = np.greater.outer(positive, negative) + 0.5 * np.equal.outer(positive, negative)
    draws = _draws(len(positive), 1), _draws(len(negative), 2)
    means = np.einsum("dp,pn,dn->d", draws[0] / len(positive), wins, draws[1] / len(negative), optimize=True)
    return Score(float(wins.mean()), *_interval(means))


def share(right: np.ndarray) -> Score | None:
    """The mean of `right`, bool or float `[trial]`; None without any."""
    if not len(right):
        return None
    return Score(float(np.mean(right)), *_interval(_draws(len(right), 3) @ right / len(right)))


def _of_two_classes(said: np.ndarray, active: np.ndarray, statistic: Callable[..., np.ndarray]) -> Score | None:
    if not active.any() or active.all():
        return None
    counts = np.stack([active & said, active & ~said, ~active & said, ~active & ~said], axis=1)
    return of_sums(counts.astype(np.float64), statistic, active.astype(int).tolist())


def of_sums(sums: np.ndarray, statistic: Callable[..., np.ndarray], strata: Sequence[int]) -> Score:
    """A statistic of sums over texts, `[text number]`, and of sums over texts drawn anew within each stratum."""
    kinds = np.asarray(strata)
    drawn = np.zeros((N_DRAWS, sums.shape[1]))
    for kind in np.unique(kinds):
        of_kind = sums[kinds == kind]
        drawn += _draws(len(of_kind), int(kind)) @ of_kind
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw may have a statistic that is not defined
        return Score(float(statistic(sums.sum(0)[None])[0]), *_interval(statistic(drawn)))


@lru_cache(maxsize=64)  # most scores are of as many texts as the one before
def _draws(n: int, seed: int) -> np.ndarray:
    """How often each of n is drawn, float `[draw n]`."""
    return np.random.default_rng((seed, n)).multinomial(n, np.full(n, 1 / n), N_DRAWS).astype(np.float64)


def _interval(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, TAILS) if len(finite) else (np.nan, np.nan)
    return float(low), float(high)


def _specificity(n: np.ndarray) -> np.ndarray:
    return n[..., 3] / (n[..., 2] + n[..., 3])


def _pearson(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    return (n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y))
