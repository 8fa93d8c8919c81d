"""Records are what counting by hand gives, whatever the batches, and a pass that was cut off goes on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import explain
from interp_jax.explain.records import files as records_files
from interp_jax.explain.records import held, recording, unfinished
from tests.dictionaries.kinds import LAYERED, SEQUENCES, kinds, noisy

N, POSITIONS, D, VOCABULARY = 37, 11, 8, 20
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(3, VOCABULARY, (N, POSITIONS)).astype(np.int32)
LENGTHS = RNG.integers(1, POSITIONS + 1, N)
MASK = np.arange(POSITIONS) < LENGTHS[:, None]
TOKENS = np.where(MASK, TOKENS, 0).astype(np.int32)
TOKENS[:, 0] = 1  # a special token
COUNTS = MASK & (TOKENS != 1)
STRINGS = [f" {i}" for i in range(VOCABULARY)]
MODEL = jax.random.normal(jax.random.key(0), (VOCABULARY, D))
NOTHING = dict(n_top=5, n_sampled=3, n_held=100, window=6)


def f(W, tokens, attention_mask=None):
    before = jnp.cumsum(W[tokens], axis=1) / 3
    x = ij.site(W[tokens] + before, "x", axes=("batch", "position", "d_model"))
    both = jnp.stack([x, x[..., ::-1]])
    out = [ij.site(y, "blocks.y", layer=i, axes=("batch", "position", "d_model")) for i, y in enumerate(both)]
    return sum(out) @ W.T


def gather(where, tokens=TOKENS, mask=MASK, **changes):
    return explain.record(f, where, **(NOTHING | changes))(MODEL, tokens, mask=mask, skip=1)


def values(name, dictionary=None):
    """The activations by hand, `[unit sequence position]`, 0 where a token does not count."""
    x = ij.capture(f, name, output=False)(MODEL, TOKENS)[name]
    if dictionary is not None:
        x = dictionary.encode(jnp.moveaxis(x, 0, 2) if name == "blocks.y" else x)
        x = jnp.moveaxis(x.reshape(N, POSITIONS, -1), 2, 0)
    else:
        x = jnp.moveaxis(x, -1, -3).reshape(-1, N, POSITIONS)
    return np.where(COUNTS, np.maximum(np.asarray(x, np.float32), 0), 0)


def check(found, dense):
    fires = dense > 0
    np.testing.assert_array_equal(found.counts, fires.sum((1, 2)))
    np.testing.assert_allclose(found.sums, dense.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.maxima, dense.max((1, 2)), rtol=1e-5)
    for unit in range(len(dense)):
        np.testing.assert_array_equal(found.histogram[unit], np.histogram(dense[unit][fires[unit]], explain.EDGES)[0])
        ids, counts, means = found.fired_on(unit)
        for token, count, mean in zip(ids, counts, means, strict=True):
            here = fires[unit] & (TOKENS == token)
            assert count == here.sum() and np.isclose(mean, dense[unit][here].mean(), rtol=1e-5)
        assert counts.sum() == found.counts[unit] and not found.lost[unit]
        of_rows = np.sort(dense[unit].max(1))[::-1]
        top, texts = found.strongest.of(unit).values, found.strongest.of(unit).places // POSITIONS
        assert len(top) <= 5 and (not len(top) or np.isclose(top[0], of_rows[0])) and len(np.unique(texts)) == len(top)
        for excerpt in found.top(unit, STRINGS, 3):
            assert excerpt.values[excerpt.focus] == pytest.approx(np.float16(excerpt.values[excerpt.focus]))
    rows = found.held_rows
    for unit in range(len(dense)):
        np.testing.assert_allclose(found.held.dense(unit), dense[unit][rows], rtol=1e-5, atol=1e-6)
    flat = dense.reshape(len(dense), -1)
    for examples in (found.strongest, found.by_chance):
        np.testing.assert_allclose(examples.values, flat[examples.units, examples.places], rtol=1e-5)
        for unit, first, window in zip(examples.units, examples.firsts, examples.windows, strict=True):
            np.testing.assert_allclose(window, flat[unit, first : first + 6], rtol=1e-3, atol=1e-6)


@kinds
def test_every_kind_is_recorded_as_by_hand(kind):
    d = noisy(kind)
    if kind in SEQUENCES:
        found = gather({"x": d})["x"]
        dense = np.moveaxis(np.asarray(d.encode(ij.capture(f, "x", output=False)(MODEL, TOKENS)["x"])), -1, 0)
        check(found, np.where(COUNTS, np.maximum(dense, 0), 0))
        return
    name = "blocks.y" if kind in LAYERED else "x"
    found = gather({name: d, "blocks.y" if name == "x" else "x": None})
    check(found[name], values(name, d))
    check(found["blocks.y" if name == "x" else "x"], values("blocks.y" if name == "x" else "x"))
    assert found[name].kind == type(d).__name__
    assert found[name].nearest[0].shape == (found[name].n_units, min(10, found[name].n_units - 1))


def same(a, b):
    a, b = (records_files.flat("", x) for x in (a, b))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_batches_parts_and_a_folder_change_nothing(monkeypatch, tmp_path):
    whole = gather({"x": noisy("relu"), "blocks.y": None})
    monkeypatch.setattr(recording, "FIRINGS", 100)
    monkeypatch.setattr(recording, "SAVE_EVERY", -1.0)
    parts = gather({"x": noisy("relu"), "blocks.y": None}, batch_size=4, folder=tmp_path)
    for name in whole:
        same(whole[name], parts[name])
    assert not list(tmp_path.iterdir())
    explain.save_records(tmp_path, parts, model="none")
    assert explain.load_card(tmp_path)["model"] == "none"
    for name, read in explain.load_records(tmp_path).items():
        same(read, whole[name])


def test_a_pass_goes_on_where_it_was_cut_off(monkeypatch, tmp_path):
    monkeypatch.setattr(recording, "SAVE_EVERY", -1.0)
    where = {"x": noisy("relu")}
    whole, save, saved = gather(where), unfinished.Unfinished.save, []

    def save_twice(self, next_row, parts):
        save(self, next_row, parts)
        saved.append(next_row)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(unfinished.Unfinished, "save", save_twice)
        gather(where, batch_size=5, folder=tmp_path)
    with pytest.raises(ValueError, match="of a pass over another model, text or size"):
        gather({"x": noisy("relu", 1)}, batch_size=5, folder=tmp_path)
    begun, firing = [], recording.units.firing
    monkeypatch.setattr(recording.units, "firing", lambda x, first: begun.append(first) or firing(x, first))
    same(gather(where, batch_size=5, folder=tmp_path)["x"], whole["x"])
    assert begun[0] == saved[-1] * POSITIONS
    (tmp_path / unfinished.FILE).write_bytes(b"torn")
    with pytest.warns(UserWarning, match="is broken; the pass begins anew"):
        same(gather(where, batch_size=5, folder=tmp_path)["x"], whole["x"])


def test_what_is_held_is_bounded(monkeypatch):
    monkeypatch.setattr(held, "MOST", 300)
    monkeypatch.setattr(recording, "FIRINGS", 50)
    found = gather({"blocks.y": None, "x": noisy("topk")}, batch_size=3)
    assert all(0 < len(x.held.values) <= 300 for x in found.values())
    assert len(found["x"].held_rows) >= len(found["blocks.y"].held_rows)
    assert set(found["blocks.y"].held_rows) <= set(found["x"].held_rows)


def test_correlations_are_those_of_numpy():
    found = gather({"x": noisy("relu"), "blocks.y": None}, n_held=10_000)
    dense = {"x": values("x", noisy("relu")), "blocks.y": values("blocks.y")}
    for one in dense:
        for other in dense:
            a, b = (dense[name][:, COUNTS] for name in (one, other))
            n = len(a)
            r = np.nan_to_num(np.corrcoef(a, b)[:n, n:])
            if one == other:
                np.fill_diagonal(r, -1)
            ids, told = found[one].correlated[other]
            np.testing.assert_allclose(told, np.take_along_axis(r, ids.astype(int), 1), atol=1e-4)
            np.testing.assert_allclose(told, -np.sort(-r, axis=1)[:, : ids.shape[1]], atol=1e-4)


def test_logits_and_nearest_rows_are_those_by_hand():
    d = noisy("topk")
    effects = lambda rows: rows @ np.asarray(MODEL).T  # noqa: E731
    found = gather({"x": d}, effects=effects)["x"]
    by_hand = np.asarray(d.W_dec) @ np.asarray(MODEL).T
    np.testing.assert_allclose(found.raised[1], -np.sort(-by_hand)[:, :10], atol=1e-5)
    np.testing.assert_allclose(found.lowered[1], np.sort(by_hand)[:, :10], atol=1e-5)
    rows = np.asarray(d.W_dec) / np.linalg.norm(d.W_dec, axis=1, keepdims=True)
    cosines = rows @ rows.T - 2 * np.eye(len(rows))
    np.testing.assert_allclose(found.nearest[1], -np.sort(-cosines)[:, :10], atol=1e-5)


def test_neurons_write_what_is_said():
    rows = np.random.default_rng(3).normal(size=(16, 8)).astype(np.float32)
    found = gather({"blocks.y": None}, rows={"blocks.y": rows}, effects=lambda rows: rows @ np.asarray(MODEL).T)[
        "blocks.y"
    ]
    np.testing.assert_allclose(found.raised[1], -np.sort(-rows @ np.asarray(MODEL).T)[:, :10], atol=1e-5)
    assert found.kind == "neurons" and found.nearest[0].shape == (16, 10)
    with pytest.raises(ValueError, match="where no neurons are recorded"):
        gather({"x": noisy("topk")}, rows={"x": rows})
    with pytest.raises(ValueError, match=r"rows \[16, 8\] for the 8 neurons of 'x'"):
        gather({"x": None}, rows={"x": rows})


def test_chance_examples_are_spread_over_the_range_and_excerpts_are_whole():
    rng = np.random.default_rng(1)
    n = 4000
    activations = np.exp(rng.normal(size=(n, 1, 1)).astype(np.float32))
    g = explain.record(lambda x, tokens: ij.site(x[tokens], "h", axes=("batch", "position", "d")), {"h": None})
    found = g(jnp.asarray(activations[:, 0]), np.arange(n)[:, None])["h"]
    for low, high, examples in found.intervals(0, [""] * n, 2):
        inside = ((activations > low) & (activations <= high)).sum()
        assert len(examples) == min(2, inside)
        assert all(low < e.values[e.focus] <= high * 1.001 for e in examples)
    deciles = np.searchsorted(np.sort(activations.ravel()), [e.values[e.focus] for e in found.sampled(0, [""] * n, 20)])
    assert set(deciles * 10 // n) >= set(range(1, 10))
    assert found.sampled(0, [""] * n, 20) == found.sampled(0, [""] * n, 20)


def test_sharded_over_devices_and_in_bfloat16():
    mesh = jax.make_mesh((4, 2), ("data", "features"))
    d = noisy("relu")
    put = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, P(*axes)))  # noqa: E731
    enc, dec, bias = put(d.W_enc, None, "features"), put(d.W_dec, "features"), put(d.b_enc, "features")
    sharded = replace(d, W_enc=enc, W_dec=dec, b_enc=bias)
    one, many = gather({"x": d})["x"], gather({"x": sharded})["x"]
    np.testing.assert_array_equal(one.counts, many.counts)
    np.testing.assert_allclose(one.maxima, many.maxima, rtol=1e-5)
    half = gather({"x": d.cast(jnp.bfloat16)})["x"]
    assert half.maxima.dtype == np.float32 and np.allclose(half.maxima, one.maxima, rtol=0.1, atol=0.1)


def test_a_unit_that_never_fires_has_records():
    d = replace(noisy("relu"), b_enc=jnp.full(24, -1e4))
    found = gather({"x": d})["x"]
    assert not found.counts.any() and found.top(0, STRINGS) == () and found.intervals(0, STRINGS) == ()
    assert found.sampled(0, STRINGS, 5) == () and len(found.quiet(0, STRINGS, 5)) == 5
    assert len(found.fired_on(0)[0]) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gather({}), "record: no site"),
        (lambda: gather({"x": None}, n_top=0), "n_top=0"),
        (lambda: gather({"x": None}, TOKENS[:, :1], MASK[:, :1]), "none counts; give a text that is not empty"),
        (lambda: gather({"z": None}), "matches no site"),
        (lambda: gather({"x": noisy("clt")}), "it was trained at another site or model"),
        (lambda: gather({"x": noisy("topk")})["x"].top(24, STRINGS), "unit 24 of 24; they are numbered from 0"),
        (lambda: explain.save_records("nowhere", {}), "no records to save"),
        (lambda: gather({"x": noisy("lorsa")}, mask=MASK[:, ::-1]), "pad on the right"),
    ],
)
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_what_is_not_finite_is_told():
    with pytest.raises(FloatingPointError, match="an activation is not finite"):
        explain.record(f, {"x": None})(MODEL.at[5].set(jnp.nan), TOKENS, mask=MASK, skip=1)


def test_a_folder_that_is_no_records_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no records"):
        explain.load_records(tmp_path)
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(ValueError, match="is no card of records"):
        explain.load_records(tmp_path)
    explain.save_records(tmp_path, gather({"x": None}))
    (tmp_path / "0.safetensors").unlink()
    with pytest.raises(ValueError, match="is broken or missing"):
        explain.load_records(tmp_path)
