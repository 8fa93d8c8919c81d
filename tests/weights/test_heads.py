"""Circuits against their definitions."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models, weights


@pytest.mark.parametrize("model", ["gpt2"], indirect=True)  # scores of rotary models turn with the distance
def test_circuits_do_what_the_heads_do(model, tokens) -> None:
    """On a model without biases and rotation: result = pattern @ (x OV), scores = x QK x / sqrt(d_head)."""
    w = models.weights(model)
    plain = models.with_weights(model, {name: 0 * w[name] for name in ("b_Q", "b_K", "b_V", "b_O")})
    sites = ["blocks.attn.result", "blocks.attn.pattern", "blocks.attn.attn_scores", "blocks.ln1.normalized"]
    acts = ij.capture(models.forward, sites, output=False)(plain, tokens)
    x = acts["blocks.ln1.normalized"] * w["ln1_w"][:, None, None] + w["ln1_b"][:, None, None]
    written = jnp.einsum("lbhqk,lbkm,lhmn->lbqhn", acts["blocks.attn.pattern"], x, weights.ov_circuits(w))
    np.testing.assert_allclose(acts["blocks.attn.result"], written, atol=1e-4)
    scores = jnp.einsum("lbqm,lhmn,lbkn->lbhqk", x, weights.qk_circuits(w), x) / 2
    seen = np.tril(np.ones((7, 7), bool))
    np.testing.assert_allclose(np.asarray(acts["blocks.attn.attn_scores"])[..., seen], scores[..., seen], atol=1e-3)


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_composition_is_a_ratio_of_norms(model, kind) -> None:
    w = models.weights(model)
    ov, qk = (np.asarray(fn(w), np.float64) for fn in (weights.ov_circuits, weights.qk_circuits))
    reads = {"Q": qk, "K": qk.swapaxes(-1, -2), "V": ov}[kind]
    got = weights.composition_scores(w, kind)
    for h, g in itertools.product(range(4), range(4)):
        a, b = ov[0, h], reads[1, g]
        want = np.linalg.norm(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b))
        np.testing.assert_allclose(got[0, h, 1, g], want, rtol=1e-3)
    assert not np.any(got[1]) and not np.any(got[:, :, 0])
    with pytest.raises(ValueError, match="kind='O' is none of 'Q', 'K', 'V'"):
        weights.composition_scores(w, "O")
    silent = weights.composition_scores(w | {"W_O": w["W_O"].at[0, 1].set(0.0)}, kind)
    assert not silent[:, 1].any() and np.isfinite(silent).all()


def test_circuits_need_their_own_factors_alone(model) -> None:
    w = models.weights(model)
    for circuit, names in ((weights.ov_circuits, ("W_V", "W_O")), (weights.qk_circuits, ("W_Q", "W_K"))):
        np.testing.assert_array_equal(circuit({name: w[name] for name in names}), circuit(w))


def test_top_tokens(model) -> None:
    w = models.weights(model)
    values, ids = weights.top_tokens_written(w, w["W_out"][0], k=3)
    np.testing.assert_array_equal(ids[:, 0], np.argmax(np.asarray(w["W_out"][0] @ w["W_U"]), -1))
    assert (values[:, 0] >= values[:, 1]).all()
    _, read = weights.top_tokens_read(w, w["W_in"][0].T, k=1)
    np.testing.assert_array_equal(read[:, 0], np.argmax(np.asarray(w["W_in"][0].T @ w["W_E"].T), -1))
    with pytest.raises(ValueError, match="k=99 is not between 1 and d_vocab, 37"):
        weights.top_tokens_read(w, w["W_in"][0].T, k=99)
    with pytest.raises(ValueError, match="top_tokens_written: these are an encoder's weights"):
        weights.top_tokens_written(w | {"ln_embed_w": w["ln_final_w"]}, w["W_out"][0])
    with pytest.raises(ValueError, match="top_tokens_written: these weights have no W_U: a headless model"):
        weights.top_tokens_written({name: value for name, value in w.items() if name != "W_U"}, w["W_out"][0])
