"""Cached generation against the whole sequence run anew for each token."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import Intervention, add, at, chain, scale, zero
from interp_jax.models import Decoder
from interp_jax.models.generation import _choose

NEW = 9


def uncached(model: Decoder, prompts: tuple, edits: Any = None) -> np.ndarray:
    """Greedy continuations [3 NEW], the whole sequence run anew for each token.

    The sequences stand at the left of a width that never changes, so that this compiles once.
    """
    rows = [list(row[real]) for row, real in zip(*prompts, strict=True)]
    f = ij.intervene(models.forward, edits) if edits else models.forward
    for _ in range(NEW):
        tokens, mask = np.zeros((len(rows), 7 + NEW), np.int32), np.zeros((len(rows), 7 + NEW), bool)
        for i, row in enumerate(rows):
            tokens[i, : len(row)], mask[i, : len(row)] = row, True
        logits = np.asarray(f(model, tokens, attention_mask=mask))
        for i, row in enumerate(rows):
            row.append(int(logits[i, len(row) - 1].argmax()))
    return np.array([row[-NEW:] for row in rows])


def check(model: Decoder, prompts: tuple, edits: dict[str, Any] | None = None) -> np.ndarray:
    tokens, mask = prompts
    got = np.asarray(models.generate(model, tokens, NEW, attention_mask=mask, edits=edits))
    assert got.shape == (3, 7 + NEW)
    np.testing.assert_array_equal(got[:, :7], tokens)
    np.testing.assert_array_equal(got[:, 7:], uncached(model, prompts, edits))
    return got


def test_equals_generation_without_a_cache(model: Decoder, prompts: tuple) -> None:
    check(model, prompts)


def vector(model: Decoder, seed: int) -> jax.Array:
    return 3 * jax.random.normal(jax.random.key(seed), (model.config.d_model,))


def test_edits_live_at_every_step(model: Decoder, prompts: tuple) -> None:
    plain = np.asarray(models.generate(model, prompts[0], NEW, attention_mask=prompts[1]))
    edits = {"blocks.1.resid_post": add(vector(model, 1)), "unembed.in": add(vector(model, 4))}
    edited = check(model, prompts, edits)
    assert (edited[:, 7:] != plain[:, 7:]).any(axis=0).mean() > 0.5


# Several at once: each program compiles for seconds, and an edit that is lost shows in the tokens.
@pytest.mark.parametrize("model", ["llama"], indirect=True)
@pytest.mark.parametrize(
    "edits",
    [
        {
            "blocks.attn.z": at(zero(), head=1),
            "blocks.1.attn.result": at(scale(-3.0), head=2),
            "blocks.1.q_input": at(scale(-2.0), head=0),
            "blocks.v_input": at(scale(0.3), head=1),
        },
        {
            "blocks.attn.attn_scores": lambda x: 2 * x,
            "blocks.attn.pattern": at(scale(3.0), key=9),
            "blocks.attn.k": at(scale(-1.0), position=2),
            "blocks.0.attn.pattern": at(scale(0.0), head=1, key=0),
        },
        {
            "blocks.mlp.post": at(scale(4.0), axis=-1, index=3),
            "blocks.0.ln1.scale": scale(0.5),
            "blocks.resid_mid": lambda x: 1.5 * x,
            "logits": at(scale(-1.0), position=6),
        },
    ],
    ids=["heads", "attention", "rest"],
)
def test_edits_of_every_kind_of_site(model: Decoder, prompts: tuple, edits: dict[str, Any]) -> None:
    check(model, prompts, edits)


def test_edits_know_the_true_position(model: Decoder, prompts: tuple) -> None:
    edits = {f"blocks.{i}.resid_pre": at(add(vector(model, i)), position=p) for i, p in enumerate((1, 6, 11))}
    check(model, prompts, edits)


def test_position_generated_is_after_the_prompt(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts
    edit, length = add(vector(model, 3)), jnp.asarray(mask.sum(1))[:, None, None]

    def after_the_prompt(x: jax.Array) -> jax.Array:  # in `uncached` the sequences begin in column 0
        return jnp.where(jnp.arange(x.shape[1])[:, None] >= length, x + edit.vector, x)

    edits = {"blocks.1.resid_post": at(edit, position="generated")}
    got = models.generate(model, tokens, NEW, attention_mask=mask, edits=edits)
    want = uncached(model, prompts, {"blocks.1.resid_post": after_the_prompt})
    np.testing.assert_array_equal(got[:, 7:], want)
    assert not np.array_equal(want, uncached(model, prompts))


def test_the_parts_of_a_text_by_their_names(model: Decoder, prompts: tuple) -> None:
    """Edits of both parts are an edit of all; and a prompt's edit does nothing to what comes after."""
    tokens, mask = prompts
    run = partial(models.generate, model, tokens, NEW, attention_mask=mask)
    site, edit = "blocks.1.resid_post", add(vector(model, 3))
    both = run(edits={site: ij.interventions.chain(at(edit, position="prompt"), at(edit, position="generated"))})
    np.testing.assert_array_equal(both, run(edits={site: edit}))
    _, plain = run(capture=f"{site}")
    _, edited = run(edits={site: at(edit, position="prompt")}, capture=site)
    np.testing.assert_allclose(
        edited[site][:, :7], jnp.where(mask[..., None], plain[site][:, :7] + edit.vector, 0), atol=1e-5
    )


