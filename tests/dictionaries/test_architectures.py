"""What holds of every architecture: its shapes, that it is a pytree like any other, and that it learns."""

from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries
from tests.dictionaries.kinds import (
    ARCHITECTURES,
    D_IN,
    D_SAE,
    DEAD,
    KEYWORDS,
    POINTS,
    SIGNED,
    WIDTHS,
    N,
    batch,
    create,
    inputs,
    kinds,
    noisy,
)


@jax.jit
def loss(dictionary, data):
    half = jnp.float32(0.5)
    dead = jnp.broadcast_to(DEAD[: dictionary.d_sae], dictionary.feature_shape)
    return dictionary.loss(data, dictionaries.LossContext(dead, half, half, half))


gradient = jax.jit(jax.grad(lambda d, data: loss(d, data)[0]))
encode = jax.jit(lambda d, x: d.encode(x))
call = jax.jit(lambda d, x: d(x))


def test_every_architecture_is_here():
    assert set(KEYWORDS) == set(ARCHITECTURES)


@kinds
def test_shapes_and_the_dense_form(kind):
    d, x = noisy(kind), inputs(kind)
    assert jax.eval_shape(encode, d, x.reshape(4, 8, *x.shape[1:])).shape == (4, 8, *d.feature_shape)
    features = encode(d, x)
    assert (d.d_in, d.d_sae) == (D_IN, WIDTHS[kind])
    assert 0 < float((features > 0).mean()) < 1
    assert float(features.min()) < 0 if kind in SIGNED else float(features.min()) == 0
    f, W_dec = np.asarray(features), np.asarray(d.W_dec)
    if kind == "clt":
        later = [f[..., 0, :] @ W_dec[0, 0], f[..., 0, :] @ W_dec[0, 1] + f[..., 1, :] @ W_dec[1, 1]]
        expected = np.stack(later, axis=-2)
    elif kind == "crosscoder":
        expected = np.stack([f @ W_dec[0], f @ W_dec[1]], axis=-2)
    else:
        expected = f @ W_dec
    expected = expected + np.asarray(d.b_dec) + (x @ d.W_skip.T if kind == "skip_transcoder" else 0)
    np.testing.assert_allclose(call(d, x), expected, atol=1e-5)


@kinds
def test_the_loss_is_the_sum_of_its_terms(kind):
    value, terms = loss(noisy(kind), batch(kind))
    extra = terms.get("frozen", 0) + terms.get("nested", 0)
    np.testing.assert_allclose(value, terms["mse"] + 0.5 * terms["aux"] + 0.5 * terms["sparsity"] + extra, rtol=1e-6)
    np.testing.assert_allclose(terms["mse"], (np.asarray(terms["error"]) ** 2).sum() / N, rtol=1e-5)
    assert terms["fired"].shape == noisy(kind).feature_shape


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in ("gated", "jumprelu", "clt") else pytest.param(kind, marks=pytest.mark.long)
        for kind in sorted(KEYWORDS)
    ],
)
def test_jit_vmap_and_grad(kind):
    one, other, data = noisy(kind), noisy(kind, 1), batch(kind)
    both = jax.tree.map(lambda *leaves: np.stack(leaves), one, other)
    mapped = jax.jit(jax.vmap(gradient, (0, None)))(both, data)
    alone = gradient(other, data)
    for got, want in zip(jax.tree.leaves(mapped), jax.tree.leaves(alone), strict=True):
        assert np.isfinite(want).all()
        np.testing.assert_allclose(got[1], want, rtol=1e-3, atol=1e-4)
    assert float(np.abs(jax.tree.leaves(alone)[0]).max()) > 0


@kinds
def test_bfloat16(kind):
    d, data, x = noisy(kind), batch(kind), inputs(kind)
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), d)
    assert jax.eval_shape(encode, low, x).dtype == jnp.bfloat16
    assert jax.eval_shape(call, low, x).dtype == jnp.float32
    assert jax.eval_shape(call, d, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(gradient, low, data))} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(loss(low, data)[0], loss(d, data)[0], rtol=0.1)


@kinds
def test_round_trip(kind, tmp_path):
    d = noisy(kind)
    dictionaries.save(tmp_path / "d", d)
    again = dictionaries.load(tmp_path / "d")
    assert type(again) is type(d)
    assert jax.tree.structure(again) == jax.tree.structure(d)
    jax.tree.map(np.testing.assert_array_equal, again, d)


@kinds
def test_folding_a_scale(kind):
    d, x = noisy(kind), inputs(kind)
    folded = d.fold_scale(7.0)
    np.testing.assert_allclose(call(folded, x), call(d, 7 * x) / 7, atol=1e-5)
    np.testing.assert_allclose(encode(folded, x), encode(d, 7 * x) / 7, atol=1e-5)


def test_a_batch_over_devices_is_one_batch():
    kind = "batchtopk"  # its choice is of the whole batch
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = dictionaries.TrainState.create(noisy(kind), 10, learning_rate=1e-3, dead_after=1)
    shared = jax.device_put(state, everywhere)
    state, info = dictionaries.train_step(state, batch(kind))
    shared, shared_info = dictionaries.train_step(shared, jax.device_put(batch(kind), sharding))
    np.testing.assert_allclose(shared_info.loss, info.loss, rtol=1e-4)
    np.testing.assert_allclose(shared.dictionary.W_dec, state.dictionary.W_dec, rtol=1e-3, atol=1e-3)


