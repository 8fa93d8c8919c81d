"""The forward computation of a block, with every site in it.

Each function takes the parameters of its part, the residual stream `x [*batch position d_model]` and a `Frame`.
The same code runs whole sequences and cached decoding steps.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from interp_jax.core import detail
from interp_jax.models.config import Config
from interp_jax.models.frame import Frame
from interp_jax.models.params import MLP, Attention, Block, Norm

Array = jax.Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


def dot(x: Array, w: Array, n: int = 1) -> Array:
    """The last `n` axes of `x` against the first `n` of `w`."""
    return lax.dot_general(x, w, ((tuple(range(x.ndim - n, x.ndim)), tuple(range(n))), ((), ())))


def run_block(block: Block, x: Array, frame: Frame, rotary: Any, layer: int, cache: Any) -> tuple[Array, Any]:
    """One layer: the residual stream after it, and its part of the cache."""
    x = frame.site(x, "blocks.resid_pre", "position", "d_model", layer=layer)
    normalized = normalize(block.ln1, x, frame, "blocks.ln1", layer)
    q, k, v = project(block, x, normalized, frame, layer)
    out, cache = attend(block.attn, q, k, v, frame, rotary, layer, cache)
    x = x + frame.site(out, "blocks.attn_out", "position", "d_model", layer=layer)
    x = frame.site(x, "blocks.resid_mid", "position", "d_model", layer=layer)
    mlp_in = frame.site(x, "blocks.mlp_in", "position", "d_model", layer=layer)
    out = run_mlp(block.mlp, normalize(block.ln2, mlp_in, frame, "blocks.ln2", layer), frame, layer)
    x = x + frame.site(out, "blocks.mlp_out", "position", "d_model", layer=layer)
    return frame.site(x, "blocks.resid_post", "position", "d_model", layer=layer), cache


def centre(x: Array, config: Config) -> tuple[Array, Array]:
    """In float32: `x`, centred in a LayerNorm, and the scale that it is divided by."""
    x = lax.convert_element_type(x, jnp.float32)
    if config.norm == "layernorm":
        x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x, lax.sqrt(jnp.mean(lax.square(x), axis=-1, keepdims=True) + config.norm_eps)


def normalize(norm: Norm, x: Array, frame: Frame, name: str, layer: int | None) -> Array:
    """LayerNorm or RMSNorm. `scale` is float32 `[*batch position 1]`, `normalized` is what the weights multiply."""
    dtype = x.dtype
    x, scale = centre(x, frame.config)
    scale = frame.site(scale, f"{name}.scale", "position", "one", layer=layer)
    x = lax.convert_element_type(x / scale, dtype)
    x = frame.site(x, f"{name}.normalized", "position", "d_model", layer=layer) * norm.w
    return x if norm.b is None else x + norm.b


def project(block: Block, x: Array, normalized: Array, frame: Frame, layer: int) -> tuple[Array, Array, Array]:
    """Queries, keys and values, `[*batch position head d_head]`."""
    config = frame.config

    def fast(attn: Attention, w: Array, x: Array, normalized: Array) -> list[Array]:
        return [dot(normalized, attn.w_q), dot(normalized, attn.w_k), dot(normalized, attn.w_v)]

    def detailed(attn: Attention, w: Array, x: Array, normalized: Array) -> list[Array]:
        """Every head reads a residual stream of its own. What an edit changes there is added to `normalized`, so
        that edits of ln1's sites keep their effect too."""

        def per_head(x: Array, n_heads: int) -> Array:
            return jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], n_heads, x.shape[-1]))

        def normal(x: Array) -> Array:
            centred, scale = centre(x, config)
            return (centred / scale).astype(x.dtype)

        streams = frame.site(per_head(x, config.n_heads), "blocks.attn_in", "position", "head", "d_model", layer=layer)
        shared = streams
        if config.n_kv_heads != config.n_heads:
            group = config.n_heads // config.n_kv_heads
            shared = shared.reshape(*x.shape[:-1], config.n_kv_heads, group, x.shape[-1]).mean(axis=-2)
        out = []
        for kind, matrix, stream in (("q", attn.w_q, streams), ("k", attn.w_k, shared), ("v", attn.w_v, shared)):
            stream = frame.site(stream, f"blocks.{kind}_input", "position", "head", "d_model", layer=layer)
            n_heads = stream.shape[-2]
            read = per_head(normalized, n_heads) + (normal(stream) - normal(per_head(x, n_heads))) * w
            out.append(jnp.einsum("...hm,mhd->...hd", read, matrix))
        return out

    q, k, v = detail(fast, detailed, block.attn, block.ln1.w, x, normalized)
    if block.attn.b_q is not None:
        q, k, v = q + block.attn.b_q, k + block.attn.b_k, v + block.attn.b_v
    axes = ("position", "head", "d_head")
    return (
        frame.site(q, "blocks.attn.q", *axes, layer=layer),
        frame.site(k, "blocks.attn.k", *axes, layer=layer),
        frame.site(v, "blocks.attn.v", *axes, layer=layer),
    )


