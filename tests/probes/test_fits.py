"""Probes beside scikit-learn's, at several places at once, with examples left out, and with bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline

from interp_jax import probes

FITS = [probes.logistic, probes.ridge, probes.mass_mean, probes.pca, probes.nearest_neighbours]


def drawn(n: int, d_in: int, n_classes: int, seed: int = 0, noise: float = 1.0, places: tuple[int, ...] = ()):
    """Activations of uneven scale off the origin, and labels that a plane tells apart up to noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*places, n, d_in)) * np.exp(rng.normal(size=d_in)) + 5 * rng.normal(size=d_in)
    first = x[(0,) * len(places)]
    values = (first - first.mean(0)) @ rng.normal(size=(d_in, n_classes)) / d_in**0.5
    y = (values + noise * rng.normal(size=values.shape)).argmax(1)
    return x.astype(np.float32), y


def theirs(l2: float, x, y, weights=None) -> LogisticRegression:
    return LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(x, y, weights)


@pytest.mark.parametrize(
    ("n", "d_in", "n_classes", "l2", "noise"),
    [
        (200, 12, 2, 1.0, 1.0),
        (200, 12, 2, 1e-2, 3.0),
        (200, 12, 4, 1.0, 1.0),
        (60, 100, 2, 1.0, 1.0),
        (60, 100, 3, 10.0, 0.0),
    ],
)
def test_logistic_is_scikit_learns(n: int, d_in: int, n_classes: int, l2: float, noise: float) -> None:
    x, y = drawn(n, d_in, n_classes, noise=noise)
    probe, other = probes.logistic(x, y, l2=l2), theirs(l2, x.astype(np.float64), y)
    new, _ = drawn(50, d_in, n_classes, seed=1)
    for rows in (x, new):
        np.testing.assert_allclose(jax.nn.softmax(probe(rows)), other.predict_proba(rows), atol=1e-3)
    ours = probe.W[1:] if n_classes == 2 else probe.W
    np.testing.assert_allclose(ours, other.coef_, atol=5e-3 * np.abs(other.coef_).max())
    np.testing.assert_array_equal(probe.predict(x), other.predict(x))


def test_logistic_of_activations_that_are_large_and_alike() -> None:
    """A residual stream has a few giant dimensions; the optimum is what it is in float64."""
    x, y = drawn(300, 20, 2, noise=2.0)
    x[:, 3] = x[:, 3] * 300 + 5000
    other = theirs(1.0, x.astype(np.float64), y)
    np.testing.assert_allclose(jax.nn.softmax(probes.logistic(x, y)(x)), other.predict_proba(x), atol=2e-3)


def test_the_others_are_scikit_learns() -> None:
    for n_classes in (2, 3):
        x, y = drawn(150, 8, n_classes)
        wide = x.astype(np.float64)
        decision = RidgeClassifier(alpha=3.0).fit(wide, y).decision_function(wide)
        logits = probes.ridge(x, y, l2=3.0)(x)
        np.testing.assert_allclose(logits[:, 1] if n_classes == 2 else logits, decision, atol=1e-3)
        np.testing.assert_array_equal(probes.mass_mean(x, y).predict(x), NearestCentroid().fit(wide, y).predict(wide))
        discriminant = LinearDiscriminantAnalysis(solver="lsqr").fit(wide, y)
        W = probes.mass_mean(x, y, shrinkage=0.0).W
        ours = W[1] - W[0] if n_classes == 2 else W - W.mean(0)
        theirs_W = discriminant.coef_[0] if n_classes == 2 else discriminant.coef_ - discriminant.coef_.mean(0)
        np.testing.assert_allclose(ours, theirs_W, rtol=1e-2, atol=2e-3 * np.abs(theirs_W).max())
        regression = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-10)
        both = make_pipeline(PCA(3), regression).fit(wide, y)
        probe = probes.pca(x, y, n_components=3, l2=2.0)
        np.testing.assert_allclose(jax.nn.softmax(probe(x)), both.predict_proba(wide), atol=2e-3)
        neighbours = KNeighborsClassifier(7).fit(wide, y)
        new, _ = drawn(50, 8, n_classes, seed=1)
        near = probes.nearest_neighbours(x, y, k=7)
        np.testing.assert_allclose(
            jnp.exp(near(new)) * (7 + n_classes) - 1, 7 * neighbours.predict_proba(new), atol=1e-4
        )
        np.testing.assert_array_equal(near.predict(new), neighbours.predict(new))


