"""Runs over pairs of prompts: the checks that methods over pairs share, and how many runs go at once."""

from collections.abc import Callable, Sequence
import math
from typing import Any

import chex
import jax
from jax import Array, lax
import jax.numpy as jnp

DEEP = 16  # a sweep takes more layers than this as data: compiling them one by one takes too long
SEQUENCES = 64  # that run at once where the caller says nothing


def check_pair(name: str, clean: Any, corrupted: Any) -> None:
    """Raises ValueError where clean and corrupted tokens differ in shape. `name` is the method, for the message."""
    if jnp.shape(clean) != jnp.shape(corrupted):
        raise ValueError(
            f"{name}: clean is {list(jnp.shape(clean))}, corrupted {list(jnp.shape(corrupted))}: "
            "give pairs of the same length, aligned position by position"
        )


def per_example(score: Any, examples: tuple[int, ...]) -> Array:
    """The value of a metric in float32, of the shape `examples`. Raises ValueError where it has another shape."""
    if jnp.shape(score) != examples:
        raise ValueError(
            f"the metric gave {list(jnp.shape(score))} for {list(examples)} examples: it must give one number "
            "per example (no mean over the batch, one position picked)"
        )
    return jnp.asarray(score, jnp.float32)


def check_counts(**counts: int | None) -> None:
    """Raises ValueError where an argument that counts things, given by its name, is below 1. None is let pass."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name}={count}: it must be at least 1")


def named(over: str | Sequence[str]) -> tuple[str, ...]:
    """The axes of `over`, where one name may stand for itself."""
    return (over,) if isinstance(over, str) else tuple(over)


def at_once(chunk: int | None, examples: tuple[int, ...]) -> int:
    """How many runs over a batch of examples go at once: `chunk` if it is given, else as many as have 64 sequences."""
    return chunk or max(1, SEQUENCES // max(1, math.prod(examples)))


def in_chunks(one: Callable[[Any], Any], xs: Any, chunk: int) -> Any:
    """The same as `jax.vmap(one)(xs)`, with at most `chunk` entries computed at once, so that memory is bounded.

    Args:
      one: a function of one entry.
      xs: a pytree whose leaves have one leading axis.
      chunk: how many at once, at least 1.

    Example:
      >>> import jax.numpy as jnp
      >>> in_chunks(lambda x: x * x, jnp.arange(5), chunk=2).tolist()
      [0, 1, 4, 9, 16]
    """
    leaves = jax.tree.leaves(xs)
    chex.assert_equal_shape_prefix(leaves, 1)
    n = len(leaves[0])
    n_chunks = -(-n // chunk)
    if n_chunks <= 1:
        return jax.vmap(one)(xs)
    # All chunks have one size, and the last is filled up with the last entry: another size would be a second program.
    size = -(-n // n_chunks)
    rows = jnp.minimum(jnp.arange(n_chunks * size), n - 1).reshape(n_chunks, size)
    values = lax.map(lambda some: jax.vmap(one)(jax.tree.map(lambda x: x[some], xs)), rows)
    return jax.tree.map(lambda x: x.reshape(n_chunks * size, *x.shape[2:])[:n], values)


def at_places(one: Callable[[Sequence[Array]], Array], sizes: Sequence[int], chunk: int) -> Array:
    """`one` of the indices of every place along axes of these sizes, `chunk` of them at once: `[place ...]`.

    The last axis goes fastest. Without axes there is one place.
    """
    if not sizes:
        return one(())[None]
    places = jnp.arange(math.prod(sizes))
    return in_chunks(lambda place: one(jnp.unravel_index(place, tuple(sizes))), places, chunk)
