"""Shared geometry of embeddings, against scikit-learn, scipy, numpy, and spaces whose geometry is planted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr
from sklearn.decomposition import PCA
from sklearn.manifold import _locally_linear as lle
from sklearn.metrics import r2_score
from sklearn.neighbors import NearestNeighbors

from interp_jax import geometry, models

N, K = 60, 7


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the same tokens of width 12 and 20, which share five dimensions."""
    rng = np.random.default_rng(0)
    told = rng.normal(size=(N, 5))
    a, b = (told @ rng.normal(size=(5, d)) + rng.normal(size=(N, d)) + 1 for d in (12, 20))
    return a.astype(np.float32), b.astype(np.float32)


def arrays(pair, dtype=jnp.float32) -> list[jax.Array]:
    return [jnp.asarray(x, dtype) for x in pair]


@pytest.mark.parametrize("chunk", [7, 1024])
def test_relative_orientation_is_pearson_of_cosines(pair, chunk) -> None:
    want = pearsonr(*(1 - pdist(x, "cosine") for x in pair)).statistic
    got = geometry.relative_orientation(*arrays(pair), chunk=chunk)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert 0.2 < want < 0.99


def test_relative_orientation_of_a_turned_space_is_one(pair) -> None:
    a = pair[0]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 12)))[0].T.astype(np.float32)
    np.testing.assert_allclose(geometry.relative_orientation(*arrays((a, 3 * a @ turn))), 1, atol=1e-5)
    order = np.random.default_rng(2).permutation(N)
    assert abs(geometry.relative_orientation(*arrays((a, a[order])))) < 0.15


def test_neighbours_are_scikit_learns(pair) -> None:
    for x in pair:
        far, _ = NearestNeighbors(n_neighbors=K).fit(x).kneighbors()  # of each point, without itself
        near = np.asarray(geometry.nearest_neighbours(jnp.asarray(x), K, chunk=16))
        np.testing.assert_allclose(np.linalg.norm(x[near] - x[:, None], axis=-1), far, rtol=1e-4)
        some = geometry.nearest_neighbours(jnp.asarray(x), K, of=jnp.array([5, 50]))
        np.testing.assert_array_equal(some, near[[5, 50]])


@pytest.mark.parametrize("k", [K, 25])  # fewer and more than there are dimensions
def test_weights_are_scikit_learns(pair, k) -> None:
    x = pair[0]
    near = geometry.nearest_neighbours(jnp.asarray(x), k)
    want = lle.barycenter_weights(x.astype(np.float64), x.astype(np.float64), np.asarray(near), reg=1e-3)
    weights = geometry.lle_weights(jnp.asarray(x), near, chunk=9)
    np.testing.assert_allclose(weights, want, atol=2e-4)
    some = jnp.array([3, 8])
    np.testing.assert_allclose(geometry.lle_weights(jnp.asarray(x), near[some], of=some), want[[3, 8]], atol=2e-4)


def test_similarity_of_weights_is_the_cosine_of_rows(pair) -> None:
    """The rows of scikit-learn's own sparse matrices, made dense."""
    near = [geometry.nearest_neighbours(x, K) for x in arrays(pair)]
    weights = [geometry.lle_weights(x, n) for x, n in zip(arrays(pair), near, strict=True)]
    rows = [lle.barycenter_kneighbors_graph(x.astype(np.float64), K, reg=1e-3).toarray() for x in pair]
    want = (rows[0] * rows[1]).sum(1) / np.prod([np.linalg.norm(r, axis=1) for r in rows], axis=0)
    got = geometry.lle_similarity(near[0], weights[0], near[1], weights[1])
    np.testing.assert_allclose(got, want, atol=1e-3)
    np.testing.assert_allclose(geometry.lle_similarity(near[0], weights[0], near[0], weights[0]), 1, rtol=1e-5)


@pytest.mark.parametrize(("k", "share"), [(9, 0.95), (30, 0.95), (30, 0.5)])
def test_intrinsic_dimension_is_that_of_pca(pair, k, share) -> None:
    for x in pair:
        near = np.asarray(geometry.nearest_neighbours(jnp.asarray(x), k))
        want = [PCA(share, svd_solver="full").fit(x[i].astype(np.float64)).n_components_ for i in near]
        got = geometry.intrinsic_dimension(jnp.asarray(x), jnp.asarray(near), share=share)
        np.testing.assert_array_equal(got, want)
    assert geometry.intrinsic_dimension(jnp.ones((4, 3)), jnp.array([[1, 2], [0, 3]])).tolist() == [0, 0]


@pytest.mark.parametrize("n", [N, 8])  # more and fewer tokens than dimensions
def test_the_map_is_numpys(pair, n) -> None:
    a, b = (x[:n] for x in pair)
    want = np.linalg.lstsq(a.astype(np.float64), b.astype(np.float64), rcond=None)[0]
    found = geometry.least_squares_map(*arrays((a, b)))
    np.testing.assert_allclose(found.W, want, atol=1e-4)
    score = found.score(*arrays((a, b)))
    np.testing.assert_allclose(score, r2_score(b, a @ want, multioutput="variance_weighted"), atol=1e-4)


