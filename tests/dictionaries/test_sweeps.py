"""Dictionaries trained together give what each gives alone; dead features start again; what a training shows."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries
from interp_jax.dictionaries import TrainState
from tests.dictionaries.kinds import ARCHITECTURES

D_IN, N_STEPS = 12, 9
X = np.random.default_rng(0).normal(size=(160, D_IN)).astype(np.float32)
POINTS = X[:30]
# Two of each kind, with what may differ: (d_sae, settings of create).
MEMBERS = {
    "archetypal": [(24, {"k": 2, "points": POINTS}), (40, {"k": 5, "points": POINTS})],
    "batchtopk": [(24, {"k": 2}), (40, {"k": 5})],
    "clt": [(24, {"n_layers": 2, "threshold": 0.3}), (40, {"n_layers": 2, "threshold": 0.3})],
    "crosscoder": [(24, {"n_sites": 2}), (40, {"n_sites": 2})],
    "gated": [(24, {}), (40, {})],
    "jumprelu": [(24, {"threshold": 0.3, "bandwidth": 0.3}), (40, {"threshold": 0.3, "bandwidth": 0.3})],
    "lorsa": [(24, {"k": k, "n_groups": 4, "d_qk": 4, "rope_theta": 100.0}) for k in (2, 5)],
    "matryoshka": [(24, {"k": 2, "widths": (8, 24)}), (24, {"k": 5, "widths": (8, 24)})],
    "panneal": [(24, {}), (40, {})],
    "relu": [(24, {}), (40, {})],
    "skip_transcoder": [(24, {}), (40, {})],
    "tied": [(24, {}), (40, {})],
    "topk": [(4, {"k": 2}), (40, {"k": 5})],  # the first has fewer features than k_aux otherwise is
    "topk_transcoder": [(24, {"k": 2}), (40, {"k": 5})],
    "transcoder": [(24, {}), (40, {})],
}
QUICK = ("topk", "relu", "gated")


def start(kind, i):
    d_sae, settings = MEMBERS[kind][i]
    dictionary = ARCHITECTURES[kind].create(jax.random.key(i), D_IN, d_sae, **settings)
    rates = {"learning_rate": (1e-2, 3e-3)[i], "sparsity_coefficient": (0.1, 0.3)[i]}
    return TrainState.create(dictionary, N_STEPS, dead_after=3, **rates)


def batches(kind):
    for i in range(N_STEPS):
        x = jnp.asarray(X[10 * i : 10 * i + 60])
        x = jnp.stack([x, -x], axis=1) if kind in ("clt", "crosscoder") else x
        x = x.reshape(6, 10, D_IN) if kind == "lorsa" else x
        yield (x, x) if kind in ("clt", "lorsa") or "transcoder" in kind else x


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.long) for kind in MEMBERS]
)
def test_together_is_as_alone(kind):
    seen = []
    report = lambda state, info, batch: seen.append(info)  # noqa: E731
    runs = [start(kind, i) for i in (0, 1)]
    together = dictionaries.train_many(runs, batches(kind), chunk=2, report=report, every=N_STEPS)
    for i, got in enumerate(together):
        alone = dictionaries.train(start(kind, i), batches(kind), report=report, every=N_STEPS)
        assert jax.tree.structure(got) == jax.tree.structure(alone)
        for one, other in zip(jax.tree.leaves(got.dictionary), jax.tree.leaves(alone.dictionary), strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(got.steps_since_fired, alone.steps_since_fired)
        for name in ("loss", "fvu", "l0", "dead", "aux"):
            np.testing.assert_allclose(getattr(seen[0], name)[i], getattr(seen[-1], name), rtol=1e-3, atol=1e-4)


def test_every_kind_is_here():
    assert set(MEMBERS) == {kind for kind, cls in ARCHITECTURES.items() if cls.is_trained}


def test_a_sweep_that_goes_on_is_a_sweep_in_one_go():
    halfway = dictionaries.train_many([start("topk", i) for i in (0, 1)], list(batches("topk")), until=4)
    resumed = dictionaries.train_many(halfway, list(batches("topk"))[4:])
    whole = dictionaries.train_many([start("topk", i) for i in (0, 1)], batches("topk"))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_chunks_of_any_size_give_the_same():
    runs = [start("relu", i) for i in (0, 1, 0)]
    one, two, all_ = (dictionaries.train_many(runs, batches("relu"), chunk=chunk) for chunk in (1, 2, 3))
    for got in (one, two):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, all_)


def test_a_second_sweep_compiles_nothing(caplog):
    def compiled(kind, seeds):
        runs = [start(kind, 0) for _ in range(seeds)]
        caplog.clear()
        with jax.log_compiles():
            dictionaries.train_many(runs, batches(kind), chunk=2)
        return [r for r in caplog.records if "train_step" in r.getMessage()]

    jax.clear_caches()
    assert compiled("tied", 2)
    assert not compiled("tied", 4)


def test_no_runs_are_no_runs():
    assert dictionaries.train_many([], batches("topk")) == []


def other_start(kind="topk", d_in=D_IN, **settings):
    settings = settings or {"k": 2}
    return TrainState.create(ARCHITECTURES[kind].create(jax.random.key(0), d_in, 24, **settings), N_STEPS)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: start("relu", 0), "dictionaries of the kinds ReLU, TopK; train each kind by itself"),
        (lambda: other_start(k=2, k_aux=3), "differ in k_aux; only k and d_sae may"),
        (lambda: other_start(d_in=14, k=2, k_aux=6), "differ in d_in"),
    ],
)
def test_what_one_program_cannot_hold_is_named(other, message):
    with pytest.raises(ValueError, match=message):
        dictionaries.train_many([start("topk", 0), other()], batches("topk"))


def test_heads_whose_groups_are_told_by_their_number_are_of_one_width():
    """Padded, a head would look where another's group does."""
    with pytest.raises(ValueError, match="differ in W_enc, b_enc, W_dec; only k may"):
        other = ARCHITECTURES["lorsa"].create(jax.random.key(0), D_IN, 40, **MEMBERS["lorsa"][0][1])
        dictionaries.train_many([start("lorsa", 0), TrainState.create(other, N_STEPS)], batches("lorsa"))


