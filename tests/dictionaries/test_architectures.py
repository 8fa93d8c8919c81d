"""What holds of every architecture: its shapes, that it is a pytree like any other, and that it learns."""

from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries
from interp_jax.dictionaries.checkpoint import ARCHITECTURES

D_IN, D_SAE, N = 8, 24, 32
KEYWORDS = {
    "batchtopk": {"k": 3},
    "gated": {},
    "jumprelu": {"threshold": 0.3, "bandwidth": 0.3},
    "matryoshka": {"k": 3},
    "panneal": {},
    "relu": {"form": "towards"},
    "skip_transcoder": {"d_out": 6},
    "tied": {},
    "topk": {"k": 3},
    "transcoder": {"d_out": 6},
}
SPARSITY = {"gated": 0.3, "jumprelu": 0.3, "panneal": 0.3, "relu": 0.3, "tied": 0.3}
kinds = pytest.mark.parametrize("kind", sorted(KEYWORDS))


def create(kind, seed=0, d_in=D_IN, d_sae=D_SAE):
    return ARCHITECTURES[kind].create(jax.random.key(seed), d_in, d_sae, **KEYWORDS[kind])


def noisy(kind, seed=0):
    """A dictionary with every array moved off its start."""
    made = create(kind, seed)
    names = [f.name for f in fields(made) if not f.metadata.get("static") and f.name not in ("threshold", "bandwidth")]
    keys = jax.random.split(jax.random.key(100 + seed), len(names))
    arrays = {name: getattr(made, name) for name in names}
    return replace(made, **{n: a + 0.1 * jax.random.normal(k, a.shape) for k, (n, a) in zip(keys, arrays.items())})


def inputs(n=N, seed=9):
    return jax.random.normal(jax.random.key(seed), (n, D_IN)) + 0.3


def batch(kind, n=N):
    """What the loss of a kind takes."""
    return (inputs(n), inputs(n, 10)[:, :6]) if "transcoder" in kind else inputs(n)


def loss(dictionary, data, dead=None):
    dead = jnp.zeros(dictionary.feature_shape, bool) if dead is None else dead
    half = jnp.float32(0.5)
    return dictionary.loss(data, dead, half, half, half)


def test_every_architecture_is_here():
    assert set(KEYWORDS) == set(ARCHITECTURES)


@kinds
def test_shapes_and_the_dense_form(kind):
    d, x = noisy(kind), inputs().reshape(4, 8, D_IN)
    features = d.encode(x)
    assert features.shape == (4, 8, D_SAE)
    assert (d.W_enc.shape[-2], d.W_dec.shape[-2], d.b_enc.shape[-1], d.b_dec.shape) == (
        D_IN,
        D_SAE,
        D_SAE,
        d.W_dec.shape[-1:],
    )
    np.testing.assert_allclose(d.decode(features), features @ d.W_dec + d.b_dec, atol=1e-6)
    skip = x @ d.W_skip.T if kind == "skip_transcoder" else 0
    np.testing.assert_allclose(d(x), d.decode(features) + skip, atol=1e-6)
    assert 0 < float((features > 0).mean()) < 1
    assert float(features.min()) == 0


@kinds
def test_the_loss_is_the_sum_of_its_terms(kind):
    value, terms = loss(noisy(kind), batch(kind))
    extra = terms.get("frozen", 0) + terms.get("nested", 0)
    np.testing.assert_allclose(value, terms["mse"] + 0.5 * terms["aux"] + 0.5 * terms["sparsity"] + extra, rtol=1e-6)
    np.testing.assert_allclose(terms["mse"], (terms["error"] ** 2).sum(-1).mean(), rtol=1e-5)
    assert terms["fired"].shape == (D_SAE,)


@kinds
def test_jit_vmap_and_grad(kind):
    one, other, data = noisy(kind), noisy(kind, 1), batch(kind)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, other)
    gradient = jax.jit(jax.grad(lambda d, data: loss(d, data)[0]))
    mapped = jax.vmap(gradient, (0, None))(both, data)
    for i, d in enumerate((one, other)):
        alone = gradient(d, data)
        jax.tree.map(lambda m, a: np.testing.assert_allclose(m[i], a, rtol=1e-3, atol=1e-4), mapped, alone)  # noqa: B023
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(alone))
        assert float(jnp.abs(alone.W_dec).max()) > 0
    x = inputs()
    np.testing.assert_allclose(
        jax.vmap(jax.jit(lambda d, x: d.encode(x)), (0, None))(both, x)[1], other.encode(x), atol=1e-5
    )
    np.testing.assert_allclose(jax.vmap(one.encode)(x), one.encode(x), atol=1e-5)


