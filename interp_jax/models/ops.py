"""The arithmetic of the decoder between its sites.

Each function is compiled by itself, so that a model of many layers traces it once for all of them. Reductions are in
float32 whatever the model's dtype.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from interp_jax.models.config import Config
from interp_jax.models.params import Attention

Array = jax.Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu": partial(jax.nn.gelu, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@partial(jax.jit, static_argnums=2)
def look_up(table: Array, index: Array, mode: str) -> Array:
    """Rows of `table` at int32 `[...]`, sharded as the index is where a mesh has Explicit axes."""
    place = jax.typeof(index).sharding
    explicit = AxisType.Explicit in place.mesh.axis_types
    out = NamedSharding(place.mesh, PartitionSpec(*place.spec, None)) if explicit else None
    return table.at[index].get(mode=mode, out_sharding=out)


@partial(jax.jit, static_argnums=3)
def affine(x: Array, w: Array, b: Array | None, n: int = 1) -> Array:
    """The last `n` axes of `x` against the first `n` of `w`, plus `b`."""
    out = lax.dot_general(x, w, ((tuple(range(x.ndim - n, x.ndim)), tuple(range(n))), ((), ())))
    return out if b is None else out + b


@partial(jax.jit, static_argnums=(1, 2, 3))
def centre(x: Array, norm: str, eps: float, n: int = 1) -> tuple[Array, Array]:
    """In float32: `x`, centred in a LayerNorm, and the scale `[... 1]` that its last `n` axes are divided by."""
    x, axes = x.astype(jnp.float32), tuple(range(-n, 0))
    if norm == "layernorm":
        x = x - jnp.mean(x, axis=axes, keepdims=True)
    return x, jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True) + eps)


@partial(jax.jit, static_argnums=2)
def divide(x: Array, scale: Array, dtype: Any) -> Array:
    """`x / scale`, in the model's dtype."""
    return (x / scale).astype(dtype)


@partial(jax.jit, static_argnums=3)
def rescale(x: Array, w: Array, b: Array | None, offset: float) -> Array:
    """A norm's own weights; offset + w in float32, since a small w beside 1 is lost in bfloat16."""
    if offset:
        x, w, dtype = x.astype(jnp.float32), offset + w.astype(jnp.float32), x.dtype
        return (x * w).astype(dtype)
    return x * w if b is None else x * w + b


@partial(jax.jit, static_argnums=1)
def gain(w: Array, offset: float) -> Array:
    """What a norm multiplies by, in the dtype of its weights."""
    return (offset + w.astype(jnp.float32)).astype(w.dtype) if offset else w


@jax.jit
def project(attn: Attention, x: Array) -> tuple[Array, Array, Array]:
    """`[... d_model]` to queries, keys and values `[... head d_head]`."""
    return affine(x, attn.w_q, attn.b_q), affine(x, attn.w_k, attn.b_k), affine(x, attn.w_v, attn.b_v)


@partial(jax.jit, static_argnums=1)
def repeat_heads(x: Array, n_heads: int) -> Array:
    """`[... d_model]` -> `[... head d_model]`."""
    return jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], n_heads, x.shape[-1]))


