"""The forward computation of a block, with every site in it.

Each function takes the parameters of its part, the residual stream `x [*batch position d_model]` and a `Frame`.
The same code runs whole sequences and cached decoding steps. The arithmetic between the sites is in `ops`.
"""

from typing import Any

import jax
from jax import lax

from interp_jax.core import detail
from interp_jax.models import ops
from interp_jax.models.attention import Sight, attend, attend_at_once
from interp_jax.models.frame import Frame, Places, alias
from interp_jax.models.params import MLP, Attention, Block, Norm

Array = jax.Array
RESIDUAL = ("position", "d_model")
PER_HEAD = ("position", "head", "d_head")
STREAMS = ("position", "head", "d_model")
ATTENTION = ("head", "query", "key")
NEURONS = ("position", "d_mlp")


def run_block(block: Block, x: Array, frame: Frame, layer: int | None, cache: Any) -> tuple[Array, Any]:
    """One layer of a decoder: the residual stream after it, and the cache.

    Args:
      cache: keys, values and a number: None where they are this layer's own `[*batch slot kv_head d_head]`, else this
        layer's place on their first axis. None: there is no cache.
    """
    before = x = frame.site(x, "blocks.resid_pre", *RESIDUAL, layer=layer)
    q, k, v = project(block, x, normalize(block.ln1, x, frame, "blocks.ln1", layer), frame, layer)
    out, cache = run_attention(block.attn, q, k, v, frame, layer, cache)
    out = normalize(block.ln1_post, out, frame, "blocks.ln1_post", layer)
    x = x + frame.site(out, "blocks.attn_out", *RESIDUAL, layer=layer)
    if not frame.config.parallel:
        before = x = frame.site(x, "blocks.resid_mid", *RESIDUAL, layer=layer)
    mlp_in = alias(before, "blocks.mlp_in", (*frame.batch, *RESIDUAL), frame.places, layer=layer)
    out = run_mlp(block.mlp, normalize(block.ln2, mlp_in, frame, "blocks.ln2", layer), frame, layer)
    out = normalize(block.ln2_post, out, frame, "blocks.ln2_post", layer)
    x = x + frame.site(out, "blocks.mlp_out", *RESIDUAL, layer=layer)
    return frame.site(x, "blocks.resid_post", *RESIDUAL, layer=layer), cache


def normalize(
    norm: Norm | None, x: Array, frame: Frame, name: str, layer: int | None, axes: tuple[str, ...] = RESIDUAL
) -> Array:
    """LayerNorm or RMSNorm over the axes of its weights, the last of `axes`; no norm, no change.

    `scale` is float32, with 1 where it was averaged; `normalized` is what the weights multiply.
    """
    if norm is None:
        return x
    dtype, config, n = x.dtype, frame.config, norm.w.ndim
    x, scale = ops.centre(x, config.norm, config.norm_eps, n)
    scale = frame.site(scale, f"{name}.scale", *axes[:-n], *("one",) * n, layer=layer)
    x = frame.site(ops.divide(x, scale, dtype), f"{name}.normalized", *axes, layer=layer)
    return ops.rescale(x, norm.w, norm.b, config.norm_offset)


def project(block: Block, x: Array, normalized: Array, frame: Frame, layer: int | None) -> tuple[Array, Array, Array]:
    """Queries, keys and values, `[*batch position head d_head]`."""
    config = frame.config

    def detailed(attn: Attention, w: Any, x: Array, normalized: Array, places: Places) -> Any:
        """Every head reads a residual stream of its own. What an edit changes there is added to `normalized`, so
        that edits of ln1's sites keep their effect too."""
        here = frame.at(places)
        streams = ops.repeat_heads(x, config.n_heads)
        streams = here.site(streams, "blocks.attn_in", *STREAMS, layer=layer)
        shared = ops.mean_of_groups(streams, config.n_kv_heads)
        q_input = here.site(streams, "blocks.q_input", *STREAMS, layer=layer)
        k_input = here.site(shared, "blocks.k_input", *STREAMS, layer=layer)
        v_input = here.site(shared, "blocks.v_input", *STREAMS, layer=layer)
        return ops.project_streams(attn, w, x, normalized, (q_input, k_input, v_input), config.norm, config.norm_eps)

    def fast(attn: Attention, w: Any, x: Array, normalized: Array, places: Places) -> Any:
        return ops.project(attn, normalized)

    gain = None if block.ln1 is None or config.norms == "residual" else ops.gain(block.ln1.w, config.norm_offset)
    q, k, v = detail(fast, detailed, block.attn, gain, x, normalized, frame.places)
    return (
        frame.site(q, "blocks.attn.q", *PER_HEAD, layer=layer),
        frame.site(k, "blocks.attn.k", *PER_HEAD, layer=layer),
        frame.site(v, "blocks.attn.v", *PER_HEAD, layer=layer),
    )


