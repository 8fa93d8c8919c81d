"""Sources: every real token once a round, in any structure of sites, from memory and from a model."""

from functools import partial
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries
from interp_jax.dictionaries import Scaling

N_SEQUENCES, N_POSITIONS, D, N_LAYERS = 24, 6, 4, 3
rng = np.random.default_rng(0)
TOKENS = rng.integers(0, 50, (N_SEQUENCES, N_POSITIONS))
MASK = np.arange(N_POSITIONS) < rng.integers(1, N_POSITIONS + 1, (N_SEQUENCES, 1))
TABLE = jnp.asarray(rng.normal(size=(50, D)), jnp.float32)


def model(table, tokens):
    """Three layers, each with a residual stream and a site with heads."""
    x = table[tokens]
    for layer in range(N_LAYERS):
        x = ij.site(x, "blocks.in", layer=layer, axes=("batch", "position", "d_model"))
        heads = x.reshape(*x.shape[:-1], 2, D // 2)
        heads = ij.site(heads, "blocks.z", layer=layer, axes=("batch", "position", "head", "d_head"))
        x = ij.site(2 * heads.reshape(x.shape), "blocks.out", layer=layer, axes=("batch", "position", "d_model"))
    return x


harvest = partial(dictionaries.harvest, model)


def in_order(rows):
    rows = np.asarray(rows).reshape(len(rows), -1)
    return rows[np.lexsort(rows.T)]


def chunks(n=8):
    return [(TOKENS[i : i + n], MASK[i : i + n]) for i in range(0, N_SEQUENCES, n)]


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_stream_gives_every_real_token_once(batch_size):
    batches = list(harvest("blocks.1.in", TABLE, chunks(), batch_size=batch_size, n_buffered=3))
    assert {batch.shape for batch in batches} == {(batch_size, D)}
    expected = 2 * np.asarray(TABLE)[TOKENS[MASK]]
    got = np.concatenate(batches)
    assert len(got) == len(expected) // batch_size * batch_size
    if batch_size == 1:
        np.testing.assert_array_equal(in_order(got), in_order(expected))


def test_tokens_in_memory_are_read_without_end_and_in_a_new_order():
    batches = harvest("blocks.0.in", TABLE, TOKENS, mask=MASK, batch_size=10, n_sequences=7, n_buffered=2, seed=3)
    first = [next(batches) for _ in range(30)]
    again = harvest("blocks.0.in", TABLE, TOKENS, mask=MASK, batch_size=10, n_sequences=7, n_buffered=2, seed=3)
    np.testing.assert_array_equal(np.stack(first), np.stack([next(again) for _ in range(30)]))
    rows, counts = np.unique(np.concatenate(first), axis=0, return_counts=True)
    real = np.unique(np.asarray(TABLE)[TOKENS[MASK]], axis=0)
    assert np.isin(rows, real).all()
    assert len(rows) == len(real)
    assert counts.max() > 1
    assert (np.stack(first[:5]) != np.stack(first[-5:])).any()


@pytest.mark.parametrize(
    ("where", "shapes"),
    [
        (("blocks.1.in", "blocks.1.out"), ((5, D), (5, D))),
        ({"a": "blocks.0.z", "b": "blocks.2.out"}, {"a": (5, D), "b": (5, D)}),
        ("blocks.in", (5, N_LAYERS, D)),
        (("blocks.in", "blocks.z"), ((5, N_LAYERS, D), (5, N_LAYERS, D))),
    ],
)
def test_a_batch_has_the_structure_of_its_addresses(where, shapes):
    batch = next(harvest(where, TABLE, TOKENS, mask=MASK, batch_size=5))
    assert jax.tree.map(jnp.shape, batch) == shapes


def test_rows_of_several_sites_belong_together():
    x, y = next(harvest(("blocks.in", "blocks.2.out"), TABLE, TOKENS, mask=MASK, batch_size=20))
    np.testing.assert_array_equal(x, x[:, :1] * np.array([1, 2, 4], np.float32)[:, None])
    np.testing.assert_array_equal(y, 8 * x[:, 0])


def test_as_many_layers_as_sequences_are_told_apart():
    square = [(TOKENS[:N_LAYERS, :N_LAYERS], np.ones((N_LAYERS, N_LAYERS), bool))]
    batch = next(harvest("blocks.in", TABLE, square, batch_size=9))
    np.testing.assert_array_equal(batch, batch[:, :1] * np.array([1, 2, 4], np.float32)[:, None])


def test_shuffled_gives_each_row_once_a_round_and_goes_on_where_it_was():
    x = {"a": np.arange(20), "b": np.arange(20) * 2}
    batches = list(itertools.islice(dictionaries.shuffled(x, 6, seed=1), 6))
    for at in (0, 3):
        rows = np.concatenate([batch["a"] for batch in batches[at : at + 3]])
        assert len(set(rows.tolist())) == 18
    assert (batches[0]["a"] != batches[3]["a"]).any()
    assert [jnp.shape(leaf) for leaf in next(dictionaries.shuffled(([[1.0, 2.0]] * 4, [[3.0]] * 4), 2))] == [
        *((2, 2), (2, 1))
    ]
    assert all((batch["b"] == 2 * batch["a"]).all() for batch in batches)
    later = next(dictionaries.shuffled(x, 6, seed=1, start=4))
    np.testing.assert_array_equal(later["a"], batches[4]["a"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dictionaries.shuffled(np.ones((3, 2)), 4), "shuffled: 3 rows for batches of 4; give more, or"),
        (lambda: dictionaries.shuffled(np.ones((0, 2)), 4), "shuffled: 0 rows"),
        (lambda: dictionaries.shuffled((np.ones((3, 2)), np.ones((4, 2))), 2), r"arrays of \[3, 4\] rows"),
        (lambda: dictionaries.shuffled(np.float32(1), 2), "a number has no rows"),
        (lambda: dictionaries.shuffled(np.ones((4, 2)), 2, start=-1), "start=-1 must be a whole number, at least 0"),
        (lambda: next(harvest("blocks.in", TABLE, [], batch_size=2, start=3)), "harvest: 0 real tokens"),
        (lambda: next(harvest("blocks.in", TABLE, chunks(), batch_size=1000)), "real tokens for batches of 1000"),
        (lambda: next(harvest("blocks.in", TABLE, [], batch_size=2)), "harvest: 0 real tokens"),
        (lambda: next(harvest("blocks.in", TABLE, TOKENS, mask=MASK & False, batch_size=2)), "harvest: 0 real tokens"),
        (lambda: next(harvest("blocks.inn", TABLE, TOKENS, batch_size=2)), "matches no site; near names: blocks.in"),
        (lambda: next(harvest("blocks.in", TABLE, TOKENS, batch_size=0)), "batch_size=0"),
        (lambda: Scaling.fit(np.zeros((4, 2))), "all zero or not finite"),
        (lambda: Scaling.fit(np.full((4, 2), np.nan)), "all zero or not finite"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_site_that_is_not_one_vector_for_each_token_is_refused():
    def f(table, tokens):
        return ij.site(table[tokens].mean(1), "pooled", axes=("batch", "d_model"))

    with pytest.raises(ValueError, match="'pooled' is not one vector for each token"):
        next(dictionaries.harvest(f, "pooled", TABLE, TOKENS, batch_size=2))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_scaling_brings_the_mean_norm_to_the_root_of_the_width(dtype):
    x = jnp.asarray(rng.normal(size=(200, 3, 16)) * np.array([1, 10, 0.1])[:, None], dtype)
    scaling = Scaling.fit(x)
    assert scaling(x).dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(scaling(x), axis=-1).mean(0), 4.0, rtol=1e-3)


def noisy(dictionary):
    draw = np.random.default_rng(4)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(0.1 * draw.normal(size=leaf.shape), leaf.dtype), dictionary)


@pytest.mark.parametrize("kind", ["TopK", "Tied", "Transcoder", "SkipTranscoder", "Crosscoder", "CrossLayerTranscoder"])
def test_a_folded_scaling_is_the_dictionary_of_activations_as_they_are(kind):
    layered = {"Crosscoder": {"n_sites": 3}, "CrossLayerTranscoder": {"n_layers": 3}}
    extra = layered.get(kind, {"k": 4} if kind == "TopK" else {})
    dictionary = noisy(getattr(dictionaries, kind).create(jax.random.key(0), 8, 24, **extra))
    shape = (50, 3, 8) if kind in layered else (50, 8)
    x = jnp.asarray(rng.normal(size=shape) * 5, jnp.float32)
    x = x * jnp.array([1.0, 3.0, 0.2])[:, None] if kind in layered else x
    y = 7 * x[::-1]
    pairs = "Transcoder" in kind
    scaling = Scaling.fit((x, y) if pairs else x)
    scaled, out = scaling((x, y)) if pairs else (scaling(x), None)
    factor = scaling.factor[1] if pairs else scaling.factor
    expected = dictionary(scaled) / factor[..., None]
    np.testing.assert_allclose(scaling.fold(dictionary)(x), expected, rtol=1e-4, atol=1e-4)
    assert (out is None) or out.shape == y.shape


@pytest.fixture(scope="module")
def world():
    from interp_jax import data, models

    model, tokenizer = models.load("microworld", dtype="float32")
    texts = [text[: 20 + 7 * i] for i, text in enumerate(data.microworld.text(0, 12))]
    return model, tokenizer, texts


def padded(world, side):
    from interp_jax import models

    return models.tokenize(world[1], world[2], side=side)[:2]


@pytest.mark.parametrize("where", ["blocks.2.resid_post", ("blocks.1.mlp_in", "blocks.1.mlp_out"), "blocks.resid_pre"])
def test_both_sides_of_padding_give_the_same_rows(world, where):
    from interp_jax import models

    rows = []
    for side in ("left", "right"):
        tokens, mask = padded(world, side)
        options = {"batch_size": 1, "n_buffered": 200}
        whole = dictionaries.harvest(
            models.forward, where, world[0], tokens, mask=mask, epochs=1, n_sequences=5, **options
        )
        pairs = zip(np.split(np.asarray(tokens), 3), np.split(np.asarray(mask), 3), strict=True)
        parts = dictionaries.harvest(models.forward, where, world[0], pairs, **options)
        for batches in (whole, parts):
            each = [np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(batch)]) for batch in batches]
            rows.append(np.stack(each))
    assert {len(some) for some in rows} == {int(mask.sum())}
    for some in rows[1:]:
        np.testing.assert_allclose(in_order(np.round(some, 3)), in_order(np.round(rows[0], 3)), atol=5e-3)


