"""The tuned lens: at first the logit lens, slopes by finite differences, a planted map undone, held-out text."""

from dataclasses import replace
import inspect
import random

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

import interp_jax as ij
from interp_jax import data, io, lens, models
from tests.models.conftest import CONFIGS, random_model


@pytest.mark.parametrize("scanned", [False, True])
def test_at_first_it_is_the_logit_lens(model, tokens, scanned) -> None:
    model = models.stack_layers(model) if scanned else model
    w = models.weights(model)
    for site in ("blocks.resid_pre", "blocks.resid_post"):
        resid = ij.capture(models.forward, site, output=False)(model, tokens)[site]
        tuned = lens.TunedLens.create(16, 2)
        np.testing.assert_array_equal(tuned(w, resid), lens.logit_lens(w, resid))
    np.testing.assert_allclose(tuned(w, resid)[-1], model(tokens), atol=1e-4)


def divergence(w, resid, logits, mask, W, b):
    """Mean KL in float64, of one layer of a model with an RMSNorm without weights."""
    x = resid + resid @ W + b
    read = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) @ w
    each = (softmax(logits, -1) * (log_softmax(logits, -1) - log_softmax(read, -1))).sum(-1)
    return each[mask].mean()


def test_losses_and_slopes_by_finite_differences() -> None:
    rng = np.random.default_rng(0)
    w, resid, logits = rng.normal(size=(4, 7)), rng.normal(size=(3, 2, 5, 4)), rng.normal(size=(2, 5, 7))
    mask = np.arange(5) < np.array([[3], [5]])
    W, b = 0.3 * rng.normal(size=(3, 4, 4)), 0.3 * rng.normal(size=(3, 4))
    tuned = replace(lens.TunedLens.create(4, 3), W=jnp.asarray(W, jnp.float32), b=jnp.asarray(b, jnp.float32))
    args = (
        {"W_U": jnp.asarray(w, jnp.float32), "ln_final_w": jnp.ones(4)},
        *(jnp.asarray(x, jnp.float32) for x in (resid, logits)),
        jnp.asarray(mask),
    )
    wanted = [divergence(w, resid[i], logits, mask, W[i], b[i]) for i in range(3)]
    np.testing.assert_allclose(tuned.divergence(*args), wanted, rtol=1e-5)

    state, losses = lens.lens_step(lens.LensState.create(tuned, optax.sgd(1.0)), *args)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    for i in range(3):  # the step is minus the slope: along a random direction it is what differences say
        dW, db = rng.normal(size=(4, 4)), rng.normal(size=4)
        ahead, behind = (divergence(w, resid[i], logits, mask, W[i] + s * dW, b[i] + s * db) for s in (1e-4, -1e-4))
        moved = ((W[i] - state.lens.W[i]) * dW).sum() + ((b[i] - state.lens.b[i]) * db).sum()
        np.testing.assert_allclose(moved, (ahead - behind) / 2e-4, rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_a_planted_map_is_undone() -> None:
    """A layer that holds the last one's stream turned and shifted: the translator turns and shifts it back."""
    keys = jax.random.split(jax.random.key(0), 3)
    final = jax.random.normal(keys[0], (64, 8, 6))
    turn, _ = jnp.linalg.qr(jax.random.normal(keys[1], (6, 6)))
    w = {"W_U": jax.random.normal(keys[2], (6, 11)), "ln_final_w": jnp.ones(6)}
    resid = jnp.stack([final @ turn + 0.5, final])
    logits = lens.logit_lens(w, final)
    before = lens.TunedLens.create(6, 2).divergence(w, resid, logits)
    state = lens.LensState.create(lens.TunedLens.create(6, 2), optax.adam(optax.cosine_decay_schedule(0.03, 3000)))
    state, _ = jax.lax.scan(lambda state, _: lens.lens_step(state, w, resid, logits), state, None, length=3000)
    after = state.lens.divergence(w, resid, logits)
    assert before[0] > 0.5 and after[0] < 1e-3 * before[0]
    assert after[1] < 1e-5
    # Only directions count, which the norm reads: up to a factor the map is the inverse.
    back = jnp.eye(6) + state.lens.W[0]
    np.testing.assert_allclose(turn @ back / jnp.trace(turn @ back) * 6, jnp.eye(6), atol=0.02)


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "scanned"), [(jnp.float32, True), (jnp.bfloat16, False)])
def test_on_held_out_text_every_layer_is_closer_to_the_model(dtype, scanned) -> None:
    model, _ = models.load("microworld", dtype=dtype, scan_layers=scanned)
    w, config = models.weights(model), model.config
    texts = [data.microworld.batch(random.Random(seed), (32, 24))[0] for seed in range(81)]
    state = lens.LensState.create(lens.TunedLens.create(config.d_model, config.n_layers, eps=config.norm_eps))
    seen = []
    state = lens.train_lens(
        state, models.forward, model, w, map(jnp.asarray, texts[:80]), report=lambda s, loss: seen.append(loss)
    )
    logits, acts = ij.capture(models.forward, "blocks.resid_pre")(model, jnp.asarray(texts[80]))
    args = w, acts["blocks.resid_pre"], logits
    plain = lens.TunedLens.create(config.d_model, config.n_layers, eps=config.norm_eps).divergence(*args)
    assert (state.lens.divergence(*args) < plain).all()
    assert int(state.step) == 80 and len(seen) == 4 and seen[0].shape == (config.n_layers,)
    assert state.lens.W.dtype == jnp.float32


