"""What many pairs say together: mean, standard error, and a bootstrap interval of the mean.

The percentile bootstrap (Efron 1979): pairs are drawn with replacement, as many as there are, again and again.
Caveat: with fewer than some twenty pairs the interval is too narrow.
"""

from typing import NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, Key


class Summary(NamedTuple):
    """The mean over pairs, its standard error, and the two ends of its interval.

    Each is float32 and has the shape of the effects of one pair.
    """

    mean: Array
    standard_error: Array
    low: Array
    high: Array


def summarize(
    key: Key[Array, ""], effects: Float[Array, "pair *map"], *, level: float = 0.95, n_resamples: int = 1000
) -> Summary:
    """The mean of effects over pairs, with its uncertainty.

    Args:
      key: a PRNG key.
      effects: `[pair ...]`, as `activation_patch(..., over=("batch", ...))` gives.
      level: share of resampled means inside the interval.
      n_resamples: how many times the pairs are drawn.

    Raises:
      ValueError: fewer than two pairs, or a level outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import patching
      >>> found = patching.summarize(jax.random.key(0), jnp.array([1.0, 2.0, 3.0]))
      >>> found.mean.item(), bool(found.low < 2 < found.high)
      (2.0, True)
    """
    n = len(effects)
    if n < 2:
        raise ValueError(f"summarize: {n} pair has no spread: give two or more on the first axis")
    if not 0 < level < 1:
        raise ValueError(f"summarize: level={level} is not between 0 and 1")
    flat = effects.reshape(n, -1).astype(jnp.float32)
    drawn = jax.random.randint(key, (n_resamples, n), 0, n)
    counts = jax.vmap(lambda row: jnp.bincount(row, length=n))(drawn).astype(jnp.float32)
    means = counts @ flat / n
    low, high = jnp.quantile(means, jnp.array([(1 - level) / 2, (1 + level) / 2]), axis=0)
    parts = flat.mean(0), flat.std(0, ddof=1) / n**0.5, low, high
    return Summary(*(part.reshape(effects.shape[1:]) for part in parts))