def run_attention(
    attn: Attention, q: Array, k: Array, v: Array, frame: Frame, layer: int | None, cache: Any
) -> tuple[Array, Any]:
    """What attention writes, `[*batch position d_model]`, and the cache with this call's keys and values in it."""
    q = normalize(attn.q_norm, q, frame, "blocks.attn.q_norm", layer, PER_HEAD)
    k = normalize(attn.k_norm, k, frame, "blocks.attn.k_norm", layer, PER_HEAD)
    if frame.rotary is not None:
        q = frame.site(ops.rotate(q, *frame.rotary), "blocks.attn.rot_q", *PER_HEAD, layer=layer)
        k = frame.site(ops.rotate(k, *frame.rotary), "blocks.attn.rot_k", *PER_HEAD, layer=layer)
    if cache is not None:
        axis, start = len(frame.batch), frame.sight.start
        start = frame.sight.first if start is None else start
        keys, values, number = cache
        keys, k = remember(keys, k, start, axis, number)
        values, v = remember(values, v, start, axis, number)
        cache = keys, values, number
    z = frame.site(look(q, k, v, frame, layer), "blocks.attn.z", *PER_HEAD, layer=layer)

    def detailed(z: Array, w: Array, b: Any, places: Places) -> Array:
        result = frame.at(places).site(ops.result(z, w), "blocks.attn.result", *STREAMS, layer=layer)
        return ops.add_heads(result, b)

    out = detail(lambda z, w, b, places: ops.affine(z, w, b, 2), detailed, z, attn.w_o, attn.b_o, frame.places)
    return out, cache


def remember(cache: Array, new: Array, start: Any, axis: int, number: Array | None) -> tuple[Array, Array]:
    """The cache with new places along an axis of this layer's part, from `start` on; and that part."""
    if number is None:
        cache = lax.dynamic_update_slice_in_dim(cache, new, start, axis)
        return cache, cache
    begin = [start if a == axis else 0 for a in range(new.ndim)]
    cache = lax.dynamic_update_slice(cache, new[None], (number, *begin))
    return cache, lax.dynamic_index_in_dim(cache, number, keepdims=False)


def look(q: Array, k: Array, v: Array, frame: Frame, layer: int | None) -> Array:
    """The mixture of values that each head looks up. Scores and pattern are whole only where they are asked for."""
    scale, cap = frame.config.score_scale, frame.config.attn_softcap

    def detailed(q: Array, k: Array, v: Array, sight: Sight, places: Places) -> Array:
        def site(x: Array, name: str) -> Array:
            return frame.at(places).site(x, f"blocks.attn.{name}", *ATTENTION, layer=layer)

        return attend_at_once(q, k, v, sight, scale, cap, site)

    def fast(q: Array, k: Array, v: Array, sight: Sight, places: Places) -> Array:
        return attend(q, k, v, sight, scale, cap)

    return detail(fast, detailed, q, k, v, frame.sight, frame.places)


def run_mlp(mlp: MLP, x: Array, frame: Frame, layer: int | None) -> Array:
    """What the MLP writes, `[*batch position d_model]`, of as much."""
    act = ops.ACTIVATIONS[frame.config.act]
    if mlp.w_gate is None:
        post = act(frame.site(ops.affine(x, mlp.w_in, mlp.b_in), "blocks.mlp.pre", *NEURONS, layer=layer))
    else:
        gate = frame.site(ops.affine(x, mlp.w_gate, mlp.b_gate), "blocks.mlp.pre", *NEURONS, layer=layer)
        linear = frame.site(ops.affine(x, mlp.w_in, mlp.b_in), "blocks.mlp.pre_linear", *NEURONS, layer=layer)
        post = act(gate) * linear
    return ops.affine(frame.site(post, "blocks.mlp.post", *NEURONS, layer=layer), mlp.w_out, mlp.b_out)
