"""Local geometry: the neighbours of each token, how it is made of them, and how many dimensions they fill.

    locally linear embedding:  w_i = argmin |x_i - sum_j w_ij x_j|^2 over neighbours j of i, with sum_j w_ij = 1
    intrinsic dimension:       principal components that hold 95 % of the variance of the neighbours of i

Roweis and Saul 2000, Science 290:2323, for the weights; Lee et al. 2025, "Shared global and local geometry of language
model embeddings", arXiv:2503.21073, who compare the weights of a token in two models by their cosine.
Caveat: weights over the same neighbours are all near 1 / k, so that their cosine is large by chance: print it beside
that of tokens in another order. An intrinsic dimension grows with k and is at most k - 1.
"""

from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float, Int

from interp_jax.runs import check_counts, in_chunks

Embeddings = Float[Typed, "token d_model"]
Neighbours = Int[Typed, "chosen k"]


def nearest_neighbours(
    embeddings: Embeddings, k: int, *, of: Int[Typed, " chosen"] | None = None, chunk: int = 256
) -> Int[Typed, "chosen k"]:
    """The `k` tokens nearest to each, by Euclidean distance, the nearest first; a token is no neighbour of its own.

    Args:
      embeddings: `[token d_model]`. Give rows of length 1 to go by the cosine.
      k: how many neighbours.
      of: int `[chosen]`, the tokens whose neighbours are wanted; by default all of them.
      chunk: tokens whose distances to all others are held at once.

    Returns:
      int32 `[chosen k]`, rows of `embeddings`.

    Raises:
      ValueError: a `k` that is not between 1 and the number of other tokens, or a chunk below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> geometry.nearest_neighbours(jnp.array([[0.0], [1.0], [3.0]]), 1).tolist()
      [[1], [0], [1]]
    """
    check_counts(chunk=chunk)
    n = len(embeddings)
    if not 1 <= k < n:
        raise ValueError(
            f"nearest_neighbours: k={k} neighbours of {n} tokens; a token has {max(n - 1, 0)} others: choose a k "
            "from 1 to that, or give more tokens"
        )
    return _nearest(embeddings, jnp.arange(n) if of is None else of, k, chunk)


@partial(jax.jit, static_argnums=(2, 3))
def _nearest(embeddings: Array, tokens: Array, k: int, chunk: int) -> Array:
    x = embeddings.astype(jnp.float32)
    x = x - x.mean(0)  # distances stay, and their float32 sums lose less
    squares = (x**2).sum(-1)

    def of_token(token: Array) -> Array:
        further = squares - 2 * (x @ x[token])  # the squared distance, less what is the same for all
        return lax.top_k(-further.at[token].set(jnp.inf), k)[1]

    return in_chunks(of_token, tokens, chunk).astype(jnp.int32)


def lle_weights(
    embeddings: Embeddings,
    neighbours: Neighbours,
    *,
    of: Int[Typed, " chosen"] | None = None,
    regularization: float = 1e-3,
    chunk: int = 256,
) -> Float[Typed, "chosen k"]:
    """The weights of locally linear embedding: of which mixture of its neighbours a token is most nearly made.

    Args:
      embeddings: `[token d_model]`.
      neighbours: int `[chosen k]`, from `nearest_neighbours`, of these embeddings or of another model's.
      of: int `[chosen]`, the tokens whose neighbours these are; by default all tokens in their order.
      regularization: added to the diagonal of the neighbours' inner products, as a share of their trace, as
        scikit-learn does: with more neighbours than dimensions there would be no single answer.
      chunk: tokens that are solved at once.

    Returns:
      float32 `[chosen k]`, each row adding up to 1.

    Raises:
      ValueError: rows of neighbours that are not one for each token; a regularization that is not above 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> x = jnp.array([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0]])
      >>> weights = geometry.lle_weights(x, jnp.array([[0, 2]]), of=jnp.array([1]), regularization=1e-6)
      >>> (100 * weights).round().astype(int).tolist()
      [[75, 25]]
    """
    check_counts(chunk=chunk)
    if regularization <= 0:
        raise ValueError(f"lle_weights: regularization={regularization} must be above 0, such as 1e-3")
    tokens = jnp.arange(len(embeddings)) if of is None else of
    if len(tokens) != len(neighbours):
        raise ValueError(
            f"lle_weights: neighbours of {len(neighbours)} tokens for {len(tokens)}: give of=, the tokens whose "
            "neighbours these are"
        )
    return _weights(embeddings, tokens, neighbours, regularization, chunk)