def test_a_planted_map_is_found_and_carries_vectors() -> None:
    rng = np.random.default_rng(0)
    planted, x, vectors = (rng.normal(size=s).astype(np.float32) for s in ((6, 9), (40, 6), (2, 3, 6)))
    found = geometry.least_squares_map(*arrays((x, x @ planted)))
    np.testing.assert_allclose(found(jnp.asarray(vectors)), vectors @ planted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.score(*arrays((x, x @ planted))), 1, atol=1e-5)


def test_under_jit_and_vmap_and_in_bfloat16(pair) -> None:
    x, y = arrays(pair)
    near = geometry.nearest_neighbours(x, K)
    functions = [
        lambda x, y: geometry.relative_orientation(x, y, chunk=16),
        lambda x, y: geometry.lle_weights(x, near),
        lambda x, y: geometry.intrinsic_dimension(x, near),
        lambda x, y: geometry.nearest_neighbours(x, K),
        lambda x, y: geometry.least_squares_map(x, y).W,
    ]
    for fn in functions:
        plain = fn(x, y)
        np.testing.assert_allclose(jax.jit(fn)(x, y), plain, atol=1e-4)
        both = jax.vmap(fn)(jnp.stack([x, x]), jnp.stack([y, y]))
        np.testing.assert_allclose(both, jnp.stack([plain, plain]), atol=1e-4)
        half = fn(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))
        rounded = fn(*(v.astype(jnp.bfloat16).astype(jnp.float32) for v in (x, y)))
        np.testing.assert_array_equal(half, rounded)
    slope = jax.grad(lambda x: geometry.lle_weights(x, near)[0, 0])(x)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_two_microworlds_are_more_alike_than_by_chance() -> None:
    (model, tokenizer), (narrow, other) = map(models.load, ("microworld", "microworld-narrow"))
    words = [t.to_str_tokens(range(t.d_vocab)) for t in (tokenizer, other)]
    ids, other_ids = geometry.shared_words(*words)
    assert [words[0][i] for i in ids] == [words[1][i] for i in other_ids] and len(ids) > 600
    x, y = models.weights(model)["W_E"][ids], models.weights(narrow)["W_E"][other_ids]
    mixed = y[np.random.default_rng(0).permutation(len(ids))]
    assert geometry.relative_orientation(x, y) > 0.2 > abs(geometry.relative_orientation(x, mixed))


def test_shared_words_leave_out_what_is_said_twice() -> None:
    ids, other = geometry.shared_words(["�", "a", "�", "b"], ["b", "�", "a"])
    assert (ids.tolist(), other.tolist()) == ([1, 3], [2, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: geometry.shared_words(["a"], ["b"]), "shared_words: vocabularies of 1 and 1 tokens share no word"),
        (lambda: geometry.nearest_neighbours(jnp.ones((4, 2)), 4), "k=4 neighbours of 4 tokens; a token has 3 others"),
        (lambda: geometry.nearest_neighbours(jnp.ones((4, 2)), 0), "k=0 neighbours of 4 tokens"),
        (lambda: geometry.nearest_neighbours(jnp.ones((4, 2)), 1, chunk=0), "chunk=0: it must be at least 1"),
        (lambda: geometry.relative_orientation(jnp.ones((4, 2)), jnp.ones((5, 2))), "embeddings of 4 and of 5 tokens"),
        (lambda: geometry.relative_orientation(jnp.ones((2, 2)), jnp.ones((2, 2))), "3 at least"),
        (lambda: geometry.lle_weights(jnp.ones((4, 2)), jnp.zeros((2, 1), int)), "neighbours of 2 tokens for 4"),
        (
            lambda: geometry.lle_weights(jnp.ones((2, 2)), jnp.zeros((2, 1), int), regularization=0.0),
            "regularization=0.0 must be above 0",
        ),
        (lambda: geometry.intrinsic_dimension(jnp.ones((4, 2)), jnp.zeros((2, 2), int), share=1.0), "share=1.0 must"),
        (lambda: geometry.least_squares_map(jnp.ones((4, 2)), jnp.ones((5, 2))), "a source of 4 tokens and a target"),
        (lambda: geometry.least_squares_map(jnp.ones((0, 2)), jnp.ones((0, 2))), "a source of 0 tokens"),
        (lambda: geometry.LinearMap(jnp.ones((3, 2)))(jnp.ones(2)), "vectors of width 2 for a map from 3 to 2; give"),
        (
            lambda: geometry.LinearMap(jnp.ones((3, 2))).score(jnp.ones((4, 3)), jnp.ones((5, 2))),
            r"what is carried is \[4, 2\], the target \[5, 2\]",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(call, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_map_is_a_pytree(pair) -> None:
    found = geometry.least_squares_map(*arrays(pair))
    carry = jax.jit(lambda found, x: found(x))
    np.testing.assert_allclose(carry(found, jnp.ones(12)), found(jnp.ones(12)), rtol=1e-5)
    assert len(jax.tree.leaves(found)) == 1
