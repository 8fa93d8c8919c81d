"""Training: it finds what was planted, is deterministic, and works mapped, sharded and in lower precision."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries
from interp_jax.dictionaries import TopK, TrainState

D_IN, D_SAE, K = 16, 32, 3


def planted(key, n_features=24, n=512):
    """Sparse sums of unit directions, and the directions."""
    keys = jax.random.split(key, 4)
    directions = jax.random.normal(jax.random.key(77), (n_features, D_IN))
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    chosen = jax.random.uniform(keys[1], (n, n_features)).argsort(-1)[:, :K]
    weights = jax.random.uniform(keys[2], (n, K), minval=1.0, maxval=2.0)
    x = jnp.einsum("nk,nkd->nd", weights, directions[chosen])
    return x, directions


def start(seed=0, n_steps=50, **settings):
    return TrainState.create(TopK.create(jax.random.key(seed), D_IN, D_SAE, K), n_steps, **settings)


def batches(n, size=512):
    return [planted(jax.random.key(1000 + i), n=size)[0] for i in range(n)]


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.long)])
def test_planted_features_are_recovered(dtype):
    state = start(n_steps=800, learning_rate=3e-3, dead_after=50)
    state = dictionaries.train(state, (planted(jax.random.key(i))[0].astype(dtype) for i in range(800)))
    _, directions = planted(jax.random.key(0))
    cosines = jnp.abs(directions @ state.dictionary.W_dec.T).max(-1)
    mean, each = (0.97, 0.95) if dtype == jnp.float32 else (0.9, 0.9)
    assert float(cosines.mean()) > mean
    assert float((cosines > each).mean()) > 0.85


def test_a_run_repeats_bit_for_bit():
    first = dictionaries.train(start(), batches(5), until=5)
    second = dictionaries.train(start(), batches(5), until=5)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_step_is_pure_and_counts():
    state, batch = start(), batches(1)[0]
    again, _ = dictionaries.train_step(state, batch)
    after, info = dictionaries.train_step(state, batch)
    jax.tree.map(np.testing.assert_array_equal, again, after)
    assert (int(state.step), int(after.step), int(info.step)) == (0, 1, 0)
    fired = np.asarray((state.dictionary.encode(batch) > 0).any(0))
    np.testing.assert_array_equal(after.steps_since_fired, np.where(fired, 0, 1))
    x = np.asarray(batch)
    fvu = ((x - state.dictionary(batch)) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    np.testing.assert_allclose(info.fvu, fvu, rtol=1e-4)


def test_rate_warms_up_and_decays():
    hyper = start(n_steps=100, learning_rate=1.0, n_warmup=10, n_decay=20).hyperparameters
    rates = [float(hyper.learning_rate(jnp.int32(step))) for step in (0, 4, 9, 50, 80, 90, 99, 100)]
    np.testing.assert_allclose(rates, [0.1, 0.5, 1.0, 1.0, 1.0, 0.5, 0.05, 0.0], atol=1e-6)


def test_dead_features_are_told_and_revived():
    def dead_at_end(coefficient):
        state = start(n_steps=300, learning_rate=3e-2, aux_coefficient=coefficient, dead_after=10)
        asleep = state.dictionary.b_enc.at[: D_SAE // 2].set(-3.0)
        state = replace(state, dictionary=replace(state.dictionary, b_enc=asleep))
        infos = []
        report = lambda state, info, batch: infos.append(info)  # noqa: E731
        dictionaries.train(state, batches(4) * 75, report=report, every=50)
        return float(infos[-1].dead)

    asleep, revived = dead_at_end(0.0), dead_at_end(1 / 32)
    assert asleep == 0.5 > revived  # how many stay dead hangs on roundings


def test_seeds_train_together_under_vmap_as_they_do_alone():
    def run(key, batch):
        state = TrainState.create(TopK.create(key, D_IN, D_SAE, K), 10, dead_after=1)
        for _ in range(3):
            state, info = dictionaries.train_step(state, batch)
        return state.dictionary, info

    keys, batch = jax.random.split(jax.random.key(3), 4), batches(1)[0]
    together, info = jax.vmap(run, in_axes=(0, None))(keys, batch)
    for i, key in enumerate(keys):
        alone, info_alone = run(key, batch)
        for got, want in zip(jax.tree.leaves((together, info)), jax.tree.leaves((alone, info_alone)), strict=True):
            np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis_type", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_a_sharded_batch_gives_what_one_device_gives(axis_type):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state, shared = start(dead_after=1), jax.device_put(start(dead_after=1), replicated)
    for batch in batches(3):
        state, info = dictionaries.train_step(state, batch)
        shared, shared_info = dictionaries.train_step(shared, jax.device_put(batch, sharding))
    np.testing.assert_allclose(shared_info.loss, info.loss, rtol=1e-5)
    np.testing.assert_allclose(shared.dictionary.W_dec, state.dictionary.W_dec, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["TopK", "BatchTopK", "JumpReLU", "Gated"])
def test_a_bfloat16_batch_is_computed_in_bfloat16_and_parameters_stay_float32(kind):
    settings = {"k": K} if "TopK" in kind else {}
    dictionary = getattr(dictionaries, kind).create(jax.random.key(0), D_IN, D_SAE, **settings)
    x = batches(1)[0]

    def gradient(dtype):
        state = TrainState.create(dictionary, 50, dead_after=1)
        state, info = dictionaries.train_step(state, x.astype(dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(state.dictionary)} == {jnp.dtype("float32")}
        # Adam's first moment is a tenth of the gradient.
        return np.asarray(state.opt_state.mu.W_dec), float(info.loss)

    (low, low_loss), (full, loss) = gradient(jnp.bfloat16), gradient(jnp.float32)
    assert (low != full).any()
    np.testing.assert_allclose(low_loss, loss, rtol=0.02)
    assert np.linalg.norm(low - full) < 0.05 * np.linalg.norm(full)


def test_a_batch_with_nan_is_refused_and_the_state_kept():
    good = batches(7)
    bad = good[2].at[3, 4].set(jnp.nan)
    before = dictionaries.train(start(), good[:2], until=2)
    state, info = dictionaries.train_step(before, bad)
    jax.tree.map(np.testing.assert_array_equal, state, before)
    with pytest.raises(FloatingPointError, match="step 2: the loss is not finite"):
        dictionaries.check(info)
    with pytest.raises(FloatingPointError, match="step 2"):
        dictionaries.train(start(), [*good[:2], bad], every=1)


def test_a_run_without_steps_is_refused():
    with pytest.raises(ValueError, match="n_steps=0"):
        start(n_steps=0)


def test_a_step_may_take_over_every_array_of_a_new_state():
    from tests.dictionaries.kinds import KEYWORDS, create

    for kind in KEYWORDS:
        state = TrainState.create(create(kind), 10)
        leaves = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
        assert len(set(leaves)) == len(leaves), kind