@pytest.mark.long
def test_evaluate_says_the_same_of_both_sides_and_of_any_batch(world):
    from interp_jax import models

    d = dictionaries.TopK.create(jax.random.key(0), 128, 256, 16)
    numbers = []
    for side, size in (("left", 12), ("right", 12), ("left", 5)):
        tokens, mask = padded(world, side)
        for f in (models.forward, partial(models.forward, attention_mask=mask)):
            found = dictionaries.evaluate(f, "blocks.2.resid_post", d, world[0], tokens, mask=mask, batch_size=size)
            numbers.append(found.numbers())
    for other in numbers[1:]:
        assert other == pytest.approx(numbers[0], rel=1e-3, abs=1e-4)


def test_special_tokens_are_attended_to_and_left_out(world):
    from interp_jax import models

    model, tokenizer, _ = world
    tokens, mask = padded(world, "left")
    harvest = partial(dictionaries.harvest, models.forward, "blocks.2.resid_post", model, tokens, mask=mask, epochs=1)
    options = {"batch_size": 1, "n_buffered": 400}
    every = np.stack([x[0] for x in harvest(**options)])
    some = np.stack([x[0] for x in harvest(skip=tokenizer.bos_id, **options)])
    n_bos = int((np.asarray(tokens)[np.asarray(mask)] == tokenizer.bos_id).sum())
    assert len(some) == len(every) - n_bos > 0
    assert np.isin(np.round(in_order(some)[:, 0], 3), np.round(in_order(every)[:, 0], 3)).mean() > 0.99
    d = dictionaries.TopK.create(jax.random.key(0), 128, 256, 16)
    found = dictionaries.evaluate(
        models.forward, "blocks.2.resid_post", d, model, tokens, mask=mask, skip=(tokenizer.bos_id,)
    )
    assert found.n_tokens == len(some)


