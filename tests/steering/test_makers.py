"""How vectors are made: beside numpy and scikit-learn, and from a model's prompts, padded on either side."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

import interp_jax as ij
from interp_jax import models, steering
from tests.steering.conftest import SITE

RNG = np.random.default_rng(0)
PLANTED = RNG.normal(size=(2, 1, 24))  # another direction at each of two layers
SHIFT = RNG.normal(2.0, 1.0, (2, 40, 1))  # by which each pair differs along it
NEGATIVE = RNG.normal(size=(2, 40, 24)).astype(np.float32)
POSITIVE = (NEGATIVE + SHIFT * PLANTED + 0.3 * RNG.normal(size=(2, 40, 24))).astype(np.float32)


def test_difference_of_means() -> None:
    got = steering.difference_of_means(jnp.asarray(POSITIVE), jnp.asarray(NEGATIVE[:, :31]))
    np.testing.assert_allclose(got, POSITIVE.mean(1) - NEGATIVE[:, :31].mean(1), atol=1e-5)
    one = steering.difference_of_means(jnp.asarray(POSITIVE[1]), jnp.asarray(NEGATIVE[1, :31]))
    np.testing.assert_allclose(one, got[1], atol=1e-6)


def test_pca_of_differences() -> None:
    """scikit-learn's component, up to the sign, which points to the positive side."""
    got = steering.pca_of_differences(jnp.asarray(POSITIVE), jnp.asarray(NEGATIVE))
    for layer in range(2):
        want = PCA(1).fit(POSITIVE[layer] - NEGATIVE[layer]).components_[0]
        want = want * np.sign(want @ PLANTED[layer, 0])
        np.testing.assert_allclose(got[layer], want, atol=1e-4)
    turned = steering.pca_of_differences(jnp.asarray(NEGATIVE), jnp.asarray(POSITIVE))
    np.testing.assert_allclose(turned, -got, atol=1e-5)


def test_lat() -> None:
    """scikit-learn's component of the same random pairs, each example in one of them."""
    key, both = jax.random.key(3), np.concatenate([POSITIVE, NEGATIVE], 1)
    got = steering.lat(key, jnp.asarray(POSITIVE), jnp.asarray(NEGATIVE))
    order = np.asarray(jax.random.permutation(key, 80))
    for layer in range(2):
        pairs = both[layer, order[:40]] - both[layer, order[40:]]
        want = PCA(1).fit(pairs / np.linalg.norm(pairs, axis=1, keepdims=True)).components_[0]
        np.testing.assert_allclose(got[layer], want * np.sign(want @ PLANTED[layer, 0]), atol=1e-4)
        assert got[layer] @ PLANTED[layer, 0] / np.linalg.norm(PLANTED[layer]) > 0.8


def test_makers_under_jit_vmap_and_in_bfloat16() -> None:
    half = [jnp.asarray(x).astype(jnp.bfloat16) for x in (POSITIVE, NEGATIVE)]
    for maker in (steering.difference_of_means, steering.pca_of_differences, partial(steering.lat, jax.random.key(0))):
        want = maker(jnp.asarray(POSITIVE), jnp.asarray(NEGATIVE))
        got = jax.jit(jax.vmap(maker))(*half)
        assert got.dtype == jnp.float32
        cosines = (got * want).sum(-1) / jnp.linalg.norm(got, axis=-1) / jnp.linalg.norm(want, axis=-1)
        np.testing.assert_array_less(0.999, cosines)


def test_random_controls() -> None:
    like = jnp.asarray(POSITIVE[:, 0])
    drawn = jax.vmap(steering.random, (0, None))(jax.random.split(jax.random.key(0), 2000), like)
    norms = jnp.linalg.norm(drawn, axis=-1)
    np.testing.assert_allclose(norms, jnp.broadcast_to(jnp.linalg.norm(like, axis=-1), norms.shape), rtol=1e-5)
    error = norms[0] / np.sqrt(24 * 2000)  # of the mean of each coordinate, where no direction is preferred
    assert (jnp.abs(drawn.mean(0)) < 4.5 * error[:, None]).all()


