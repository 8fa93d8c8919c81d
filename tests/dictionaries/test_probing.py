"""Sparse probes find a planted feature, and chance where there is nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.feature_selection import r_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score

from interp_jax import dictionaries

N, D, PLANTED = 1200, 40, 17


@pytest.fixture(scope="module")
def planted():
    """Sparse features of equal spread, one of which is on for one class alone."""
    rng = np.random.default_rng(5)
    features = rng.uniform(1, 2, (N, D)) * (rng.uniform(size=(N, D)) < 0.3)
    labels = features[:, PLANTED] > 0
    return features.astype(np.float32), labels, rng.uniform(size=N) < 0.6, rng


def test_one_feature_that_is_the_label(planted):
    features, labels, train, _ = planted
    probes = dictionaries.sparse_probe(features, labels, train, k=(1, 5, None))
    assert list(probes) == [1, 5, None]
    assert probes[1].features.tolist() == [PLANTED] and probes[1].weights[0] > 0
    assert probes[1].accuracy == 1 and probes[1].auc == 1 and probes[None].accuracy > 0.97
    assert len(probes[None].features) == D and probes[5].features[0] == PLANTED
    assert probes[1].majority == pytest.approx(1 - labels[~train].mean())


def test_shuffled_labels_are_at_chance(planted):
    features, labels, train, rng = planted
    for probe in dictionaries.sparse_probe(features, rng.permutation(labels), train, k=(1, 5, None)).values():
        assert probe.accuracy < probe.majority + 0.05 and abs(probe.auc - 0.5) < 0.1  # its deviation is about 0.03


def test_a_feature_that_is_off_for_the_class_tells_as_much(planted):
    features, labels, train, _ = planted
    probe = dictionaries.sparse_probe(features, ~labels, train, k=(1,))[1]
    assert probe.features.tolist() == [PLANTED] and probe.weights[0] < 0 and probe.accuracy == 1


def test_it_is_sklearns_fit_of_the_features_chosen_in_training(planted):
    """Equally spread features go by their correlation with the label as by the difference of class means."""
    rng = np.random.default_rng(7)
    labels, train = rng.uniform(size=N) < 0.4, np.arange(N) < 700
    x = rng.normal(size=(N, D)) + np.linspace(0, 0.6, D) * labels[:, None]
    x[train] /= x[train].std(0)
    ranked = np.argsort(-np.abs(r_regression(x[train], labels[train])))
    x[~train, 0] += 50 * labels[~train]  # tells everything, but not in training
    probe = dictionaries.sparse_probe(x, labels.astype(int), train, k=(3,))[3]
    assert probe.features.tolist() == ranked[:3].tolist()
    x = x.astype(np.float32)[:, probe.features]
    peer = LogisticRegression(max_iter=1000).fit(x[train], labels[train])
    np.testing.assert_allclose(probe.weights, peer.coef_[0], rtol=1e-4)
    assert probe.bias == pytest.approx(peer.intercept_[0], rel=1e-4)
    assert probe.accuracy == accuracy_score(labels[~train], peer.predict(x[~train]))
    assert probe.auc == pytest.approx(roc_auc_score(labels[~train], peer.predict_proba(x[~train])[:, 1]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_features_of_a_dictionary_as_they_come(dtype):
    dictionary = dictionaries.TopK.create(jax.random.key(0), 8, 32, 4)
    x = jax.random.normal(jax.random.key(1), (300, 8))
    features = dictionary.encode(x)
    label = features[:, 11] > 0
    train = jnp.arange(300) < 200
    probe = dictionaries.sparse_probe(features.astype(dtype), label, train, k=(1,))[1]
    assert probe.features.tolist() == [11] and probe.auc == 1


def test_refusals(planted):
    features, labels, train, _ = planted
    with pytest.raises(ValueError, match="one class against the rest"):
        dictionaries.sparse_probe(features, labels + np.arange(N) % 3, train)
    with pytest.raises(ValueError, match="training examples are not of both classes"):
        dictionaries.sparse_probe(features, labels & ~train, train)
    with pytest.raises(ValueError, match="held-out examples are not of both classes"):
        dictionaries.sparse_probe(features, labels, np.ones(N, bool))
    with pytest.raises(ValueError, match="k=41"):
        dictionaries.sparse_probe(features, labels, train, k=(1, 41))
    with pytest.raises(ValueError, match="of bool"):
        dictionaries.sparse_probe(features, labels, np.flatnonzero(train))
    with pytest.raises(ValueError, match="NaN"):
        dictionaries.sparse_probe(np.where(features > 1.9, np.nan, features), labels, train)
