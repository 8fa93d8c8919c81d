"""Global geometry: do the tokens of two models lie in the same directions from one another?

    relative orientation = Pearson correlation, over all pairs of tokens i < j, of cos(a_i, a_j) and cos(b_i, b_j)

Cosines do not change when a space is turned or scaled, so that models of different widths can be compared. Lee et al.
2025, "Shared global and local geometry of language model embeddings", arXiv:2503.21073.
Caveat: a few directions that all tokens share, or that tell frequent tokens from rare ones, can make it large; compare
it with that of tokens in another order, which is 0.
"""

from functools import partial

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float

from interp_jax.runs import check_counts, in_chunks


def relative_orientation(
    embeddings: Float[Typed, "token d_model"], other: Float[Typed, "token_too d_other"], *, chunk: int = 1024
) -> Float[Typed, ""]:
    """The correlation of the pairwise cosines of the same tokens in two models.

    Args:
      embeddings: `[token d_model]` of one model, such as rows of `models.weights(model)["W_E"]`.
      other: `[token d_other]` of the other model: row i is the same token.
      chunk: tokens whose cosines with all others are held at once.

    Returns:
      float32, between -1 and 1; 1 for a space that is turned and scaled. Not a number where all cosines are equal.

    Raises:
      ValueError: other numbers of tokens in the two, fewer than 3 tokens, or a chunk below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> x = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 1.0]])
      >>> turned = 5 * x @ jnp.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
      >>> round(float(geometry.relative_orientation(x, turned)), 4)
      1.0
    """
    check_counts(chunk=chunk)
    n = len(embeddings)
    if len(other) != n or n < 3:
        raise ValueError(
            f"relative_orientation: embeddings of {n} and of {len(other)} tokens; give the same tokens of both models, "
            "3 at least (shared_words finds them)"
        )
    return _orientation(embeddings, other, chunk)


@partial(jax.jit, static_argnums=2)
def _orientation(embeddings: Array, other: Array, chunk: int) -> Array:
    a, b = _directions(embeddings), _directions(other)
    mean_a, mean_b = _mean_cosine(a), _mean_cosine(b)
    tokens = jnp.arange(len(a))

    def of_token(token: Array) -> tuple[Array, Array, Array]:
        different = (tokens != token).astype(jnp.float32)
        x, y = different * (a @ a[token] - mean_a), different * (b @ b[token] - mean_b)
        return x @ y, x @ x, y @ y

    together, alone, alone_too = (parts.sum() for parts in in_chunks(of_token, tokens, chunk))
    return together / jnp.sqrt(alone * alone_too)


def _directions(embeddings: Array) -> Array:
    """Rows of length 1, in float32; a row of zeros stays one."""
    x = embeddings.astype(jnp.float32)
    norms = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norms > 0, norms, 1)


def _mean_cosine(directions: Array) -> Array:
    """The mean over pairs of different tokens, from the length of the sum: no pair need be looked at."""
    n = len(directions)
    return (jnp.sum(directions.sum(0) ** 2) - jnp.sum(directions**2)) / (n * (n - 1))
