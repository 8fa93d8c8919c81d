"""Scores of probes beside scikit-learn's and a loop over bins; the regularisation path beside fits one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from interp_jax import probes
from interp_jax.probes.scoring import auc
from tests.probes.test_fits import drawn


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def calibration(p: np.ndarray, y: np.ndarray, n_bins: int = 15) -> float:
    confidence, right = p.max(1), p.argmax(1) == y
    total = 0.0
    for b in range(n_bins):
        inside = (confidence > b / n_bins) & (confidence <= (b + 1) / n_bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("n_classes", [2, 4])
def test_scores_are_scikit_learns(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(size=(3, 90, n_classes)), 1).astype(np.float32)  # rounded: many are equal
    y = rng.integers(n_classes, size=90)
    keep = np.arange(90) % 4 > 0
    found = probes.scores(lambda x: x, jnp.asarray(logits), y, weights=keep)
    for place in range(3):
        p, right = softmax(logits[place][keep].astype(np.float64)), y[keep]
        margin = logits[place][keep].astype(np.float32)
        expected = (
            roc_auc_score(right, margin[:, 1] - margin[:, 0])
            if n_classes == 2
            else roc_auc_score(right, p, multi_class="ovr")
        )
        np.testing.assert_allclose(found.auc[place], expected, atol=1e-3)
        np.testing.assert_allclose(found.accuracy[place], (p.argmax(1) == right).mean(), atol=1e-6)
        np.testing.assert_allclose(found.log_loss[place], log_loss(right, p), atol=1e-5)
        np.testing.assert_allclose(found.calibration[place], calibration(p, right), atol=1e-5)


def test_one_class_has_no_auc() -> None:
    found = probes.scores(lambda x: x, jnp.zeros((4, 2)), jnp.ones(4, jnp.int32))
    assert np.isnan(found.auc) and found.accuracy == 0


def test_labels_that_a_probe_does_not_know_are_refused() -> None:
    x, y = drawn(20, 4, 2)
    probe = probes.logistic(x, y)
    with pytest.raises(ValueError, match=r"probes.scores: labels from 0 to 2: they must be 0 to 1"):
        probes.scores(probe, x, np.arange(20) % 3)
    with pytest.raises(ValueError, match=r"probes.scores: labels of shape \[19\]"):
        probes.scores(probe, x, y[:19])


def test_a_path_is_its_fits() -> None:
    x, y = drawn(80, 10, 2, noise=2.0, places=(2,))
    x[1] = np.random.default_rng(5).normal(size=x[1].shape)  # noise, for which much regularisation is best
    held, l2s = np.arange(80) >= 50, [0.01, 1.0, 1000.0]
    found = probes.path(x, y, l2s, held_out=held)
    losses = np.stack(
        [probes.scores(probes.logistic(x, y, l2=l2, weights=~held), x, y, weights=held).log_loss for l2 in l2s]
    )
    np.testing.assert_allclose(found.scores.log_loss, losses, atol=1e-5)
    np.testing.assert_allclose(found.l2, np.asarray(l2s, np.float32)[losses.argmin(0)])
    assert found.l2[1] == 1000 and found.l2[0] < 1000
    best = probes.logistic(x, y, l2=found.l2, weights=~held)  # a penalty for each place
    np.testing.assert_allclose(best.W, found.probe.W, atol=1e-4)
    with pytest.raises(ValueError, match=r"l2s of shape \[0\]: give a list of at least one penalty"):
        probes.path(x, y, [], held_out=held)


def test_auc_under_vmap_and_weights() -> None:
    rng = np.random.default_rng(1)
    values, positive, weights = rng.normal(size=50).round(1), rng.integers(2, size=50) > 0, rng.uniform(size=50)
    ours = jax.vmap(auc, (0, None, None))(
        jnp.asarray(np.stack([values, -values]), jnp.float32), jnp.asarray(positive), jnp.asarray(weights, jnp.float32)
    )
    expected = roc_auc_score(positive, values, sample_weight=weights)
    np.testing.assert_allclose(ours, [expected, 1 - expected], atol=1e-5)