@partial(jax.jit, static_argnums=1)
def mean_of_groups(streams: Array, n_kv_heads: int) -> Array:
    """`[... head d_model]` -> `[... kv_head d_model]`: the mean of the heads that share a key-value head."""
    *lead, n_heads, d_model = streams.shape
    if n_kv_heads == n_heads:
        return streams
    return streams.reshape(*lead, n_kv_heads, n_heads // n_kv_heads, d_model).mean(axis=-2)


@partial(jax.jit, static_argnums=(5, 6))
def project_streams(
    attn: Attention,
    w: Array | None,
    x: Array,
    normalized: Array,
    streams: tuple[Array, Array, Array],
    norm: str,
    eps: float,
) -> tuple[Array, ...]:
    """As `project`, but each head reads its own of `streams` `[... head d_model]`, which `x` has become.

    Where a stream is still `x`, its head reads `normalized`; else what changed, normalized and times `w`, is added.
    Without `w` nothing is normalized.
    """

    def scaled(x: Array) -> Array:
        return x if w is None else divide(*centre(x, norm, eps), x.dtype) * w

    rest = (normalized - scaled(x))[..., None, :]
    out = []
    for kind, stream in zip("qkv", streams, strict=True):
        matrix, bias = getattr(attn, f"w_{kind}"), getattr(attn, f"b_{kind}")
        heads = jnp.einsum("...hm,mhd->...hd", rest + scaled(stream), matrix)
        out.append(heads if bias is None else heads + bias)
    return tuple(out)


@jax.jit
def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turns the pairs (i, i + r/2) of the first r of `[... head d_head]` by the angles `[... 1 r/2]`."""
    half = cos.shape[-1]
    a, b = x[..., :half].astype(jnp.float32), x[..., half : 2 * half].astype(jnp.float32)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
    return jnp.concatenate([turned, x[..., 2 * half :]], axis=-1)


@partial(jax.jit, static_argnums=(1, 2))
def rotation(positions: Array, config: Config, local: bool = False) -> tuple[Array, Array]:
    """Cosine and sine of the rotary angles, float32 `[... 1 n_rotary/2]`, at int32 positions `[...]`."""
    theta = config.rope_local_theta if local else config.rope_theta
    frequency = jnp.float32(theta) ** (-jnp.arange(0, config.n_rotary, 2, dtype=jnp.float32) / config.n_rotary)
    if not local:
        frequency = _stretched(frequency, config)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def _stretched(frequency: Array, config: Config) -> Array:
    """Rotary frequencies scaled to longer contexts: all of them, or (Llama 3.1) the slow ones, blending between."""
    if config.rope_scaling == "none":
        return frequency
    slow = frequency / config.rope_factor
    if config.rope_scaling == "linear":
        return slow
    turns = config.rope_original_n_ctx * frequency / (2 * jnp.pi)
    low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
    keep = jnp.clip((turns - low) / (high - low), 0, 1)
    return keep * frequency + (1 - keep) * slow


@partial(jax.jit, static_argnums=1)
def softcap(x: Array, cap: float) -> Array:
    """`cap * tanh(x / cap)`: near x where it is small, never beyond the cap."""
    limit = jnp.asarray(cap, x.dtype)
    return limit * jnp.tanh(x / limit)


def _group(x: Array, n_lead: int, n_groups: int) -> Array:
    """`[*lead head query ...]` -> `[*lead group head*query ...]`, in two steps, which Explicit meshes can follow."""
    lead, (n_heads, n_query), rest = x.shape[:n_lead], x.shape[n_lead : n_lead + 2], x.shape[n_lead + 2 :]
    x = x.reshape(*lead, n_groups, n_heads // n_groups, n_query, *rest)
    return x.reshape(*lead, n_groups, n_heads // n_groups * n_query, *rest)


def _ungroup(x: Array, n_lead: int, n_query: int) -> Array:
    """The inverse of `_group`."""
    lead, (n_groups, both), rest = x.shape[:n_lead], x.shape[n_lead : n_lead + 2], x.shape[n_lead + 2 :]
    x = x.reshape(*lead, n_groups, both // n_query, n_query, *rest)
    return x.reshape(*lead, n_groups * (both // n_query), n_query, *rest)


@partial(jax.jit, static_argnums=(3, 4))
def scores(q: Array, k: Array, mask: Array, scale: float, cap: float) -> Array:
    """`[*batch query head d_head]`, `[*batch key kv_head d_head]` -> `[*batch head query key]`, -inf where masked.

    The heads that share a key head stand side by side as more queries of it: `[*batch kv_head group*query d_head]`.
    """
    *lead, n_query, _, _ = q.shape
    n_kv_heads = k.shape[-2]
    q = jnp.moveaxis(q * jnp.asarray(scale, q.dtype), -2, -3)
    q = _group(q, len(lead), n_kv_heads)
    both = tuple(range(len(lead)))
    last = len(lead) + 2
    out = lax.dot_general(q, k, (((last,), (last,)), ((*both, last - 2), (*both, last - 1))))
    out = _ungroup(out, len(lead), n_query)
    if cap:
        out = softcap(out, cap)
    return jnp.where(mask, out, jnp.asarray(-jnp.inf, out.dtype))


@jax.jit
def exponentials(scores: Array) -> tuple[Array, Array, Array]:
    """The largest of `[... key]`, `[... 1]`, the exponentials relative to it, and their sum `[... 1]`, in float32."""
    x = scores.astype(jnp.float32)
    top = lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True, initial=jnp.finfo(jnp.float32).min))
    weights = jnp.exp(x - top)
    return top, weights, jnp.sum(weights, axis=-1, keepdims=True)


def over(x: Array, total: Array) -> Array:
    """`x / total`, and zero where nothing was summed."""
    return x / jnp.where(total == 0, 1, total)


@jax.jit
def softmax(scores: Array) -> Array:
    """Over the keys. A query that sees nothing (padding) gets zeros, with a zero gradient."""
    _, weights, total = exponentials(scores)
    return over(weights, total).astype(scores.dtype)


@jax.jit
def mix(pattern: Array, v: Array) -> Array:
    """`[*batch head query key]`, `[*batch key kv_head d_head]` -> `[*batch query head d_head]`."""
    *lead, _, n_query, _ = pattern.shape
    n_kv_heads = v.shape[-2]
    pattern = _group(pattern, len(lead), n_kv_heads)
    both, last = tuple(range(len(lead))), len(lead) + 2
    z = lax.dot_general(pattern, v, (((last,), (last - 2,)), ((*both, last - 2), (*both, last - 1))))
    return jnp.moveaxis(_ungroup(z, len(lead), n_query), -3, -2)


@jax.jit
def result(z: Array, w: Array) -> Array:
    """What each head writes: `[... head d_head]`, `[head d_head d_model]` -> `[... head d_model]`."""
    return jnp.einsum("...hd,hdm->...hm", z, w)


@jax.jit
def add_heads(result: Array, b: Array | None) -> Array:
    """`[... head d_model]` -> `[... d_model]`, plus the output bias."""
    out = result.sum(axis=-2)
    return out if b is None else out + b
