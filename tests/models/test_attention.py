"""Attention by blocks against attention written out in numpy, and against `jax.nn.dot_product_attention`."""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.models import attention
from interp_jax.models.attention import Sight

N, N_KV, GROUP, D = 1100, 2, 3, 8  # blocks before a window, and last ones that are not full
BATCH = 2


@pytest.fixture(scope="module")
def qkv():
    keys, heads = jax.random.split(jax.random.key(0), 3), (N_KV * GROUP, N_KV, N_KV)
    return tuple(jax.random.normal(key, (BATCH, N, n, D)) for key, n in zip(keys, heads, strict=True))


def written_out(q, k, v, mask, scale, cap):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    k, v = (np.repeat(x, GROUP, axis=-2) for x in (k, v))
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) * scale
    scores = cap * np.tanh(scores / cap) if cap else scores
    weights = np.where(mask, np.exp(scores), 0)
    return np.einsum("bhqk,bkhd->bqhd", weights / np.maximum(weights.sum(-1, keepdims=True), 1e-300), v)


def real(side: str):
    lengths = np.array([N, 700])[:, None]
    index = np.arange(N)
    return jnp.asarray(index < lengths if side == "right" else index >= N - lengths)


@pytest.mark.parametrize(
    ("causal", "span", "side", "cap"), [*product([True, False], [0, 100], ["none", "right", "left"], [0.0, 5.0])]
)
def test_blocks_are_attention_written_out(qkv, causal, span, side, cap):
    sight = Sight(None if side == "none" else real(side), causal=causal, span=span)
    index = np.arange(N)
    mask = np.ones((N, N), bool)
    if causal:
        mask &= index[:, None] >= index
    if span:
        mask &= index[:, None] - index < span
    mask = np.broadcast_to(mask, (BATCH, 1, N, N))
    if sight.real is not None:
        mask = mask & np.asarray(sight.real)[:, None, None]
    z = jax.jit(attention.attend, static_argnums=(4, 5))(*qkv, sight, 0.3, cap)
    np.testing.assert_allclose(z, written_out(*qkv, mask, 0.3, cap), atol=2e-6)


def test_blocks_are_jax_s_own_attention_and_so_are_their_derivatives(qkv):
    def ours(q, k, v):
        return jnp.sin(attention.attend(q, k, v, Sight(real("left"), span=300), D**-0.5, 0.0)).sum()

    def theirs(q, k, v):
        mask = real("left")[:, None, None]
        z = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True, local_window_size=(299, 0))
        # A query at padding sees nothing, and gets zeros; theirs gets the mean.
        return jnp.sin(jnp.where(real("left")[..., None, None], z, 0)).sum()

    value, grads = jax.jit(jax.value_and_grad(ours, (0, 1, 2)))(*qkv)
    expected, expected_grads = jax.jit(jax.value_and_grad(theirs, (0, 1, 2)))(*qkv)
    assert float(value) == pytest.approx(float(expected), abs=2e-3)
    for mine, other in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)


def test_a_piece_of_the_queries_that_begins_at_a_traced_place(qkv):
    q, k, v = qkv
    whole = attention.attend(q, k, v, Sight(real("left")), 0.3, 0.0)
    start = N - 600
    piece = jax.jit(lambda start: attention.attend(q[:, -600:], k, v, Sight(real("left"), start), 0.3, 0.0))(start)
    np.testing.assert_allclose(piece, whole[:, -600:], atol=2e-6)


def test_a_first_token_that_draws_nearly_all_of_the_attention(qkv):
    q, k, v = qkv
    q, k = q.at[..., 0].set(10.0), k.at[:, 1:, :, 0].set(0.0).at[:, 0, :, 0].set(10.0)
    mask = np.tril(np.ones((N, N), bool))
    z = attention.attend(q, k, v, Sight(), 0.3, 0.0)
    np.testing.assert_allclose(z, written_out(q, k, v, mask, 0.3, 0.0), atol=2e-6)


@pytest.fixture(scope="module")
def long_model():
    config = models.Config(
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        d_model=16,
        d_mlp=32,
        d_vocab=40,
        n_ctx=1024,
        positions="rotary",
        window=200,
        local_layers=(0,),
        attn_softcap=20.0,
    )
    return models.Decoder.create(jax.random.key(1), config)


@pytest.fixture(scope="module")
def text():
    tokens = jax.random.randint(jax.random.key(2), (2, 640), 0, 40)
    return tokens, jnp.arange(640) >= jnp.array([[0], [100]])


@pytest.mark.parametrize("scanned", [False, True])
def test_a_long_text_is_the_same_whether_its_pattern_is_asked_for_or_not(long_model, text, scanned):
    tokens, mask = text
    model = models.stack_layers(long_model) if scanned else long_model

    def run(model, tokens):
        return models.forward(model, tokens, attention_mask=mask)

    fast = jax.jit(run)(model, tokens)
    detailed, acts = jax.jit(ij.capture(run, ["blocks.attn.pattern", "blocks.attn.z"]))(model, tokens)
    np.testing.assert_allclose(fast, detailed, atol=1e-5)
    pattern = acts["blocks.attn.pattern"]
    assert pattern.shape == (2, 2, 4, 640, 640)
    real_rows = pattern.sum(-1)[:, 0]
    np.testing.assert_allclose(real_rows, 1, atol=1e-5)
    assert (np.asarray(pattern[0, 0, 0, 400]) > 0).sum() == 200  # the local layer
    grads = jax.jit(jax.grad(lambda model: jnp.tanh(run(model, tokens)).sum()))(model)
    watched = jax.jit(jax.grad(lambda model: jnp.tanh(ij.capture(run, "blocks.attn.pattern")(model, tokens)[0]).sum()))
    for mine, other in zip(jax.tree.leaves(grads), jax.tree.leaves(watched(model)), strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-3 * float(jnp.abs(other).max()) + 1e-6)


def test_memory_grows_with_the_length_and_not_with_its_square(long_model):
    model = models.Decoder.create(jax.random.key(1), replace(long_model.config, n_ctx=8192, window=0, local_layers=()))

    def needed(n):
        last = jnp.array([-1])
        program = jax.jit(lambda model, tokens: models.forward(model, tokens, logits_at=last))
        return program.lower(model, jnp.zeros((1, n), jnp.int32)).compile().memory_analysis().temp_size_in_bytes

    assert needed(8192) < 2.6 * needed(4096)


def test_a_long_prompt_is_continued_as_without_the_cache(long_model, text):
    tokens, mask = text
    out = models.generate(long_model, tokens, 4, attention_mask=mask)
    for t in range(4):
        seen = out[:, : 640 + t]
        here = jnp.concatenate([mask, jnp.ones((2, t), bool)], axis=1)
        logits = models.forward(long_model, seen, attention_mask=here, logits_at=jnp.array([-1, -1]))
        np.testing.assert_array_equal(out[:, 640 + t], logits.argmax(-1))
