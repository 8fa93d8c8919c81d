"""Comparisons of dictionaries: brute force, permutations, planted splits and planted shared features."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries
from interp_jax.dictionaries.scores.comparison import nearest

rng = np.random.default_rng(0)


def rows(n, d=6):
    return jnp.asarray(rng.normal(size=(n, d)), jnp.float32)


def cosines(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def create(seed, d_sae=12):
    return dictionaries.ReLU.create(jax.random.key(seed), 6, d_sae)


def test_the_matching_is_the_best_of_all():
    a, b = rows(5), rows(5)
    table = cosines(a, b)
    best = max(permutations(range(5)), key=lambda p: table[range(5), list(p)].sum())
    found = dictionaries.match(a, b)
    assert found.a.tolist() == list(range(5)) and found.b.tolist() == list(best)
    np.testing.assert_allclose(found.cosine, table[range(5), list(best)], atol=1e-6)
    assert dictionaries.stability(a, b) == pytest.approx(found.cosine.mean())


def test_order_and_norms_do_not_matter_signs_do():
    a = create(0)
    order = jnp.asarray(rng.permutation(12))
    shuffled = 3.0 * a.W_dec[order]
    found = dictionaries.match(a, shuffled)
    assert found.b.tolist() == np.argsort(np.asarray(order)).tolist()
    assert dictionaries.stability(a, shuffled) == pytest.approx(1, abs=1e-5)
    assert dictionaries.stability(a, -shuffled) < 0.9 > dictionaries.stability(a, create(1))


def test_the_rest_of_the_larger_side_stays_alone():
    a = rows(7)
    found = dictionaries.match(a, a[2:5])
    assert found.a.tolist() == [2, 3, 4] and found.b.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_mean_max_cosine_equals_its_definition(dtype):
    dictionary, known = create(0), rows(4).astype(dtype)
    expected = cosines(known.astype(jnp.float32), dictionary.W_dec).max(1).mean()
    found = jax.jit(dictionaries.mean_max_cosine)(dictionary, known)
    assert found.dtype == jnp.float32 and float(found) == pytest.approx(expected, abs=1e-5)
    assert float(dictionaries.mean_max_cosine(dictionary, dictionary.W_dec[:3])) == pytest.approx(1, abs=1e-5)


def test_mean_max_cosine_of_many_dictionaries_and_its_gradient():
    a, known = rows(8), rows(4)
    stack = jnp.stack([a, -a])
    each = [dictionaries.mean_max_cosine(one, known) for one in stack]
    np.testing.assert_allclose(jax.vmap(dictionaries.mean_max_cosine, (0, None))(stack, known), each, atol=1e-6)
    along = jnp.sum(jax.grad(lambda m: dictionaries.mean_max_cosine(m, known))(a) * a, axis=1)
    np.testing.assert_allclose(along, 0, atol=1e-5)  # a row's length has no effect


def test_nearest_of_more_rows_than_are_compared_at_once():
    many = rows(1100)
    table = cosines(many, many)
    cosine, index = nearest(many, many)
    np.testing.assert_allclose(cosine, 1, atol=1e-5)
    assert index.tolist() == list(range(1100))
    np.fill_diagonal(table, -np.inf)
    np.testing.assert_allclose(nearest(many, many, itself=False)[0], table.max(1), atol=1e-5)
    assert float(nearest(jnp.zeros((1, 6)), many)[0][0]) == 0


def test_a_planted_split_is_found():
    """Of three features the first splits in two, the second stays, the third is gone, and one is new."""
    small = jnp.eye(6)[:3]
    large = jnp.stack([*(small[0] + 0.3 * sign * jnp.eye(6)[4] for sign in (1, -1)), 2 * small[1], jnp.eye(6)[5]])
    found = jax.jit(dictionaries.splitting)(small, large)
    assert found.nearest[:3].tolist() == [0, 0, 1] and found.child.tolist() == [True, True, True, False]
    assert found.children.tolist() == [2, 1, 0] and found.correlation is None
    np.testing.assert_allclose(found.cosine[:3], [1.09**-0.5, 1.09**-0.5, 1], atol=1e-6)
    assert dictionaries.splitting(small, large, threshold=0.99).children.tolist() == [0, 1, 0]


def test_activations_of_the_pairs_are_correlated():
    small, large, x = create(0, 5), create(1, 12), rows(200)
    found = dictionaries.splitting(small, large, x, threshold=0.0)
    a, b = np.asarray(small.encode(x)), np.asarray(large.encode(x))
    expected = [np.corrcoef(a[:, parent], b[:, i])[0, 1] for i, parent in enumerate(found.nearest)]
    np.testing.assert_allclose(found.correlation, expected, atol=1e-5)
    assert int(found.children.sum()) == int(found.child.sum())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_universality_equals_numpys_correlations(dtype):
    a, b = (jax.nn.relu(rows(80, 7) - 0.5).astype(dtype), jax.nn.relu(rows(80, 9) + 3.0).astype(dtype))
    a, b = a.at[:, 2].set(0), b.at[:, 4].set(0).at[:, 5].set(1)
    found = dictionaries.universality(a, b)
    kept = np.delete(np.arange(9), [4, 5])
    alive = np.delete(np.arange(7), 2)
    exact = [np.asarray(features.astype(jnp.float32), np.float64) for features in (a, b)]
    table = np.corrcoef(exact[0][:, alive].T, exact[1][:, kept].T)[:6, 6:]
    np.testing.assert_allclose(found.correlation[alive], table.max(1), atol=1e-5)
    assert found.partner[alive].tolist() == kept[table.argmax(1)].tolist()
    assert np.isnan(found.correlation[2]) and int(found.partner[2]) == -1
    assert float(found.mean) == pytest.approx(table.max(1).mean(), abs=1e-5)
    assert float(found.median) == pytest.approx(np.median(table.max(1)), abs=1e-5)


def test_shared_features_are_universal_and_others_are_not():
    shared = jax.nn.relu(rows(4000, 5))
    a = jnp.concatenate([shared, jax.nn.relu(rows(4000, 5))], axis=1)
    b = jnp.concatenate([jax.nn.relu(rows(4000, 5)), 7.0 * shared[:, ::-1]], axis=1)
    found = dictionaries.universality(a, b)
    assert found.partner[:5].tolist() == [9, 8, 7, 6, 5]
    np.testing.assert_allclose(found.correlation[:5], 1, atol=1e-4)
    assert float(found.correlation[5:].max()) < 0.1  # noise is 1 / sqrt(4000)


def test_no_partner_where_all_are_dead():
    found = dictionaries.universality(jax.nn.relu(rows(20, 3)), jnp.zeros((20, 4)))
    assert found.partner.tolist() == [-1, -1, -1] and np.isnan(found.mean)


def test_refusals():
    with pytest.raises(ValueError, match="widths 6 and 5"):
        dictionaries.match(rows(3), rows(3, 5))
    crosscoder = dictionaries.Crosscoder.create(jax.random.key(0), 6, 12, n_sites=2)
    with pytest.raises(ValueError, match="one site"):
        dictionaries.mean_max_cosine(crosscoder, rows(3))
    with pytest.raises(ValueError, match="rows alone have no activations"):
        dictionaries.splitting(create(0), rows(20), rows(5))
    with pytest.raises(ValueError, match="same tokens"):
        dictionaries.universality(rows(5)[:4], rows(7)[:, :3])