def test_shuffled_controls() -> None:
    """The sides are random halves of all examples: the vectors scatter about 0 as the theory says."""
    sides = jnp.asarray(POSITIVE), jnp.asarray(NEGATIVE)
    keys = jax.random.split(jax.random.key(0), 2000)
    null = jax.vmap(lambda key: steering.shuffled(key, steering.difference_of_means, *sides))(keys)
    spread = np.concatenate([POSITIVE, NEGATIVE], 1).std(1, ddof=1) * np.sqrt(1 / 40 + 1 / 40)  # of such a difference
    np.testing.assert_allclose(null.std(0), spread, rtol=0.1)
    np.testing.assert_array_less(np.abs(np.asarray(null.mean(0))), 0.1 * spread)
    assert steering.shuffled(keys[0], steering.pca_of_differences, *sides).shape == (2, 24)


@pytest.mark.parametrize("position", ["last", "mean"])
def test_vectors_of_a_model(model, position) -> None:
    """Sides of other numbers and lengths, padded on the left, on the right and nowhere: padding does not count."""
    rng = np.random.default_rng(4)
    positive, negative = (rng.integers(0, 37, shape).astype(np.int32) for shape in ((3, 7), (2, 6)))
    masks = np.ones((3, 7), bool), np.ones((2, 6), bool)
    masks[0][0, :3] = masks[0][1, 5:] = masks[1][1, :2] = False
    g = steering.vectors(models.forward, SITE, position=position, model="tiny")
    vector = g(model, positive, negative, *masks)

    def by_hand(tokens, mask):
        rows = []
        for row, real in zip(tokens, mask, strict=True):
            x = ij.capture(models.forward, SITE, output=False)(model, row[real])[SITE]
            rows.append(x[:, -1] if position == "last" else x.mean(1))
        return np.mean(rows, 0)

    np.testing.assert_allclose(vector.vectors, by_hand(positive, masks[0]) - by_hand(negative, masks[1]), atol=1e-4)
    assert (vector.site, vector.layers, vector.model) == (SITE, (0, 1, 2), "tiny")
    assert vector.how.startswith("difference_of_means at the") and vector.how.endswith(
        "3 positive and 2 negative examples"
    )


def test_vectors_by_another_maker_and_of_one_layer(model) -> None:
    positive, negative = np.random.default_rng(5).integers(0, 37, (2, 6, 5)).astype(np.int32)
    key = jax.random.key(0)
    stack = steering.vectors(models.forward, SITE, partial(steering.lat, key))(model, positive, negative)
    one = steering.vectors(models.forward, "blocks.1.resid_post", partial(steering.lat, key))(model, positive, negative)
    np.testing.assert_allclose(one.vectors, stack.vectors[1], atol=1e-4)
    assert one.layers is None and one.how.startswith("lat at the last token")


X = jnp.ones((4, 8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: steering.difference_of_means(X, X[:0]), "difference_of_means: no negative examples: .*both sides"),
        (lambda: steering.lat(jax.random.key(0), X[:0], X), "lat: no positive examples"),
        (lambda: steering.shuffled(jax.random.key(0), steering.lat, X, X[:0]), "shuffled: no negative"),
        (lambda: steering.pca_of_differences(X, X[:3]), "4 positive and 3 negative examples: give pairs"),
        (lambda: steering.pca_of_differences(X[:1], X[:1]), "1 pair of examples"),
        (lambda: steering.lat(jax.random.key(0), X[:2], X[:1]), "1 pair of examples"),
        (lambda: steering.vectors(models.forward, SITE, position="first"), "'first' is neither 'last' nor 'mean'"),
    ],
)
def test_bad_examples_are_one_line(make, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_several_sites_are_refused(model, tokens) -> None:
    with pytest.raises(ValueError, match="names .* sites"):
        steering.vectors(models.forward, "blocks.attn.*")(model, tokens, tokens)


def test_prompts_of_one_side_are_refused(model, tokens) -> None:
    with pytest.raises(ValueError, match="no negative examples: a direction needs examples of both sides") as error:
        steering.vectors(models.forward, SITE)(model, tokens, tokens[:0])
    assert "\n" not in str(error.value)