def test_before_a_cap_and_after_it() -> None:
    model = random_model(CONFIGS["gemma"])
    w, tokens = models.weights(model), jnp.arange(14).reshape(2, 7)
    logits, acts = ij.capture(models.forward, ["blocks.resid_post", "unembed.out"])(model, tokens)
    before, after = (lens.TunedLens.create(16, 3, capped=capped) for capped in (False, True))
    for tuned, read in ((before, acts["unembed.out"]), (after, logits)):
        np.testing.assert_allclose(tuned(w, acts["blocks.resid_post"])[-1], read, atol=1e-4)
        divergence = tuned.divergence(w, acts["blocks.resid_post"], read)
        assert divergence[0] > 0.01 and abs(divergence[-1]) < 1e-5
    state = lens.LensState.create(before)
    with pytest.raises(ValueError, match="train_lens: this model caps its logits: give logits='unembed.out'"):
        lens.train_lens(state, models.forward, model, w, [tokens])
    assert int(lens.train_lens(state, models.forward, model, w, [tokens], logits="unembed.out").step) == 1
    assert int(lens.train_lens(lens.LensState.create(after), models.forward, model, w, [tokens]).step) == 1


def test_saved_and_loaded(tmp_path) -> None:
    tuned = replace(
        lens.TunedLens.create(3, 2, eps=1e-6, centred=True, capped=True),
        W=jax.random.normal(jax.random.key(0), (2, 3, 3)),
    )
    lens.save(tmp_path / "lens", tuned, site="blocks.resid_pre")
    again = lens.load(tmp_path / "lens")
    chex.assert_trees_all_equal(again, tuned)  # its options are part of its structure
    io.orbax.save(tmp_path / "other", {"w": jnp.ones(2)}, {})
    with pytest.raises(ValueError, match="not a lens; it holds w"):
        lens.load(tmp_path / "other")


def test_nan_is_named_and_leaves_the_lens() -> None:
    w, resid, logits = {"W_U": jnp.eye(2)}, jnp.ones((2, 1, 3, 2)), jnp.zeros((1, 3, 2))
    state = lens.LensState.create(lens.TunedLens.create(2, 2))
    after, losses = lens.lens_step(state, w, resid.at[1, 0, 1, 0].set(jnp.nan), logits)
    assert np.isfinite(losses[0]) and np.isnan(losses[1])
    assert int(after.step) == 0 and not after.lens.W.any()

    def f(model, tokens):
        x = ij.site(model * tokens[..., None], "blocks.resid_pre", layer=0, axes=("batch", "position", "d_model"))
        return ij.site(x + 1, "blocks.resid_pre", layer=1, axes=("batch", "position", "d_model"))

    texts = [jnp.ones((1, 3)), jnp.full((1, 3), jnp.nan), jnp.ones((1, 3))]
    with pytest.raises(FloatingPointError, match="step 1: the loss of layer 0 is not finite"):
        lens.train_lens(state, f, jnp.ones(2), w, texts)
    masked = [(texts[0], jnp.array([[True, False, True]]))]
    assert int(lens.train_lens(state, f, jnp.ones(2), w, masked, every=1).step) == 1


def test_bad_input() -> None:
    tuned, w = lens.TunedLens.create(2, 3), {"W_U": jnp.eye(2)}
    with pytest.raises(ValueError, match=r"shape \[1, 4, 2\], wanted \[3, ..., 2\]: capture it at every layer"):
        tuned(w, jnp.zeros((1, 4, 2)))
    with pytest.raises(ValueError, match=r"logits of shape \[1, 2\] for a residual stream \[3, 1, 5, 2\]"):
        tuned.divergence(w, jnp.zeros((3, 1, 5, 2)), jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"\(5,\) but expected \(1, 5\).*a mask has one entry for each token"):
        inspect.unwrap(lens.TunedLens.divergence)(
            tuned, w, jnp.zeros((3, 1, 5, 2)), jnp.zeros((1, 5, 2)), jnp.ones(5, bool)
        )
    with pytest.raises(ValueError, match="d_model=0 and n_layers=3 must be at least 1"):
        lens.TunedLens.create(0, 3)
    with pytest.raises(ValueError, match="there is no batch"):
        lens.train_lens(lens.LensState.create(tuned), models.forward, None, w, [])