def test_a_run_that_diverges_is_named():
    bad = replace(start("topk", 1), dictionary=replace(start("topk", 1).dictionary, b_dec=jnp.full(D_IN, jnp.nan)))
    with pytest.raises(FloatingPointError, match="step 0: the loss of run 1 is not finite"):
        dictionaries.train_many([start("topk", 0), bad], batches("topk"), every=1)


def test_sites_train_at_once():
    states = {"a": start("topk", 0), "b": start("relu", 1)}
    data = [{"a": x, "b": 2 * x} for x in batches("topk")]
    both = dictionaries.train(states, iter(data))
    alone = dictionaries.train(start("relu", 1), (one["b"] for one in data))
    np.testing.assert_allclose(both["b"].dictionary.W_dec, alone.dictionary.W_dec, rtol=1e-4, atol=1e-5)


def test_training_stops_at_the_end_of_the_run_and_keeps_what_it_was_given():
    state = start("topk", 0)
    endless = dictionaries.shuffled(X, 32)
    assert int(dictionaries.train(state, endless).step) == N_STEPS
    assert np.isfinite(np.asarray(state.dictionary.W_dec)).all()
    with pytest.raises(ValueError, match="there is no batch"):
        dictionaries.train(state, [])


@pytest.mark.parametrize("kind", ["relu", "tied", "gated", "panneal"])
def test_resampling_turns_dead_features_to_what_is_badly_reconstructed(kind):
    state = start(kind, 0)
    dead = np.arange(24) % 3 == 0
    asleep = {
        name: jnp.where(dead, -9.0, getattr(state.dictionary, name))
        for name in ("b_enc", "b_gate", "b_mag")
        if name in state.dictionary.resampled_fields
    }
    state = replace(
        state,
        dictionary=replace(state.dictionary, **asleep),
        opt_state=jax.tree.map(jnp.ones_like, state.opt_state),
        steps_since_fired=jnp.where(dead, 99, 0),
    )
    # One input is reconstructed so badly that every draw is of it.
    x = jnp.concatenate([0.01 * jnp.asarray(X[:40]), 100.0 * jnp.asarray(X[41:42])])
    after = dictionaries.resample(jax.random.key(0), state, x)
    direction = np.asarray(x[-1] - state.dictionary.b_dec)
    direction = direction / np.linalg.norm(direction)
    rows = np.asarray(after.dictionary.W_dec)
    cosines = rows @ direction / np.linalg.norm(rows, axis=-1)
    np.testing.assert_allclose(cosines[dead], 1.0, rtol=1e-5)
    np.testing.assert_array_equal(rows[~dead], np.asarray(state.dictionary.W_dec)[~dead])
    np.testing.assert_array_equal(after.dictionary.b_enc[dead], 0.0)
    assert int(after.steps_since_fired.max()) == 0
    moment = np.asarray(after.opt_state.mu.W_dec)
    assert (moment[dead] == 0).all()
    assert (moment[~dead] == 1).all()
    if kind != "tied":
        alive = np.linalg.norm(np.asarray(state.dictionary.W_enc)[:, ~dead], axis=0).mean()
        fresh = np.linalg.norm(np.asarray(after.dictionary.W_enc)[:, dead], axis=0)
        np.testing.assert_allclose(fresh, 0.2 * alive, rtol=1e-5)
    features = after.dictionary.encode(x[-1:])
    assert (np.asarray(features)[:, dead] > 0).all()


def test_resampling_without_dead_features_changes_nothing():
    state = start("relu", 0)
    after = dictionaries.resample(jax.random.key(0), state, jnp.asarray(X))
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_resampling_of_what_has_no_form_of_it_is_refused():
    with pytest.raises(ValueError, match="TopK has no form of it"):
        dictionaries.resample(jax.random.key(0), start("topk", 0), jnp.asarray(X))


def test_the_monitor_writes_scalars_and_densities(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with dictionaries.Monitor(tmp_path, bar=False) as monitor:
        states = [start("topk", i) for i in (0, 1)]
        dictionaries.train_many(states, batches("topk"), report=monitor, every=3)
    for run in ("0", "1"):
        events = EventAccumulator(str(tmp_path / run))
        events.Reload()
        assert {"train/loss", "train/l0", "train/dead", "train/tokens_per_second"} <= set(events.Tags()["scalars"])
        assert "train/log10_density" in events.Tags()["tensors"]
    assert np.isfinite(list(monitor.last.values())).all()
