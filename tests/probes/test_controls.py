"""Control tasks, description lengths and single units, on activations in which it is known what is there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from interp_jax import probes
from tests.probes.test_fits import drawn


def test_an_online_code_is_its_blocks() -> None:
    """Beside scikit-learn's fits, block by block, in the order of the key."""
    x, y = drawn(200, 6, 2, places=(2,))
    code = probes.online_code(jax.random.key(3), probes.logistic, x, y, shares=(0.1, 0.3, 1.0))
    order = np.asarray(jax.random.permutation(jax.random.key(3), 200))
    for place in range(2):
        rows, labels, bits = x[place][order].astype(np.float64), y[order], 20.0
        for known, end in ((20, 60), (60, 200)):
            peer = LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(rows[:known], labels[:known])
            p = peer.predict_proba(rows[known:end])[np.arange(end - known), labels[known:end]]
            bits -= np.log2(p).sum()
        np.testing.assert_allclose(code.bits[place], bits, rtol=1e-3)
    assert code.sizes == (20, 60, 200) and code.uniform == 200
    np.testing.assert_allclose(code.blocks.sum(0), code.bits, rtol=1e-6)
    assert code.compression[0] > 1


def test_blocks_without_a_class_are_sent_plainly() -> None:
    x, y = drawn(200, 6, 2)
    y = (np.arange(200) % 50 == 7).astype(np.int32)
    code = probes.online_code(jax.random.key(0), probes.logistic, x, y)
    order = np.asarray(jax.random.permutation(jax.random.key(0), 200))
    assert code.sizes[0] > np.argmax(y[order]) and np.isfinite(code.bits)
    with pytest.raises(ValueError, match=r"shares=\(0.5, 0.2\): they must rise to 1"):
        probes.online_code(jax.random.key(0), probes.logistic, x, y, shares=(0.5, 0.2))
    with pytest.raises(ValueError, match=r"all \d+ labels are 0|examples for 2 classes"):
        probes.online_code(jax.random.key(0), probes.logistic, x, np.zeros(200, int))


def test_selectivity_tells_reading_from_remembering() -> None:
    """Words of two classes: a small linear probe reads the class; one in many dimensions remembers words at random."""
    rng = np.random.default_rng(0)
    classes, words = np.arange(60) % 2, rng.integers(60, size=900)
    y, train = classes[words], np.arange(900) < 600
    narrow = np.stack([classes[words] * 2.0 - 1, rng.normal(size=900)], 1)
    wide = np.concatenate([narrow, 5 * np.eye(60)[words]], 1)
    x = np.stack([np.pad(narrow, ((0, 0), (0, 60))), wide]).astype(np.float32)
    control = probes.control_task(jax.random.key(0), words, y)
    for word in range(60):
        assert len(set(np.asarray(control)[words == word].tolist())) == 1
    assert 0.3 < float(control.mean(dtype=jnp.float32)) < 0.7
    found = [
        probes.scores(probes.logistic(x, labels, weights=train), x, labels, weights=~train).accuracy
        for labels in (y, control)
    ]
    selectivity = np.asarray(found[0] - found[1])
    assert found[0].min() > 0.99 and selectivity[0] > 0.2 and selectivity[1] < 0.05
    with pytest.raises(ValueError, match=r"types of shape \[3\] for labels \[900\]"):
        probes.control_task(jax.random.key(0), words[:3], y)


def test_the_best_unit_is_found_among_many() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 120, 40)).astype(np.float32)
    y = rng.integers(2, size=120)
    x[1, :, 17] = 3 + 0.1 * (x[1, :, 17] - 4 * y)  # lower for class 1, off the origin, and small
    train = np.arange(120) < 80
    every = probes.unit_auc(x, y, weights=train)
    peer = np.array([[roc_auc_score(y[:80], unit[:80]) for unit in place.T] for place in x])
    np.testing.assert_allclose(every, peer, atol=1e-5)
    found = probes.best_unit(x, y, weights=train)
    apart = np.abs(peer - 0.5)
    np.testing.assert_allclose(apart[np.arange(3), np.asarray(found.unit)], apart.max(1), atol=1e-5)
    assert found.unit[1] == 17
    held = probes.scores(found, x, y, weights=~train)
    assert held.auc[1] > 0.98 and held.accuracy[1] > 0.9 and held.auc[0] < 0.75
    np.testing.assert_allclose(found.values(x)[1], x[1, :, 17])
    threshold = -float(found.b[1] / found.slope[1])
    assert 2.7 < threshold < 2.9 and found.slope[1] < 0
    with pytest.raises(ValueError, match=r"labels from 0 to 2: they must be 0 to 1"):
        probes.best_unit(x, np.arange(120) % 3)