class Numbered(Intervention):
    """A user's own edit, which knows by its context where it is."""

    def __call__(self, value: jax.Array, ctx: Any) -> jax.Array:
        numbers = ctx.numbers("position", value.shape[-2])
        return value * ctx.spread(1.0 + numbers, "position", value)


class Centred(Intervention):
    def __call__(self, value: jax.Array, ctx: Any) -> jax.Array:
        return value - value.mean(-2, keepdims=True)


def largest(x: jax.Array) -> jax.Array:
    """All but the largest features are zero, and scattered back by the number of the row."""
    values, index = jax.lax.top_k(x, 6)
    rows = jnp.arange(x.shape[0])[:, None, None], jnp.arange(x.shape[1])[None, :, None]
    return jnp.zeros_like(x).at[*rows, index].set(values)


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("model", ["llama"], indirect=True)
def test_edits_by_a_user_s_own_means(model: Decoder, prompts: tuple, scanned: bool) -> None:
    edits = {
        "blocks.0.resid_mid": Numbered(),
        "blocks.1.resid_pre": lambda x: jnp.interp(x, jnp.linspace(-2, 2, 9), jnp.linspace(-1, 1, 9) ** 3),
        "blocks.1.resid_post": largest,
        "blocks.2.attn.pattern": at(lambda p: p + 0.25, head=1),  # in the last layer nothing is read
        "blocks.2.attn.attn_scores": at(lambda s: 0 * s.clip(-9) - 1, head=0),
    }
    check(models.stack_layers(model) if scanned else model, prompts, edits)