@pytest.mark.parametrize("start", [1, 2, 7, 23])
def test_a_start_gives_what_comes_there_and_does_not_run_what_comes_before(start):
    runs = []

    def counting(table, tokens):
        jax.debug.callback(lambda: runs.append(1))
        return model(table, tokens)

    options = {"mask": MASK, "batch_size": 10, "n_sequences": 3, "n_buffered": 2, "seed": 3}
    whole = list(itertools.islice(dictionaries.harvest(counting, "blocks.0.in", TABLE, TOKENS, **options), 30))
    jax.effects_barrier()
    n_whole = len(runs)
    later = dictionaries.harvest(counting, "blocks.0.in", TABLE, TOKENS, start=start, **options)
    np.testing.assert_array_equal(np.stack(list(itertools.islice(later, 30 - start))), np.stack(whole[start:]))
    jax.effects_barrier()
    assert len(runs) - n_whole <= n_whole
    if start == 23:
        assert len(runs) - n_whole < n_whole / 2
    streamed = list(harvest("blocks.0.in", TABLE, chunks(4), batch_size=5, n_buffered=2))
    if start < len(streamed):
        resumed = list(harvest("blocks.0.in", TABLE, chunks(4), batch_size=5, n_buffered=2, start=start))
        np.testing.assert_array_equal(np.stack(resumed), np.stack(streamed[start:]))


