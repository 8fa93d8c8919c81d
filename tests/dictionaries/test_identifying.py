"""Plausibility, identifiability and recovery, against loops over scikit-learn's accuracy and by known cases."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from interp_jax import dictionaries
from interp_jax.data import planted
from interp_jax.dictionaries.scores.recovery import LEVELS

rng = np.random.default_rng(0)


def test_identifiability_is_the_best_balanced_accuracy():
    features = np.maximum(rng.normal(size=(60, 7)), 0).astype(np.float32)
    factors = rng.random((60, 4)) < 0.3
    expected = [
        max(
            balanced_accuracy_score(factor, feature > np.float32(level) * feature.max())
            for feature in features.T
            for level in LEVELS
        )
        for factor in factors.T
    ]
    np.testing.assert_allclose(dictionaries.identifiability(features, factors), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        dictionaries.identifiability(-features, factors), dictionaries.identifiability(features, factors)
    )
    assert np.isnan(dictionaries.identifiability(features, np.zeros((60, 1), bool))).all()


def test_plausibility_counts_what_is_not_known():
    known = np.eye(4, dtype=np.float32)
    found = np.concatenate([known, [[1, 1, 1, 1]]]).astype(np.float32)
    assert float(dictionaries.mean_max_cosine(found, known)) == 1.0
    np.testing.assert_allclose(dictionaries.plausibility(found, known), 0.9, rtol=1e-6)


def exact(n_features=12, d=20):
    """A ReLU dictionary that is the truth, its inputs and their coefficients."""
    rows = jnp.asarray(np.linalg.qr(rng.normal(size=(d, n_features)))[0].T, jnp.float32)
    c = planted.coefficients(jax.random.key(0), "heavy_tailed", 2000, n_features, 1.0)
    made = dictionaries.ReLU.create(jax.random.key(0), d, n_features)
    return replace(made, W_enc=rows.T, W_dec=rows), c @ rows, rows, c > 0


def test_the_truth_is_recovered():
    found = dictionaries.recovery(*exact())
    for name in ("cosine", "common", "rare", "plausible"):
        assert found[name] == pytest.approx(1.0, abs=1e-5)
    assert found["fvu"] == pytest.approx(0.0, abs=1e-9) and found["missed"] == 0


def test_a_parent_that_is_absorbed_is_missed():
    rows = jnp.eye(4)
    c = planted.coefficients(jax.random.key(0), "hierarchical", 2000, 4, 0.4)
    enc = rows.at[1:, 0].set(-100.0)  # the parent's feature is silent where a child is in the input
    made = replace(dictionaries.ReLU.create(jax.random.key(0), 4, 4), W_enc=enc, W_dec=rows)
    found = dictionaries.recovery(made, c @ rows, rows, c > 0)
    parents = np.asarray(c[:, 0] > 0)
    assert found["missed"] == pytest.approx(np.asarray((c[:, 1:] > 0).any(1))[parents].mean(), abs=1e-6)


def test_a_skip_is_taken_from_what_is_to_be_found():
    _, x, rows, active = exact()
    skip = jnp.asarray(0.3 * rng.normal(size=(20, 20)), jnp.float32)
    made = dictionaries.SkipTranscoder.create(jax.random.key(0), 20, 12)
    made = replace(made, W_enc=rows.T, W_dec=rows, W_skip=skip)
    batch, directions = (x, x + x @ skip.T), (rows, rows + rows @ skip.T)
    assert dictionaries.recovery(made, batch, directions, active)["cosine"] == pytest.approx(1.0, abs=1e-5)
    plain = dictionaries.Transcoder.create(jax.random.key(0), 20, 12)
    plain = replace(plain, W_enc=rows.T, W_dec=rows)
    assert dictionaries.recovery(plain, batch, directions, active)["cosine"] < 0.9


def test_rows_of_several_sites_are_side_by_side():
    crosscoder = dictionaries.Crosscoder.create(jax.random.key(0), 5, 8, n_sites=3)
    features = jnp.eye(8)
    written = crosscoder.decode(features).reshape(8, -1)
    np.testing.assert_allclose(dictionaries.written_rows(crosscoder), written, rtol=1e-6)
    clt = dictionaries.CrossLayerTranscoder.create(jax.random.key(0), 5, 8, n_layers=2)
    first = jnp.stack([features, jnp.zeros_like(features)], 1)
    np.testing.assert_allclose(dictionaries.written_rows(clt), clt.decode(first).reshape(8, -1), rtol=1e-6)


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match=r"identifiability: features \(5, 3\) and factors \(4, 2\)"):
        dictionaries.identifiability(np.ones((5, 3), np.float32), np.ones((4, 2), bool))
