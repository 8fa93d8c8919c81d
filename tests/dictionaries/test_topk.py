"""TopK: its shapes and limits, and its sparse gradients against a dense brute force."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax.dictionaries import LossContext, TopK
from interp_jax.dictionaries.kinds import selecting

D_IN, D_SAE, K = 12, 40, 5


def dictionary(seed=0, **changes):
    keys = jax.random.split(jax.random.key(seed), 3)
    made = TopK.create(keys[0], D_IN, D_SAE, K, **changes)
    noise = 0.1 * jax.random.normal(keys[1], (D_IN, D_SAE))
    return replace(made, W_enc=made.W_enc + noise, b_enc=0.3 * jax.random.normal(keys[2], (D_SAE,)))


def inputs(n=64, seed=9):
    return jax.random.normal(jax.random.key(seed), (n, D_IN)) + 0.5


def test_encode_keeps_the_k_largest_and_no_negative():
    d, x = dictionary(), inputs()
    features = d.encode(x.reshape(4, 16, D_IN)).reshape(64, D_SAE)
    pre = np.asarray((x - d.b_dec) @ d.W_enc + d.b_enc)
    expected = np.zeros_like(pre)
    for row, p in zip(expected, pre, strict=True):
        top = np.argsort(-p)[:K]
        row[top] = np.maximum(p[top], 0)
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_sparse_form_equals_dense_form():
    d, x = dictionary(), inputs().reshape(4, 16, D_IN)
    values, indices = d.encode_sparse(x)
    assert values.shape == indices.shape == (4, 16, K)
    np.testing.assert_allclose(d.decode_sparse(values, indices), d.decode(d.encode(x)), atol=1e-5)
    np.testing.assert_allclose(d(x), d.decode(d.encode(x)), atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.vmap(d.encode))(x), d.encode(x), atol=1e-6)


def test_inputs_of_lower_precision_are_encoded_in_float32():
    d, x = dictionary(), inputs().astype(jnp.bfloat16)
    assert d.encode(x).dtype == jnp.float32
    assert d(x).dtype == jnp.bfloat16


def brute_force_loss(d, x, dead, coefficient):
    """The equations of the paper on dense arrays, differentiated by jax alone."""

    def keep(pre, k):
        threshold = jnp.sort(pre, axis=-1)[:, -k][:, None]
        return jnp.where(pre >= jax.lax.stop_gradient(threshold), pre, 0.0)

    pre = (x - d.b_dec) @ d.W_enc + d.b_enc
    error = jax.nn.relu(keep(pre, d.k)) @ d.W_dec + d.b_dec - x
    pre_aux = jax.lax.stop_gradient(x - d.b_dec) @ d.W_enc + d.b_enc
    aux = jnp.where(dead, keep(jnp.where(dead, pre_aux, -1e9), d.k_aux), 0.0) @ d.W_dec
    aux_loss = ((aux + jax.lax.stop_gradient(error)) ** 2).sum(-1).mean()
    return (error**2).sum(-1).mean() + jnp.where(dead.any(), coefficient * aux_loss, 0.0)


@pytest.mark.parametrize("n_dead", [0, 4, 17])  # none, fewer than k_aux = 6, more
def test_loss_and_sparse_gradient_equal_dense_brute_force(n_dead):
    d, x = dictionary(), inputs()
    dead = jnp.arange(D_SAE) < n_dead
    coefficient = jnp.float32(0.3)
    loss, gradient = jax.value_and_grad(lambda d: d.loss(x, LossContext(dead, coefficient))[0])(d)
    expected, expected_gradient = jax.value_and_grad(brute_force_loss)(d, x, dead, coefficient)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        got, want = getattr(gradient, name), getattr(expected_gradient, name)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(jnp.abs(want).max()), err_msg=name)


def test_loss_is_differentiable_in_its_input():
    d, x = dictionary(), inputs(4)
    dead = jnp.zeros(D_SAE, bool)
    gradient = jax.grad(lambda x: d.loss(x, LossContext(dead, jnp.float32(0.0)))[0])(x)
    expected = jax.grad(lambda x: brute_force_loss(d, x, dead, 0.0))(x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_decoder_rows_stay_unit_and_the_gradient_is_orthogonal_to_them():
    d, x = dictionary(), inputs()
    gradient = jax.grad(lambda d: d.loss(x, LossContext(jnp.zeros(D_SAE, bool), jnp.float32(0.0)))[0])(d)
    along = (d.tangent(gradient).W_dec * d.W_dec).sum(-1)
    np.testing.assert_allclose(along, 0, atol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(replace(d, W_dec=3 * d.W_dec).normalized().W_dec, axis=-1), 1, rtol=1e-5)


def test_folding_a_scale_keeps_unit_rows_and_the_choice_of_features():
    d, x = dictionary(), inputs()
    folded = d.fold_scale(7.0)
    np.testing.assert_allclose(folded(x), d(7 * x) / 7, atol=1e-5)
    np.testing.assert_allclose(folded.encode(x), d.encode(7 * x) / 7, atol=1e-5)
    np.testing.assert_array_equal(folded.W_dec, d.W_dec)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d_sae": 8, "k": 9}, "k=9 is larger than d_sae=8"),
        ({"d_sae": 8, "k": 0}, "k=0 must be at least 1"),
        ({"d_sae": 8, "k": 2, "k_aux": 20}, "k_aux=20 is larger than d_sae=8"),
    ],
)
def test_impossible_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        TopK.create(jax.random.key(0), 4, **sizes)


def test_inputs_of_another_width_are_refused():
    with pytest.raises(ValueError, match="d_in=12"):
        dictionary().encode(jnp.ones((3, 11)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("k", [1, 5, 32])
def test_the_largest_of_each_row_are_those_that_a_sort_finds(dtype, k):
    values = jax.nn.relu(jax.random.normal(jax.random.key(0), (64, 48))).astype(dtype)
    values = values.at[3].set(1.0).at[4].set(0.0)  # all equal, and nothing
    kept = selecting.are_largest(values, k)
    top, indices = jax.lax.top_k(values, k)
    expected = jnp.zeros(values.shape, bool).at[jnp.arange(64)[:, None], indices].set(top > 0)
    np.testing.assert_array_equal(kept, expected)
    many = jax.vmap(selecting.are_largest, (None, 0))(values, jnp.array([1, k]))
    np.testing.assert_array_equal(many[1], expected)


@pytest.mark.parametrize("limit", [None, 2.0])
def test_the_dense_form_has_the_sparse_ones_loss_and_gradient(monkeypatch, limit):
    d = TopK.create(jax.random.key(0), 8, 24, 4)
    d = replace(
        d, b_enc=0.1 * jax.random.normal(jax.random.key(3), (24,)), limit=None if limit is None else jnp.array(limit)
    )
    x, dead = jax.random.normal(jax.random.key(1), (32, 8)), jnp.arange(24) < 5
    loss = lambda d: d.loss(x, LossContext(dead, 0.5))  # noqa: E731
    (sparse, terms), gradient = jax.value_and_grad(loss, has_aux=True)(d)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (dense, others), same = jax.value_and_grad(loss, has_aux=True)(d)
    np.testing.assert_allclose(dense, sparse, rtol=1e-6)
    np.testing.assert_array_equal(others["fired"], terms["fired"])
    assert float(others["l0"]) == float(terms["l0"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), same, gradient)