@kinds
def test_bad_input_is_refused(kind):
    x = inputs(kind)
    with pytest.raises(ValueError, match=f"d_in={D_IN}"):
        create(kind).encode(x[..., 1:])
    with pytest.raises(ValueError, match="d_sae=0 must be at least 1"):
        create(kind, d_sae=0)
    with pytest.raises(TypeError, match="d_sea"):
        ARCHITECTURES[kind].create(jax.random.key(0), D_IN, WIDTHS[kind], d_sea=D_SAE, **KEYWORDS[kind])


@pytest.mark.parametrize(
    ("kind", "keywords", "message"),
    [
        ("topk", {"k": 25}, "k=25 is larger than d_sae=24"),
        ("batchtopk", {"k": 25}, "k=25 is larger than d_sae=24"),
        ("archetypal", {"k": 25, "points": POINTS}, "k=25 is larger than d_sae=24"),
        ("archetypal", {"k": 2, "points": POINTS[:, 1:]}, r"points of shape \(30, 7\)"),
        ("matryoshka", {"k": 3, "widths": (8, 4, 24)}, "must rise"),
        ("relu", {"form": "march"}, "unknown form 'march'; known: towards, april_2024"),
        ("jumprelu", {"bandwidth": 0.0}, "bandwidth=0.0 must be positive"),
        ("panneal", {"p_end": 2.0}, r"p_end=2.0 must be in \(0, 1\]"),
    ],
)
def test_impossible_settings_are_refused(kind, keywords, message):
    with pytest.raises(ValueError, match=message):
        ARCHITECTURES[kind].create(jax.random.key(0), D_IN, D_SAE, **keywords)


def test_heads_are_flattened():
    d, x = noisy("relu"), inputs("relu")
    heads = x.reshape(N, 2, D_IN // 2)
    np.testing.assert_array_equal(encode(d, heads), encode(d, x))
    np.testing.assert_array_equal(call(d, heads), call(d, x).reshape(heads.shape))


def test_archetypal_rows_stay_near_the_points_hull():
    d = noisy("archetypal")
    far = replace(d, relaxation=100 * d.relaxation)
    in_hull = replace(d, delta=0.0).W_dec
    np.testing.assert_allclose(jnp.linalg.norm(far.W_dec - in_hull, axis=-1), 0.5, rtol=1e-4)
    weights = jax.nn.softmax(d.logits, axis=-1)
    np.testing.assert_allclose(in_hull, weights @ POINTS, atol=1e-5)


def test_archetypal_seeds_start_at_other_points():
    points = np.random.default_rng(0).normal(size=(500, D_IN))

    def chosen(seed):
        d = ARCHITECTURES["archetypal"].create(jax.random.key(seed), D_IN, D_SAE, k=3, points=points)
        return np.asarray(d.logits).argmax(-1)

    first, second = chosen(0), chosen(1)
    assert len(set(first)) == D_SAE
    assert max(first) > 250  # from all of the points
    assert len(set(first) & set(second)) < 6  # 24 of 500: 1.2 are expected in both


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_nth_largest_is_that_of_a_sort(dtype):
    from interp_jax.dictionaries.kinds.batchtopk import nth_largest

    values = jax.nn.relu(jax.random.normal(jax.random.key(0), (37, 50))).astype(dtype)
    falling = np.sort(np.asarray(values.ravel(), np.float32))[::-1]
    get = jax.jit(jax.vmap(nth_largest, (None, 0)))
    ns = jnp.array([1, 2, 400, 900, 1850])  # the last of them are zeros
    np.testing.assert_array_equal(np.asarray(get(values, ns), np.float32), falling[ns - 1])
    assert get(values, ns).dtype == dtype


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long) for kind in ("gated", "jumprelu", "relu", "tied")] + ["topk"]
)
def test_features_over_devices_are_features_of_one(kind):
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    specs = {"W_enc": (None, "model"), "W_dec": ("model", None)}
    placed = {}
    d, x = noisy(kind), inputs(kind)
    for field in fields(d):
        leaf = getattr(d, field.name)
        if not field.metadata.get("static") and leaf is not None:
            spec = specs.get(field.name, ("model",) if leaf.shape == (D_SAE,) else ())
            placed[field.name] = jax.device_put(leaf, jax.NamedSharding(mesh, jax.P(*spec)))
    shared, rows = replace(d, **placed), jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
    np.testing.assert_allclose(encode(shared, rows), encode(d, x), atol=1e-5)
    np.testing.assert_allclose(call(shared, rows), call(d, x), atol=1e-5)
    state, split = (dictionaries.TrainState.create(made, 10, dead_after=1) for made in (d, shared))
    for _ in range(2):
        state, info = dictionaries.train_step(state, x)
        split, split_info = dictionaries.train_step(split, rows)
    np.testing.assert_allclose(split_info.loss, info.loss, rtol=1e-4)
    assert split.dictionary.W_dec.sharding.spec[0] == "model"  # still in parts
