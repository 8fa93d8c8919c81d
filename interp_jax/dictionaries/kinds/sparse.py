"""Sparse products: encode densely, decode and differentiate through the k active features only.

    y = sum_j values_j rows[indices_j],    values_j = <x, W[:, indices_j]> + b[indices_j]

Of the six matrix products of a dense dictionary's training step only the encoder's forward one is left. The
others are loops over the k active features whose bodies gather or scatter `[batch d]`, which XLA fuses: on two
CPU cores, 2048 x 8192 x 512 with k = 32, each takes 7 to 10 ms, where a dense product takes 130 ms and one gather
of all `[batch k d]` rows takes 75 ms. After Gao et al. 2024, https://arxiv.org/abs/2406.04093, appendix D.
Caveat: custom reverse rules, so no forward-mode derivatives; a dictionary's inference form has both.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, Int


@jax.custom_vjp
def weighted_rows(
    values: Float[Array, "n k"],
    indices: Int[Array, "n k"],
    rows: Float[Array, "d_sae d"],
    bound: Int[Array, ""] | None = None,
) -> Float[Array, "n d"]:
    """The weighted sum of k rows for each example, with sparse gradients.

    Args:
      values: weight of each chosen row, `[n k]`.
      indices: which rows, `[n k]`.
      rows: the matrix they are taken from, `[d_sae d]`.
      bound: from which column on every value is zero; those columns cost nothing.

    Returns:
      `[n d]`.

    Example:
      >>> import jax.numpy as jnp
      >>> weighted_rows(jnp.array([[2.0, 1.0]]), jnp.array([[0, 2]]), jnp.eye(3)).tolist()
      [[2.0, 0.0, 1.0]]
    """

    def add(total: Array, value: Array, index: Array) -> Array:
        return total + (value[:, None] * rows[index]).astype(jnp.float32)

    # Sums in bfloat16 would lose what they add.
    return _sum(add, (values.shape[0], rows.shape[1]), values, indices, bound).astype(rows.dtype)


def scattered(
    values: Float[Array, "n k"],
    indices: Int[Array, "n k"],
    x: Float[Array, "n d"],
    d_sae: int,
    bound: Int[Array, ""] | None = None,
) -> Float[Array, "d_sae d"]:
    """The gradient of `weighted_rows` in its rows: `values[n, j] x[n]` added up at the rows `indices[n, j]`.

    Example:
      >>> import jax.numpy as jnp
      >>> scattered(jnp.array([[2.0]]), jnp.array([[1]]), jnp.array([[3.0, 4.0]]), 2).tolist()
      [[0.0, 0.0], [6.0, 8.0]]
    """

    def add(total: Array, value: Array, index: Array) -> Array:
        return total.at[index].add((value[:, None] * x).astype(jnp.float32))

    return _sum(add, (d_sae, x.shape[1]), values, indices, bound).astype(x.dtype)


def _sum(
    add: Callable[[Array, Array, Array], Array], shape: tuple[int, int], values: Array, indices: Array, bound: Any
) -> Array:
    """What `add` makes of float32 zeros, called on each column up to the bound."""
    columns = values.T, indices.T
    bound = values.shape[1] if bound is None else bound
    return lax.fori_loop(0, bound, lambda j, total: add(total, columns[0][j], columns[1][j]), jnp.zeros(shape))


@jax.custom_batching.custom_vmap
def largest(limit: Float[Array, ""]) -> Int[Array, ""]:
    """A limit as a bound: mapped by `vmap`, the largest of all, so that one loop does for all of them."""
    return limit.astype(jnp.int32)


@largest.def_vmap
def _largest_of_all(axis_size: int, in_batched: list[bool], limit: Array) -> tuple[Array, bool]:
    return largest(jnp.max(limit)), False


def _weighted_rows_fwd(values: Array, indices: Array, rows: Array, bound: Any) -> tuple[Array, tuple[Any, ...]]:
    return weighted_rows(values, indices, rows, bound), (values, indices, rows, bound)


def _weighted_rows_bwd(saved: tuple[Any, ...], g: Array) -> tuple[Any, ...]:
    values, indices, rows, bound = saved
    _, products = lax.scan(lambda c, index: (c, jnp.sum(rows[index] * g, axis=-1)), None, indices.T)
    return products.T, None, scattered(values, indices, g, rows.shape[0], bound), None


weighted_rows.defvjp(_weighted_rows_fwd, _weighted_rows_bwd)


@jax.custom_vjp
def selected(
    pre: Float[Array, "n d_sae"],
    indices: Int[Array, "n k"],
    x: Float[Array, "n d_in"],
    W_enc: Float[Array, "d_in d_sae"],
    b_enc: Float[Array, " d_sae"],
    bound: Int[Array, ""] | None = None,
) -> Float[Array, "n k"]:
    """The pre-activations of chosen features, differentiated sparsely in what they were computed from.

    Args:
      pre: `x @ W_enc + b_enc`, `[n d_sae]`, already computed; no gradient flows into it.
      indices: the chosen features, `[n k]`.
      x: `[n d_in]`.
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      bound: from which column on the gradient is zero.

    Returns:
      `pre` at `indices`, `[n k]`.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[3.0, 1.0, 2.0]])
      >>> selected(x, jnp.array([[2]]), x, jnp.eye(3), jnp.zeros(3)).tolist()
      [[2.0]]
    """
    return jnp.take_along_axis(pre, indices, axis=-1)


def _selected_fwd(
    pre: Array, indices: Array, x: Array, W_enc: Array, b_enc: Array, bound: Any
) -> tuple[Array, tuple[Any, ...]]:
    return jnp.take_along_axis(pre, indices, axis=-1), (indices, x, W_enc, b_enc, bound)


def _selected_bwd(saved: tuple[Any, ...], g: Array) -> tuple[Any, ...]:
    indices, x, W_enc, b_enc, bound = saved
    dx = weighted_rows(g, indices, W_enc.T, bound)
    dW_enc = scattered(g, indices, x, b_enc.shape[0], bound).T
    return None, None, dx, dW_enc, jnp.zeros_like(b_enc).at[indices].add(g), None


selected.defvjp(_selected_fwd, _selected_bwd)