@kinds
def test_bfloat16(kind):
    d, data = noisy(kind), batch(kind)
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), d)
    x = inputs()
    assert low.encode(x).dtype == jnp.bfloat16
    assert (low(x).dtype, d(x.astype(jnp.bfloat16)).dtype) == (jnp.float32, jnp.bfloat16)
    value, gradient = jax.value_and_grad(lambda d: loss(d, data, jnp.arange(D_SAE) < 4)[0])(low)
    np.testing.assert_allclose(value, loss(d, data, jnp.arange(D_SAE) < 4)[0], rtol=0.1)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("bfloat16")}


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
    d, x = noisy(kind), inputs()
    folded = d.fold_scale(7.0)
    np.testing.assert_allclose(folded(x), d(7 * x) / 7, atol=1e-5)
    np.testing.assert_allclose(folded.encode(x), d.encode(7 * x) / 7, atol=1e-5)


@kinds
def test_sharded_over_devices_it_does_what_one_device_does(kind):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = dictionaries.TrainState.create(noisy(kind), 10, learning_rate=1e-3, dead_after=1)
    shared = jax.device_put(state, everywhere)
    for _ in range(2):
        state, info = dictionaries.train_step(state, batch(kind))
        shared, shared_info = dictionaries.train_step(shared, jax.device_put(batch(kind), sharding))
    np.testing.assert_allclose(shared_info.loss, info.loss, rtol=1e-4)
    np.testing.assert_allclose(shared.dictionary.W_dec, state.dictionary.W_dec, rtol=1e-3, atol=1e-3)


def planted(key, directions, n=256, k=2):
    keys = jax.random.split(key, 2)
    chosen = jax.random.uniform(keys[0], (n, len(directions))).argsort(-1)[:, :k]
    weights = jax.random.uniform(keys[1], (n, k), minval=1.0, maxval=2.0)
    return jnp.einsum("nk,nkd->nd", weights, directions[chosen])


@kinds
def test_planted_features_are_recovered(kind):
    directions = jax.random.normal(jax.random.key(77), (16, 12))
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    KEY = jax.random.key(0)
    keywords = {key: value for key, value in KEYWORDS[kind].items() if key != "d_out"} | (
        {"k": 2} if "topk" in kind or kind == "matryoshka" else {}
    )
    d = ARCHITECTURES[kind].create(KEY, 12, D_SAE, **keywords)
    n_steps = 600
    state = dictionaries.TrainState.create(
        d, n_steps, learning_rate=1e-2, dead_after=30, sparsity_coefficient=SPARSITY.get(kind, 0.3)
    )

    def run(state):
        def step(state, i):
            x = planted(jax.random.fold_in(KEY, i), directions)
            return dictionaries.train_step(state, (x, x) if "transcoder" in kind else x)

        return jax.lax.scan(step, state, jnp.arange(n_steps))

    state, info = jax.jit(run)(state)
    assert float(info.loss[-20:].mean()) < 0.5 * float(info.loss[:5].mean())
    rows = state.dictionary.W_dec / jnp.linalg.norm(state.dictionary.W_dec, axis=-1, keepdims=True)
    print(
        kind, float((directions @ rows.T).max(-1).mean()), float(info.l0[-1]), float(info.fvu[-1]), float(info.dead[-1])
    )
    assert float((directions @ rows.T).max(-1).mean()) > 0.9


@kinds
def test_bad_input_is_refused(kind):
    with pytest.raises(ValueError, match=f"d_in={D_IN}"):
        create(kind).encode(jnp.ones((3, D_IN + 1)))
    with pytest.raises(ValueError, match="d_sae=0 must be at least 1"):
        create(kind, d_sae=0)
    with pytest.raises(TypeError, match="d_sea"):
        ARCHITECTURES[kind].create(jax.random.key(0), D_IN, D_SAE, d_sea=D_SAE, **KEYWORDS[kind])


@pytest.mark.parametrize(
    ("kind", "keywords", "message"),
    [
        ("topk", {"k": 25}, "k=25 is larger than d_sae=24"),
        ("batchtopk", {"k": 25}, "k=25 is larger than d_sae=24"),
        ("matryoshka", {"k": 25}, "k=25 is larger than d_sae=24"),
        ("matryoshka", {"k": 3, "widths": (8, 4, 24)}, "must rise"),
        ("relu", {"form": "march"}, "unknown form 'march'; known: towards, april_2024"),
        ("jumprelu", {"bandwidth": 0.0}, "bandwidth=0.0 must be positive"),
        ("panneal", {"p_end": 2.0}, r"p_end=2.0 must be in \(0, 1\]"),
    ],
)
def test_impossible_settings_are_refused(kind, keywords, message):
    with pytest.raises(ValueError, match=message):
        ARCHITECTURES[kind].create(jax.random.key(0), D_IN, D_SAE, **keywords)


@kinds
def test_heads_are_flattened(kind):
    d, x = noisy(kind), inputs()
    heads = x.reshape(N, 2, D_IN // 2)
    np.testing.assert_array_equal(d.encode(heads), d.encode(x))
    if "transcoder" not in kind:
        np.testing.assert_array_equal(d(heads), d(x).reshape(heads.shape))
