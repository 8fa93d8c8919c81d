"""Sparse probing: how well k features predict a label.

    chosen = the k features with the largest |mean over class 1 - mean over class 0| on the training examples
    p(class 1) = sigmoid(w . f[chosen] + b),    fitted by L2-penalised logistic regression

Gurnee et al. 2023, Finding neurons in a haystack, https://arxiv.org/abs/2305.01610; with C = 1 and features as they
are, as in SAEBench, Karvonen et al. 2025, https://arxiv.org/abs/2503.09532.
Caveat: features are chosen one by one and in their own units, so a few redundant or large ones may crowd out others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class SparseProbe:
    """A probe on a few features, and how it does on the examples it was not fitted to.

    Attributes:
      features: `[k]` int, the chosen ones, the most telling first.
      weights: `[k]`.
      bias: a number.
      accuracy: share of the held-out examples that it gets right.
      auc: area under the ROC curve on them, 0.5 at chance whatever the classes' sizes.
      majority: share of the larger class among them: the accuracy of always saying it.
    """

    features: np.ndarray
    weights: np.ndarray
    bias: float
    accuracy: float
    auc: float
    majority: float


def sparse_probe(
    features: Any, labels: Any, train: Any, *, k: Sequence[int | None] = (1, 2, 5, 10, None)
) -> dict[int | None, SparseProbe]:
    """Fits a logistic regression to the k features that tell the classes apart best, for each k.

    Args:
      features: `[n d]`, of a dictionary at one position of each example or averaged over positions; or activations,
        for the baseline.
      labels: `[n]`, bool or 0 and 1.
      train: `[n]` bool, True at the examples that features are chosen and probes fitted on; the rest is held out.
      k: how many features; None is all of them, the dense reference.

    Returns:
      `{k: SparseProbe}`.

    Raises:
      ValueError: the shapes do not fit, the labels are not of two classes, both sides of the split do not have both
        classes, features are not finite, or k is not between 1 and d.

    Example:
      >>> import numpy as np
      >>> from interp_jax import dictionaries
      >>> features = np.random.default_rng(0).uniform(size=(200, 16))
      >>> probes = dictionaries.sparse_probe(features, features[:, 3] > 0.5, np.arange(200) < 150, k=(1, None))
      >>> probes[1].features.tolist(), probes[1].accuracy > 0.9
      ([3], True)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    x, y, fitted = _checked(features, labels, train)
    for n in k:
        if n is not None and not 1 <= n <= x.shape[1]:
            raise ValueError(f"sparse_probe: k={n} with {x.shape[1]} features; it must be between 1 and that, or None")
    apart = np.abs(x[fitted & y].mean(0) - x[fitted & ~y].mean(0))
    ranked = np.argsort(-apart, kind="stable")
    held_out = y[~fitted]
    probes = {}
    for n in k:
        chosen = ranked[:n]
        probe = LogisticRegression(max_iter=1000).fit(x[fitted][:, chosen], y[fitted])
        scores = probe.decision_function(x[~fitted][:, chosen])
        probes[n] = SparseProbe(
            features=chosen,
            weights=probe.coef_[0],
            bias=float(probe.intercept_[0]),
            accuracy=float(((scores > 0) == held_out).mean()),
            auc=float(roc_auc_score(held_out, scores)),
            majority=float(max(held_out.mean(), 1 - held_out.mean())),
        )
    return probes


def _checked(features: Any, labels: Any, train: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y, fitted = np.asarray(features), np.asarray(labels), np.asarray(train)
    if x.ndim != 2 or y.shape != x.shape[:1] or fitted.shape != y.shape or fitted.dtype != bool:
        raise ValueError(
            f"sparse_probe: features {x.shape}, labels {y.shape}, train {fitted.shape} of {fitted.dtype}; "
            "give [n d], [n] and [n] of bool"
        )
    if y.dtype != bool and not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"sparse_probe: labels have the values {np.unique(y)[:5].tolist()}; probe one class against the rest, "
            "labels == value"
        )
    x, y = x.astype(np.float32), y.astype(bool)
    if not np.isfinite(x).all():
        raise ValueError("sparse_probe: features have NaN or inf; leave those examples out")
    for side, name in ((fitted, "training"), (~fitted, "held-out")):
        if y[side].all() or not y[side].any():
            raise ValueError(f"sparse_probe: the {side.sum()} {name} examples are not of both classes; split otherwise")
    return x, y, fitted