def test_epochs_end_and_give_every_token_as_often():
    batches = list(harvest("blocks.0.in", TABLE, TOKENS, mask=MASK, batch_size=1, epochs=3))
    assert len(batches) == 3 * MASK.sum()


def test_tokens_may_be_lists_and_chunks_bare_or_empty():
    expected = in_order(np.asarray(TABLE)[TOKENS.ravel()])
    empty = (TOKENS[:0], MASK[:0])
    nothing = (TOKENS[:4], MASK[:4] & False)
    for tokens in (TOKENS.tolist(), [TOKENS[:8], empty, jnp.asarray(TOKENS[8:]), nothing]):
        rows = np.concatenate(list(harvest("blocks.0.in", TABLE, tokens, batch_size=1, epochs=1)))
        np.testing.assert_array_equal(in_order(rows), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: harvest("blocks.in", TABLE, TOKENS[0], batch_size=2), r"of shape \(6,\); give token ids"),
        (lambda: harvest("blocks.in", TABLE, TOKENS * 1.0, batch_size=2), "tokens float64"),
        (lambda: harvest("blocks.in", TABLE, TOKENS, mask=MASK[:3], batch_size=2), "they must be one"),
        (lambda: harvest("blocks.in", TABLE, [[1, 2], [3]], batch_size=2), "texts of different lengths"),
        (lambda: harvest("blocks.in", TABLE, TOKENS, batch_size=2, epochs=0), "epochs=0"),
        (lambda: harvest("blocks.in", TABLE, chunks(), batch_size=2, epochs=2), "chunks are read once"),
        (lambda: next(harvest("blocks.in", TABLE, ["a text"], batch_size=2)), "a chunk is tokens"),
        (lambda: next(harvest("blocks.in", TABLE, [(TOKENS, MASK, MASK)], batch_size=2)), "a chunk is tokens"),
        (lambda: harvest("blocks.in", TABLE, (TOKENS, MASK), batch_size=2), "its mask is mask=mask"),
        (lambda: harvest("blocks.in", TABLE, None, batch_size=2), "tokens are one array"),
    ],
)
def test_tokens_of_another_kind_are_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