@pytest.mark.parametrize("model", ["llama"], indirect=True)
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (Centred(), "does not do the same at each place along 'position'"),
        (lambda x: x.at[:, 14].add(1.0), "does not do the same at each place"),
        (lambda x: x + jnp.arange(1.0 * x[..., 0].size).reshape(*x.shape[:2], 1), "does not do the same at each place"),
        (chain(at(zero(), position=1), Centred()), "does not do the same at each place"),
        (at(Centred(), head=0), "has no axis 'head'"),
        (lambda x: x - x.mean(0, keepdims=True), "does not leave the examples of the batch apart.*one by one"),
        (lambda x: x[::-1], "does not leave the examples"),
        (
            lambda x: jax.pure_callback(np.tanh, x, x, vmap_method="expand_dims"),
            "through pure_callback.*'seq",
        ),
    ],
)
def test_an_edit_that_would_be_another_without_the_cache(model: Decoder, prompts: tuple, edit: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        models.generate(model, prompts[0], 2, attention_mask=prompts[1], edits={"blocks.1.resid_post": edit})
    assert "\n" not in str(caught.value)


def test_a_text_ends_at_a_stop(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts
    run = partial(models.generate, model, tokens, NEW, attention_mask=mask)
    plain = np.asarray(run())[:, 7:]
    stops = [int(plain[0, 2]), int(plain[1, 4])]
    stopped, acts = run(stop=stops, capture="blocks.1.resid_post")
    for row, got in zip(plain, np.asarray(stopped)[:, 7:], strict=True):
        where = np.flatnonzero(np.isin(row, stops))
        end = where[0] if len(where) else NEW
        np.testing.assert_array_equal(got, [*row[: end + 1], *[row[min(end, NEW - 1)]] * (NEW - end - 1)])
    first = min(np.flatnonzero(np.isin(row, stops)).min(initial=NEW) for row in plain)
    assert first < NEW - 1, "nothing stopped: the test shows nothing"
    np.testing.assert_array_equal(run(stop=int(plain[0, 2]))[0, 9:], plain[0, 2])
    assert acts["blocks.1.resid_post"].shape == (3, 7 + NEW - 1, model.config.d_model)


@pytest.mark.parametrize("scanned", [False, True])
def test_what_is_captured_is_what_the_whole_text_gives(model: Decoder, prompts: tuple, scanned: bool) -> None:
    tokens, mask = prompts
    here = models.stack_layers(model) if scanned else model
    edits = {"blocks.1.resid_mid" if not model.config.parallel else "blocks.1.resid_pre": scale(1.5)}
    sites = ["blocks.resid_post", "blocks.1.attn.pattern", "blocks.attn.k", "embed", "logits"]
    out, acts = models.generate(here, tokens, NEW, attention_mask=mask, edits=edits, capture=sites)
    seen = np.concatenate([mask, np.ones((3, NEW - 1), bool)], axis=1)
    f = ij.capture(ij.intervene(models.forward, edits), sites)
    _, whole = f(here, out[:, :-1], attention_mask=seen)
    assert list(acts) == list(whole)
    for name, value in acts.items():
        want = np.asarray(whole[name])
        if name == "logits":
            last = 6 - mask[:, ::-1].argmax(1)  # column of the prompt's last token
            want = np.concatenate([want[np.arange(3), last][:, None], want[:, 7:]], axis=1)
        else:
            axis = -1 if name.endswith("pattern") else 1 + name.startswith("blocks.") * ("1." not in name)
            real = seen if "pattern" not in name else (seen[:, :, None] & seen[:, None])[:, None]
            want = np.where(real.reshape(*real.shape, *[1] * (want.ndim - axis - 1) if axis > 0 else ()), want, 0)
        assert value.shape == want.shape, name
        np.testing.assert_allclose(value, want, atol=2e-4, err_msg=name)


def test_the_last_token_is_not_read(model: Decoder, prompts: tuple) -> None:
    """As transformers: n_ctx positions are read, and one token more is written."""
    out = models.generate(model, prompts[0], 26)
    assert out.shape == (3, 7 + 26) and 7 + 26 == model.config.n_ctx + 1


def test_a_single_sequence_needs_no_batch(model: Decoder, prompts: tuple) -> None:
    edits = {"blocks.0.resid_pre": at(add(vector(model, 2)), position=8)}
    alone = models.generate(model, prompts[0][2], NEW, edits=edits)
    np.testing.assert_array_equal(alone, models.generate(model, prompts[0][2:], NEW, edits=edits)[0])


def test_one_compile_for_all_lengths_up_to_a_bound(
    model: Decoder, prompts: tuple, caplog: pytest.LogCaptureFixture
) -> None:
    edits = {"blocks.0.resid_pre": add(vector(model, 2))}
    models.generate(model, prompts[0], 12, edits=edits)
    with jax.log_compiles(True), caplog.at_level("WARNING"):
        for width, n in ((5, 3), (6, 16), (2, 8)):
            vectors = {"blocks.0.resid_pre": add(vector(model, width))}
            models.generate(model, prompts[0][:, :width], n, edits=vectors)
    assert "jit(_generate)" not in caplog.text and "jit(_step)" not in caplog.text


def test_a_stack_of_vectors_is_a_sweep(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts
    vectors = jnp.stack([vector(model, 1), vector(model, 4)])

    def steered(v: jax.Array) -> jax.Array:
        return models.generate(model, tokens, NEW, attention_mask=mask, edits={"blocks.1.resid_post": add(v)})

    together = jax.jit(jax.vmap(steered))(vectors)
    np.testing.assert_array_equal(together[0], steered(vectors[0]))
    np.testing.assert_array_equal(together[1], steered(vectors[1]))


def test_sampling_follows_the_distribution() -> None:
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    many = jnp.broadcast_to(logits, (20000, 4))

    def share(temperature: float, top_k: int, top_p: float) -> np.ndarray:
        sampling = (jax.random.key(0), jnp.float32(temperature), (jnp.int32(top_k), jnp.float32(top_p)))
        return np.bincount(_choose(many, sampling, jnp.int32(3)), minlength=4) / len(many)

    np.testing.assert_allclose(share(1.0, 4, 1.0), [0.5, 0.3, 0.15, 0.05], atol=0.02)
    np.testing.assert_allclose(share(1.0, 2, 1.0), [0.625, 0.375, 0, 0], atol=0.02)
    np.testing.assert_allclose(share(1.0, 4, 0.7), [0.625, 0.375, 0, 0], atol=0.02)
    np.testing.assert_allclose(share(1.0, 4, 0.01), [1, 0, 0, 0])
    squared = np.square([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(share(0.5, 4, 1.0), squared / squared.sum(), atol=0.02)


def test_sampling_is_of_the_key(model: Decoder, prompts: tuple) -> None:
    sample = partial(models.generate, model, prompts[0], NEW, temperature=1.0)
    a, b, c = sample(key=jax.random.key(0)), sample(key=jax.random.key(0)), sample(key=jax.random.key(1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    greedy = models.generate(model, prompts[0], NEW)
    assert np.array_equal(sample(key=jax.random.key(0), top_k=1), greedy)


def test_bfloat16(model: Decoder, prompts: tuple) -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    assert models.generate(half, prompts[0], 3).shape == (3, 10)


def test_nothing_to_generate(model: Decoder, prompts: tuple) -> None:
    assert np.array_equal(models.generate(model, prompts[0], 0), prompts[0])


@pytest.mark.parametrize(
    ("n", "options", "says"),
    [
        (30, {}, "7 prompt tokens and 30 new ones are more than n_ctx 32"),
        (-1, {}, "must not be negative"),
        (1, {"temperature": 1.0}, "needs key="),
        (1, {"temperature": -1.0}, "must not be negative"),
        (1, {"top_k": 3}, "need a temperature"),
        (1, {"temperature": 1.0, "key": 0, "top_k": 0}, "top_k must be at least 1"),
        (1, {"temperature": 1.0, "key": 0, "top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        (1, {"stop": 99}, "stop"),
        (1, {"capture": "blocks.resid_pst"}, "resid_pst"),
    ],
)
def test_bad_input_is_one_line(model: Decoder, prompts: tuple, n: int, options: dict, says: str) -> None:
    if "key" in options:
        options = options | {"key": jax.random.key(0)}
    with pytest.raises(ValueError, match=says) as caught:
        models.generate(model, prompts[0], n, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_site_is_refused(model: Decoder, prompts: tuple) -> None:
    with pytest.raises(ValueError, match="resid_pst"):
        models.generate(model, prompts[0], 2, edits={"blocks.resid_pst": zero()})