def test_an_mlp_finds_what_no_plane_does() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 300, 4)).astype(np.float32)
    x[1] = rng.normal(size=x[1].shape)  # where the label is not to be seen
    y = (x[0, :, 0] * x[0, :, 1] > 0).astype(np.int32)
    train = np.arange(300) < 200
    fitted = probes.mlp(jax.random.key(0), x, y, weights=train)
    held = probes.scores(fitted, x, y, weights=~train)
    linear = probes.scores(probes.logistic(x, y, weights=train), x, y, weights=~train)
    assert held.accuracy[0] > 0.9 and linear.accuracy[0] < 0.65 and held.accuracy[1] < 0.65


@pytest.mark.parametrize("fit", [*FITS, lambda x, y, **kw: probes.mlp(jax.random.key(0), x, y, n_steps=20, **kw)])
def test_places_and_chunks_and_examples_left_out(fit) -> None:
    """All places in one call are each by itself; what has no weight is as good as not there, whatever it is."""
    x, y = drawn(40, 6, 3, places=(2, 3))
    every = fit(x, y)
    keep = np.arange(40) % 3 > 0
    x[:, :, ~keep] = np.nan
    some = jax.jit(lambda x, y, keep: fit(x, y, weights=keep, n_classes=3))(x, y, keep)
    clean, _ = drawn(40, 6, 3, places=(2, 3))
    assert every(clean).shape == (2, 3, 40, 3) and every.predict(clean).shape == (2, 3, 40)
    for place in [(0, 0), (1, 2)]:
        np.testing.assert_allclose(fit(clean[place], y)(clean[place]), every(clean)[place], atol=2e-3)
        alone = fit(clean[place][keep], y[keep], n_classes=3)
        np.testing.assert_allclose(alone(clean[place]), some(clean)[place], atol=2e-3)


def test_chunks_change_nothing() -> None:
    x, y = drawn(40, 6, 2, places=(5,))
    np.testing.assert_allclose(probes.logistic(x, y, chunk=2).W, probes.logistic(x, y).W, atol=1e-4)


def test_weights_are_scikit_learns() -> None:
    x, y = drawn(100, 6, 2)
    weights = np.random.default_rng(2).uniform(size=100)
    other = theirs(1.0, x.astype(np.float64), y, weights)
    ours = jax.nn.softmax(probes.logistic(x, y, weights=weights)(x))
    np.testing.assert_allclose(ours, other.predict_proba(x), atol=1e-3)


def test_labels_of_each_place_and_bfloat16() -> None:
    x, y = drawn(60, 6, 2, places=(2,))
    labels = np.stack([y, 1 - y])
    probe = probes.logistic(x[:1].repeat(2, 0), labels)
    np.testing.assert_allclose(probe.direction[0], -probe.direction[1], atol=1e-3)
    np.testing.assert_allclose(jnp.linalg.norm(probe.direction, axis=-1), 1, atol=1e-5)
    narrow = jnp.asarray(x, jnp.bfloat16)
    wide = narrow.astype(jnp.float32)
    np.testing.assert_allclose(probes.logistic(narrow, y)(narrow), probes.logistic(wide, y)(wide), atol=1e-4)


@pytest.mark.parametrize("fit", [*FITS, lambda x, y, **kw: probes.mlp(jax.random.key(0), x, y, **kw)])
def test_bad_input_is_told_in_one_line(fit) -> None:
    x, y = drawn(20, 4, 2)
    for labels, options, told in [
        (np.ones(20, int), {}, r"all 20 labels are 1: a probe tells at least two classes apart"),
        (y, {"weights": np.zeros(20)}, r"0 examples for 2 classes"),
        (np.arange(20) % 2, {"n_classes": 30}, r"20 examples for 30 classes: give at least one of each class"),
        (y[:19], {}, r"labels of shape \[19\] for activations \[20, 4\]: give one for each of the 20 examples"),
        (y, {"weights": np.ones(3)}, r"weights of shape \[3\] for activations"),
        (y - 1, {}, r"labels from -1 to 0: they must be 0 to"),
        (y, {"n_classes": 1}, r"labels from 0 to 1: they must be 0 to 0"),
        (y * 0.5, {}, r"labels of dtype float.*: give whole numbers"),
    ]:
        with pytest.raises(ValueError, match=told) as error:
            fit(x, labels, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"labels are traced, so that their classes cannot be counted: give n_classes"):
        jax.jit(fit)(x, y)


def test_what_is_of_one_fit_is_refused_too() -> None:
    x, y = drawn(20, 4, 3)
    with pytest.raises(ValueError, match=r"direction: a probe of 3 classes has no single one"):
        _ = probes.logistic(x, y).direction
    with pytest.raises(ValueError, match=r"n_components=5 of 20 examples in 4 dimensions"):
        probes.pca(x, y, n_components=5)
    with pytest.raises(ValueError, match=r"k=21 of 20 examples: give at most as many"):
        probes.nearest_neighbours(x, y, k=21)
    with pytest.raises(ValueError, match=r"chunk=0: it must be at least 1"):
        probes.logistic(x, y, chunk=0)
