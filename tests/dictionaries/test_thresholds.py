"""Thresholds that are learned: they move, make features fewer, and stay float32 whatever the rest is."""

from dataclasses import replace
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries
from interp_jax.dictionaries import JumpReLU, Scaling, TrainState

D, N_FEATURES, D_SAE = 16, 32, 64
ROWS = jax.random.normal(jax.random.key(1), (N_FEATURES, D)) / D**0.5


@jax.jit
def planted(key, scale=1.0):
    chosen, size = jax.random.split(key)
    there = jax.random.uniform(chosen, (256, N_FEATURES)) < 0.1
    c = jnp.where(there, 1 + jax.random.uniform(size, (256, N_FEATURES)), 0)
    return scale * (c @ ROWS + 0.02 * jax.random.normal(key, (256, D)))


def trained(dictionary, coefficients, n_steps, scale=1.0, pair=False, layers=None):
    """Dictionaries trained at their defaults but for the weight of the sparsity term."""

    def data(i):
        x = planted(jax.random.key(i), scale)
        x = x if layers is None else jnp.stack([x] * layers, 1)
        return (x, x[:, ::-1] if layers else x) if pair else x

    scaling = Scaling.fit(data(0))
    create = functools.partial(TrainState.create, dictionary, n_steps)
    states = [create() if c is None else create(sparsity_coefficient=c) for c in coefficients]
    found = dictionaries.train_many(states, (scaling(data(i)) for i in range(n_steps)), every=n_steps)
    x = scaling(data(10_000))
    l0 = [float((s.dictionary.encode(x[0] if pair else x) != 0).sum() / 256) for s in found]
    return [s.dictionary for s in found], l0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_first_run_at_any_scale_of_inputs_has_fewer_features_in_the_end(scale):
    new = JumpReLU.create(jax.random.key(0), D, D_SAE)
    (after,), (l0,) = trained(new, [None], 400, scale)
    x = planted(jax.random.key(3), scale)
    before = float((new.encode(Scaling.fit(x)(x)) != 0).sum() / 256)
    assert l0 < before / 2
    assert float(jnp.abs(after.threshold - new.threshold).min()) > 0.01


@pytest.mark.long
@pytest.mark.parametrize("kind", ["JumpReLU", "CrossLayerTranscoder"])
def test_over_six_decades_of_the_weight_features_become_ten_times_fewer(kind):
    cls, layered = getattr(dictionaries, kind), kind == "CrossLayerTranscoder"
    new = cls.create(jax.random.key(0), D, D_SAE, **({"n_layers": 2} if layered else {}))
    weights = [cls.sparsity_coefficient * 10.0**i for i in range(-3, 4)]
    made, l0 = trained(new, weights, 2000, pair=layered, layers=2 if layered else None)
    assert max(l0) > 10 * min(l0)
    moved = [float(jnp.abs(d.threshold - new.threshold).mean()) for d in made]
    assert max(moved) > 0.1


def test_a_threshold_stays_positive_and_moves_by_about_the_rate():
    state = TrainState.create(
        JumpReLU.create(jax.random.key(0), D, D_SAE), 50, learning_rate=0.1, sparsity_coefficient=0.0
    )
    state = dictionaries.train(state, (planted(jax.random.key(i)) for i in range(50)))
    assert float(state.dictionary.threshold.min()) >= 0
    state = TrainState.create(
        JumpReLU.create(jax.random.key(0), D, D_SAE), 50, learning_rate=0.01, n_warmup=1, n_decay=1
    )
    after, _ = dictionaries.train_step(state, planted(jax.random.key(0)))
    moved = jnp.abs(after.dictionary.threshold - state.dictionary.threshold)
    np.testing.assert_allclose(moved[moved > 0], 0.01, rtol=1e-2)


def test_in_bfloat16_thresholds_and_their_moments_are_float32_and_move_as_far():
    def moved(dtype):
        new = jax.tree.map(lambda leaf: leaf.astype(dtype), JumpReLU.create(jax.random.key(0), D, D_SAE))
        state = TrainState.create(new, 200, learning_rate=1e-4)
        for i in range(60):
            state, _ = dictionaries.train_step(state, planted(jax.random.key(i)).astype(dtype))
        assert state.dictionary.W_enc.dtype == dtype
        assert {leaf.dtype for leaf in jax.tree.leaves(state.opt_state)} <= {jnp.dtype("float32"), jnp.dtype("int32")}
        assert state.dictionary.threshold.dtype == jnp.float32
        return float((state.dictionary.threshold - new.threshold.astype(jnp.float32)).mean())

    np.testing.assert_allclose(moved(jnp.bfloat16), moved(jnp.float32), rtol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("format", ["orbax", "sae_lens"])
def test_load_save_load_is_the_identity(tmp_path, dtype, format):
    new = JumpReLU.create(jax.random.key(0), D, D_SAE)
    new = replace(new, threshold=jax.random.uniform(jax.random.key(1), (D_SAE,)).astype(dtype).astype(jnp.float32))
    new = new.cast(dtype)
    dictionaries.save(tmp_path / "a", new, format=format)
    once = dictionaries.load(tmp_path / "a")
    dictionaries.save(tmp_path / "b", once, format=format)
    again = dictionaries.load(tmp_path / "b")
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert once.threshold.dtype == jnp.float32
    np.testing.assert_array_equal(once.threshold, new.threshold)
    assert once.W_enc.dtype == jnp.dtype(dtype)


@pytest.mark.parametrize("kind", ["BatchTopK", "Matryoshka"])
@pytest.mark.parametrize("n_steps", [1, 20, 200])
def test_inference_has_k_features_after_short_runs_too(kind, n_steps):
    k = 4
    new = getattr(dictionaries, kind).create(jax.random.key(0), D, D_SAE, k)
    (after,), (l0,) = trained(new, [None], n_steps)
    assert abs(l0 - k) < 0.15 * k


def test_a_negative_threshold_of_another_tool_acts_as_none(tmp_path):
    new = JumpReLU.create(jax.random.key(0), D, D_SAE)
    dictionaries.save(tmp_path / "a", replace(new, threshold=new.threshold - 1), format="sae_lens")
    x = planted(jax.random.key(0))
    np.testing.assert_array_equal(dictionaries.load(tmp_path / "a").encode(x), jax.nn.relu(new.pre_activations(x)))