@partial(jax.jit, static_argnums=4)
def _weights(embeddings: Array, tokens: Array, neighbours: Array, regularization: Any, chunk: int) -> Array:
    x = embeddings.astype(jnp.float32)
    k = neighbours.shape[-1]

    def of_token(pair: tuple[Array, Array]) -> Array:
        token, near = pair
        away = x[near] - x[token]
        products = away @ away.T
        trace = jnp.trace(products)
        products = products + jnp.eye(k) * jnp.where(trace > 0, regularization * trace, regularization)
        weights = jax.scipy.linalg.solve(products, jnp.ones(k), assume_a="pos")
        return weights / weights.sum()

    return in_chunks(of_token, (tokens, neighbours), chunk)


def lle_similarity(
    neighbours: Neighbours,
    weights: Float[Typed, "chosen k"],
    other_neighbours: Int[Typed, "chosen k_other"],
    other_weights: Float[Typed, "chosen k_other"],
) -> Float[Typed, " chosen"]:
    """The cosine of the weights of each token in two models, each a vector over all tokens that is 0 elsewhere.

    With the same neighbours in both it compares the weights alone; with each model's own it also asks whether the
    neighbours are the same.

    Args:
      neighbours, weights: `[chosen k]` of one model, from `nearest_neighbours` and `lle_weights`.
      other_neighbours, other_weights: `[chosen k_other]` of the other one, for the same tokens.

    Returns:
      float32 `[chosen]`, between -1 and 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> near, weights = jnp.array([[3, 5]]), jnp.array([[0.6, 0.8]])
      >>> round(float(geometry.lle_similarity(near, weights, near[:, ::-1], weights[:, ::-1])[0]), 3)
      1.0
      >>> round(float(geometry.lle_similarity(near, weights, jnp.array([[5, 7]]), jnp.array([[1.0, 0.0]]))[0]), 3)
      0.8
    """
    a, b = weights.astype(jnp.float32), other_weights.astype(jnp.float32)
    same = (neighbours[:, :, None] == other_neighbours[:, None, :]).astype(jnp.float32)
    return jnp.einsum("tk,tkl,tl->t", a, same, b) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))


def intrinsic_dimension(
    embeddings: Embeddings, neighbours: Neighbours, *, share: float = 0.95, chunk: int = 16
) -> Int[Typed, " chosen"]:
    """How many principal components hold a share of the variance of each token's neighbours.

    Args:
      embeddings: `[token d_model]`.
      neighbours: int `[chosen k]`, from `nearest_neighbours`.
      share: of the variance, between 0 and 1.
      chunk: tokens whose components are found at once.

    Returns:
      int32 `[chosen]`; 0 where all neighbours are the same point.

    Raises:
      ValueError: a share that is not between 0 and 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> plane = jax.random.normal(jax.random.key(0), (50, 2)) @ jax.random.normal(jax.random.key(1), (2, 9))
      >>> geometry.intrinsic_dimension(plane, geometry.nearest_neighbours(plane, 20), share=0.999)[:4].tolist()
      [2, 2, 2, 2]
    """
    check_counts(chunk=chunk)
    if not 0 < share < 1:
        raise ValueError(f"intrinsic_dimension: share={share} must lie between 0 and 1, such as 0.95")
    return _dimension(embeddings, neighbours, share, chunk)


@partial(jax.jit, static_argnums=3)
def _dimension(embeddings: Array, neighbours: Array, share: Any, chunk: int) -> Array:
    x = embeddings.astype(jnp.float32)

    def of_neighbours(near: Array) -> Array:
        around = x[near] - x[near].mean(0)
        smaller = around.T @ around if around.shape[0] > around.shape[1] else around @ around.T
        variances = jnp.maximum(jnp.linalg.eigvalsh(smaller)[::-1], 0)
        total = variances.sum()
        held = jnp.cumsum(variances) / jnp.where(total > 0, total, 1)
        return jnp.where(total > 0, (held <= share).sum() + 1, 0)

    return in_chunks(of_neighbours, neighbours, chunk).astype(jnp.int32)
