"""What kind of head each head is, by where it looks on texts made for the purpose.

    previous token:   mean pattern[t, t - 1]
    duplicate token:  mean of pattern[t, s] over earlier s with tokens[s] = tokens[t], summed
    induction:        the same over s with tokens[s - 1] = tokens[t]

Elhage et al. 2021, "A mathematical framework"; Olsson et al. 2022, arXiv:2209.11895; Wang et al. 2022,
arXiv:2211.00593. Scores are means over the queries that have such a place; sequences of random tokens said twice have
one for every token of their second half.
Caveat: where a head looks is not what it does: confirm by ablation.
"""

from collections.abc import Callable

import chex
from jax import Array
from jax.core import Tracer
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Bool, Float, Int

Pattern = Float[Typed, "*layer batch head query key"]
Tokens = Int[Typed, "batch position"]
Mask = Bool[Typed, "batch position"]
Scores = Float[Typed, "*layer head"]


def previous_token_scores(pattern: Pattern, tokens: Tokens, mask: Mask | None = None) -> Scores:
    """The mean attention of each head to the token before.

    Args:
      pattern: `[layer batch head query key]`, a capture of `blocks.attn.pattern`.
      tokens: int `[batch position]`.
      mask: bool `[batch position]`, False at padding.

    Returns:
      float32 `[layer head]`, between 0 and 1.

    Raises:
      ValueError: pattern, tokens and mask of different lengths; no query has such a place (where tokens or mask are
        traced, as under `jit`, that cannot be seen, and the scores are not numbers).

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import heads
      >>> pattern = jnp.eye(3, k=-1).at[0, 0].set(1.0)[None, None, None]
      >>> heads.previous_token_scores(pattern, jnp.array([[4, 5, 6]])).tolist()
      [[1.0]]
    """
    return _scores(pattern, tokens, mask, lambda tokens: jnp.eye(tokens.shape[-1], k=-1, dtype=bool)[None])


def duplicate_token_scores(pattern: Pattern, tokens: Tokens, mask: Mask | None = None) -> Scores:
    """The mean attention of each head to earlier places with the same token.

    Arguments, result and errors are those of `previous_token_scores`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import heads
      >>> pattern = jnp.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.75, 0.25, 0.0]])[None, None, None]
      >>> heads.duplicate_token_scores(pattern, jnp.array([[4, 5, 4]])).tolist()
      [[0.75]]
    """
    return _scores(pattern, tokens, mask, lambda tokens: tokens[:, :, None] == tokens[:, None, :])


def induction_scores(pattern: Pattern, tokens: Tokens, mask: Mask | None = None) -> Scores:
    """The mean attention of each head to the places after earlier ones with the same token.

    Arguments, result and errors are those of `previous_token_scores`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import heads
      >>> pattern = jnp.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.75, 0.25, 0.0]])[None, None, None]
      >>> heads.induction_scores(pattern, jnp.array([[4, 5, 4]])).tolist()
      [[0.25]]
    """

    def after_the_same(tokens: Array) -> Array:
        before = jnp.concatenate([jnp.full_like(tokens[:, :1], -1), tokens[:, :-1]], axis=1)
        return tokens[:, :, None] == before[:, None, :]

    return _scores(pattern, tokens, mask, after_the_same)


def _scores(pattern: Array, tokens: Array, mask: Array | None, looked_for: Callable[[Array], Array]) -> Array:
    n = tokens.shape[-1]
    if pattern.shape[-2:] != (n, n) or pattern.shape[-4:-3] != tokens.shape[:-1]:
        raise ValueError(f"a pattern of shape {list(pattern.shape)} does not belong to tokens of {list(tokens.shape)}")
    real = jnp.ones(tokens.shape, bool) if mask is None else mask
    chex.assert_equal_shape(
        [real, tokens], custom_message="the mask does not belong to these tokens", exception_type=ValueError
    )
    marked = jnp.where(real, tokens, -1)  # padding is nothing's equal: its queries and keys are left out below
    places = looked_for(marked) & jnp.tril(jnp.ones((n, n), bool), k=-1)
    places = places & real[:, :, None] & real[:, None, :]
    queries = places.any(-1).astype(jnp.float32).sum()
    if not isinstance(queries, Tracer) and not queries:
        raise ValueError(
            f"tokens of shape {list(tokens.shape)} have no query with such a place: no token before, or none that is "
            "repeated; score a text that has"
        )
    mass = (pattern.astype(jnp.float32) * places[:, None].astype(jnp.float32)).sum((-4, -2, -1))
    return mass / queries