def attend(
    attn: Attention, q: Array, k: Array, v: Array, frame: Frame, rotary: Any, layer: int, cache: Any
) -> tuple[Array, Any]:
    """-> `[*batch position d_model]` and the cache with this call's keys and values in it."""
    if rotary is not None:
        axes = ("position", "head", "d_head")
        q = frame.site(rotate(q, *rotary), "blocks.attn.rot_q", *axes, layer=layer)
        k = frame.site(rotate(k, *rotary), "blocks.attn.rot_k", *axes, layer=layer)
    if cache is not None:
        axis = len(frame.batch)
        k = cache_k = lax.dynamic_update_slice_in_dim(cache[0], k, frame.start, axis)
        v = cache_v = lax.dynamic_update_slice_in_dim(cache[1], v, frame.start, axis)
        cache = (cache_k, cache_v)
    config, nb = frame.config, len(frame.batch)
    lead, n_query, n_key = q.shape[:nb], q.shape[nb], k.shape[nb]
    group = config.n_heads // config.n_kv_heads
    both = tuple(range(nb))
    # The heads that share a key head stand side by side as more queries of it: [*batch kv_head group*query d_head].
    q = q * jnp.asarray(config.d_head**-0.5, q.dtype)
    q = lax.reshape(
        lax.transpose(q, (*both, nb + 1, nb, nb + 2)), (*lead, config.n_kv_heads, group * n_query, config.d_head)
    )
    scores = lax.dot_general(q, k, (((nb + 2,), (nb + 2,)), ((*both, nb), (*both, nb + 1))))
    scores = lax.reshape(scores, (*lead, config.n_heads, n_query, n_key))
    scores = jnp.where(frame.mask, scores, jnp.asarray(-jnp.inf, scores.dtype))
    axes = ("head", "query", "key")
    scores = frame.site(scores, "blocks.attn.attn_scores", *axes, layer=layer)
    pattern = frame.site(softmax(scores), "blocks.attn.pattern", *axes, layer=layer)
    pattern = lax.reshape(pattern, (*lead, config.n_kv_heads, group * n_query, n_key))
    z = lax.dot_general(pattern, v, (((nb + 2,), (nb,)), ((*both, nb), (*both, nb + 1))))
    z = lax.reshape(z, (*lead, config.n_heads, n_query, config.d_head))
    z = lax.transpose(z, (*both, nb + 1, nb, nb + 2))
    z = frame.site(z, "blocks.attn.z", "position", "head", "d_head", layer=layer)

    def detailed(z: Array, w: Array) -> Array:
        result = jnp.einsum("...hd,hdm->...hm", z, w)
        return frame.site(result, "blocks.attn.result", "position", "head", "d_model", layer=layer).sum(axis=-2)

    out = detail(lambda z, w: dot(z, w, 2), detailed, z, attn.w_o)
    return out if attn.b_o is None else out + attn.b_o, cache


def softmax(scores: Array) -> Array:
    """In float32; a query that sees nothing (padding) gets zeros, with a zero gradient."""
    x = lax.convert_element_type(scores, jnp.float32)
    top = lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True, initial=jnp.finfo(jnp.float32).min))
    x = lax.exp(x - top)
    x = x / lax.max(jnp.sum(x, axis=-1, keepdims=True), jnp.float32(jnp.finfo(jnp.float32).tiny))
    return lax.convert_element_type(x, scores.dtype)


def run_mlp(mlp: MLP, x: Array, frame: Frame, layer: int) -> Array:
    """`[*batch position d_model]` to the same."""
    act, axes = ACTIVATIONS[frame.config.act], ("position", "d_mlp")

    def affine(x: Array, w: Array, b: Array | None) -> Array:
        return dot(x, w) if b is None else dot(x, w) + b

    if mlp.w_gate is None:
        post = act(frame.site(affine(x, mlp.w_in, mlp.b_in), "blocks.mlp.pre", *axes, layer=layer))
    else:
        gate = frame.site(affine(x, mlp.w_gate, mlp.b_gate), "blocks.mlp.pre", *axes, layer=layer)
        linear = frame.site(affine(x, mlp.w_in, mlp.b_in), "blocks.mlp.pre_linear", *axes, layer=layer)
        post = act(gate) * linear
    return affine(frame.site(post, "blocks.mlp.post", *axes, layer=layer), mlp.w_out, mlp.b_out)


def rotation(frame: Frame) -> tuple[Array, Array]:
    """Cosine and sine of the rotary angles, float32 `[*batch position 1 d_head/2]`."""
    half = frame.config.d_head // 2
    frequency = jnp.float32(frame.config.rope_theta) ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = frame.positions[..., None, None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turns the pairs (i, i + d_head/2) of `[*batch position head d_head]` by their angles."""
    half = x.shape[-1] // 2
    a, b = lax.convert_element_type(x[..., :half], jnp.float32), lax.convert_element_type(x[..., half:], jnp.float32)
    return lax.convert_element_type(lax.concatenate([a * cos - b * sin, b * cos + a * sin], x.ndim - 1), x.dtype)
