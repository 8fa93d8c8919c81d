"""Whether a value can stand in the place of another, and how it is made to."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.core.calling import within
from interp_jax.core.context import INSIDE, Context
from interp_jax.core.jaxprs import conform

Array = jax.Array


def place(values: Array, like: Array, ctx: Context) -> Array:
    """The part of `values` that belongs to this visit of a site, in the dtype of `values`.

    Args:
      values: `[*loops *like.shape]`, stacked as `capture` returns it, or anything that broadcasts to `like`.
      like: the value of the site.
      ctx: its context.

    Raises:
      ValueError: `values` neither is such a stack nor broadcasts, or is of a kind that `like` cannot hold.
    """
    check_kind(values, like, ctx)
    if ctx.index and values.ndim == like.ndim + len(ctx.index):
        if values.shape[0] == ctx.stack[0] and values.shape[0] in ctx.mapped:
            raise ValueError(
                f"site {ctx.name!r} has {ctx.stack[0]} layers under a vmap of as many: is {shape_text(values)} a value "
                f"a layer (then use per_layer) or an example ({INSIDE})?"
            )
        values = of_visit(values, ctx)
    try:
        return fill(values, like)
    except ValueError:
        raise ValueError(
            f"site {ctx.name!r} holds {shape_text(like)}; a value {shape_text(values)} does not broadcast to it"
            f"{ctx.part_seen(like)}"
        ) from None


def of_visit(values: Array, ctx: Context) -> Array:
    """The part of a stack `[*loops ...]` that belongs to this visit. Raises ValueError where it is another's stack."""
    got = values.shape[: len(ctx.stack)]
    if got != ctx.stack:
        raise ValueError(
            f"site {ctx.name!r} stands in {_loops_text(ctx.stack)}, but a value {shape_text(values)} is a stack of "
            f"{_loops_text(got)}{': ' + INSIDE if ctx.mapped else ''}"
        )
    return at_index(values, ctx.index)


def _loops_text(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) + " layers"


def check_kind(values: Array, like: Array, ctx: Context) -> None:
    """Raises ValueError where the dtype of `like` cannot hold `values`: a float where integers are, or 300 in int8.

    How large values are is looked at where they are known, or are an argument of the call as they are.
    """
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    new, old = ([jnp.issubdtype(x.dtype, kind) for kind in kinds] for x in (values, like))
    if any(new) and any(old) and new.index(True) > old.index(True):
        raise ValueError(
            f"site {ctx.name!r} holds {shape_text(like)}, which {values.dtype} does not fit: it would be rounded; "
            "edit a site of floats, or round it yourself"
        )
    if all(jnp.issubdtype(x.dtype, jnp.integer) for x in (values, like)):
        held, given = jnp.iinfo(like.dtype), jnp.iinfo(values.dtype)
        if given.min < held.min or given.max > held.max:
            allowed = range(int(held.min), int(held.max) + 1)
            within(values, allowed, f"site {ctx.name!r} holds {shape_text(like)}: a value")


def fill(values: Array, like: Array) -> Array:
    """`values` broadcast to the shape of `like`, and in its place on a mesh."""
    return conform(jnp.broadcast_to(values, like.shape), like)


def at_index(values: Array, index: Sequence[int | Array]) -> Array:
    """`values[i, j, ...]` for static or traced indices, without bounds arithmetic."""
    for i in index:
        values = jax.lax.dynamic_index_in_dim(values, i, 0, keepdims=False)
    return values


def check(new: Any, old: Array, name: str) -> Array:
    """The result of an edit, which must look like the value of the site. Raises ValueError otherwise."""
    if not hasattr(new, "shape") or not hasattr(new, "dtype"):
        raise ValueError(f"the edit of site {name!r} returned {type(new).__name__}, not an array {shape_text(old)}")
    if new.shape != old.shape or new.dtype != old.dtype:
        raise ValueError(
            f"the edit of site {name!r} returned {shape_text(new)}, but the site holds {shape_text(old)}: "
            f"return the same shape and dtype (cast with .astype(x.dtype))"
        )
    return conform(new, old)


def shape_text(x: Any) -> str:
    """Dtype and shape as text, such as `float32[8,3,4]`."""
    return f"{x.dtype}[{','.join(str(n) for n in x.shape)}]"
