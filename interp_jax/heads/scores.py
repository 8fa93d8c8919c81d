"""What kind of head each head is, by where it looks on texts made for the purpose.

    previous token:   mean pattern[t, t - 1]
    duplicate token:  mean of pattern[t, s] over earlier s with tokens[s] = tokens[t], summed
    induction:        the same over s with tokens[s - 1] = tokens[t]

Elhage et al. 2021, "A mathematical framework"; Olsson et al. 2022, arXiv:2209.11895; Wang et al. 2022,
arXiv:2211.00593. Scores are means over the queries that have such a place; sequences of random tokens said twice have
one for every token of their second half.
Caveat: where a head looks is not what it does: confirm by ablation.
"""

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
    return _scores("previous", pattern, tokens, mask)


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
    return _scores("duplicate", pattern, tokens, mask)


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

    return _scores("induction", pattern, tokens, mask)


def places(kind: str, tokens: Int[Typed, "batch position"], real: Mask) -> Bool[Typed, "batch query key"]:
    """Where a head of a kind would look: whether a query looks at a key.

    Args:
      kind: "self", "previous", "duplicate" or "induction".
      tokens: int `[batch position]`.
      real: bool `[batch position]`; the others are neither queries nor keys, and nothing's equal.
    """
    n = tokens.shape[-1]
    marked = jnp.where(real, tokens, -1)  # what is not real is nothing's equal; its queries and keys are left out below
    earlier = jnp.tril(jnp.ones((n, n), bool), k=-1)
    before = jnp.concatenate([jnp.full_like(marked[:, :1], -1), marked[:, :-1]], axis=1)
    looked_for = {
        "self": lambda: jnp.eye(n, dtype=bool)[None],
        "previous": lambda: jnp.eye(n, k=-1, dtype=bool)[None],
        "duplicate": lambda: (marked[:, :, None] == marked[:, None, :]) & earlier,
        "induction": lambda: (marked[:, :, None] == before[:, None, :]) & earlier,
    }[kind]
    return looked_for() & real[:, :, None] & real[:, None, :]


def mass(pattern: Float[Typed, "*layer batch head query key"], there: Bool[Typed, "batch query key"]) -> Scores:
    """The attention of each head to places, summed over all queries, in float32."""
    return (pattern.astype(jnp.float32) * there[:, None].astype(jnp.float32)).sum((-4, -2, -1))


def number_of_queries(there: Bool[Typed, "batch query key"]) -> Float[Typed, ""]:
    """How many queries have such a place."""
    return there.any(-1).astype(jnp.float32).sum()


def _scores(kind: str, pattern: Array, tokens: Array, mask: Array | None) -> Array:
    n = tokens.shape[-1]
    if pattern.shape[-2:] != (n, n) or pattern.shape[-4:-3] != tokens.shape[:-1]:
        raise ValueError(f"a pattern of shape {list(pattern.shape)} does not belong to tokens of {list(tokens.shape)}")
    real = jnp.ones(tokens.shape, bool) if mask is None else mask
    chex.assert_equal_shape(
        [real, tokens], custom_message="the mask does not belong to these tokens", exception_type=ValueError
    )
    there = places(kind, tokens, real)
    queries = number_of_queries(there)
    if not isinstance(queries, Tracer) and not queries:
        raise ValueError(
            f"tokens of shape {list(tokens.shape)} have no query with such a place: no token before, or none that is "
            "repeated; score a text that has"
        )
    return mass(pattern, there) / queries
