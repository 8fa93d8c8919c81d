"""Choosing the largest of many values: by a sort, or by a search over the bits of a float where that is faster."""

from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int


def nth_largest(values: Float[Array, "*shape"], n: Int[Array, ""] | int, axis: int | None = None) -> Any:
    """The n-th largest of values of at least 0, in their dtype, exactly: of all `[]`, or along an axis, which stays.

    Floats of at least 0 have the order of their bits, so that 31 counts find it (15 in bfloat16); a sort of 2048 x 8192
    values takes eight times as long on a CPU.

    Example:
      >>> import jax.numpy as jnp
      >>> float(nth_largest(jnp.array([[3.0, 0.5], [7.0, 0.0]]), 2))
      3.0
      >>> nth_largest(jnp.array([[3.0, 0.5], [7.0, 0.0]]), 2, axis=-1).tolist()
      [[0.5], [0.0]]
    """
    low = 16 if values.dtype == jnp.bfloat16 else 0  # the bits that are always zero
    bits = lax.bitcast_convert_type(values.astype(jnp.float32), jnp.int32)
    reduced = jnp.sum(bits, axis=axis, keepdims=axis is not None)

    def step(i: Array, found: Array) -> Array:
        tried = found | (1 << (30 - i))
        count = jnp.sum(bits >= tried, axis=axis, keepdims=axis is not None, dtype=jnp.int32)
        return jnp.where(count >= n, tried, found)

    found = lax.fori_loop(0, 31 - low, step, jnp.zeros_like(reduced))
    return lax.bitcast_convert_type(found, jnp.float32).astype(values.dtype)


def are_largest(values: Float[Array, "n d"], k: Int[Array, ""] | int) -> Bool[Array, "n d"]:
    """Which are the k largest of each row of values of at least 0; of equal ones the first, and of zeros none.

    Example:
      >>> import jax.numpy as jnp
      >>> are_largest(jnp.array([[1.0, 2.0, 1.0, 0.0]]), 2).tolist()
      [[True, True, False, False]]
    """
    smallest = nth_largest(values, k, axis=-1)
    above, equal = values > smallest, (values == smallest) & (smallest > 0)
    left = k - jnp.sum(above, axis=-1, keepdims=True, dtype=jnp.int32)
    place = jnp.arange(values.shape[-1])

    def first() -> Array:
        def step(i: Array, end: Array) -> Array:
            tried = end + (1 << (n_bits - 1 - i))
            before = jnp.sum(equal & (place < tried), axis=-1, keepdims=True, dtype=jnp.int32)
            return jnp.where(before <= left, tried, end)

        n_bits = values.shape[-1].bit_length()
        return equal & (place < lax.fori_loop(0, n_bits, step, jnp.zeros_like(left)))

    tied = jnp.any(jnp.sum(equal, axis=-1, keepdims=True, dtype=jnp.int32) > left)
    return above | lax.cond(tied, first, lambda: equal)


def positive_largest(
    pre: Float[Array, "*batch d_sae"], ranks: Float[Array, "*batch d_sae"], k: int, limit: Array | None
) -> tuple[Float[Array, "*batch k"], Int[Array, "*batch k"]]:
    """The values of the k largest that are positive, else zero, in the order in which they are chosen; their indices.

    Args:
      pre: `[*batch d_sae]`.
      ranks: `[*batch d_sae]`, by which the k are chosen: `pre` itself, or what it was before norms were folded.
      k: how many.
      limit: `[]`, how many of the k are kept; None keeps all.

    Example:
      >>> import jax.numpy as jnp
      >>> pre = jnp.array([1.0, 3.0, -2.0])
      >>> [part.tolist() for part in positive_largest(pre, pre, 2, None)]
      [[3.0, 1.0], [1, 0]]
    """
    values, indices = lax.top_k(ranks, k)
    if ranks is not pre:
        values = jnp.take_along_axis(pre, indices, axis=-1)
    return jax.nn.relu(within_limit(values, limit)), indices


def within_limit(values: Float[Array, "*batch k"], limit: Array | None) -> Float[Array, "*batch k"]:
    """Values in falling order, those beyond the limit `[]` put to zero."""
    if limit is None:
        return values
    within = jnp.arange(values.shape[-1], dtype=jnp.float32) < lax.stop_gradient(limit)
    return jnp.where(within, values, jnp.zeros_like(values))


def at_indices(
    values: Float[Array, "*batch k"], indices: Int[Array, "*batch k"], d_sae: int
) -> Float[Array, "*batch d_sae"]:
    """The values at their indices, and zero elsewhere."""
    none = jnp.zeros((*values.shape[:-1], d_sae), values.dtype)
    return jnp.put_along_axis(none, indices, values, axis=-1, inplace=False)
