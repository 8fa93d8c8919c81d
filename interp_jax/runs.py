"""Runs over pairs of prompts: what every method that compares them asks of its arguments, and how many run at once."""

from collections.abc import Callable
import math
from typing import Any

import chex
import jax
from jax import Array, lax
import jax.numpy as jnp

SEQUENCES = 64  # how many run at once where the caller says nothing


def check_pair(name: str, clean: Any, corrupted: Any) -> None:
    """Raises ValueError where the two are not of one shape."""
    if jnp.shape(clean) != jnp.shape(corrupted):
        raise ValueError(
            f"{name}: clean is {list(jnp.shape(clean))}, corrupted {list(jnp.shape(corrupted))}: "
            "give pairs of the same length, aligned position by position"
        )


def per_example(score: Any, examples: tuple[int, ...]) -> Array:
    """A metric's value in float32. Raises ValueError where it is not one number per example."""
    if jnp.shape(score) != examples:
        raise ValueError(
            f"the metric gave {list(jnp.shape(score))} for {list(examples)} examples: it must give one number "
            "per example (no mean over the batch, one position picked)"
        )
    return jnp.asarray(score, jnp.float32)


def check_counts(**counts: int | None) -> None:
    """Raises ValueError where a number of things, given by the name of its argument, is below 1."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name}={count}: it must be at least 1")


def at_once(chunk: int | None, examples: tuple[int, ...]) -> int:
    """How many runs over a batch of examples go at once: `chunk`, or so many that 64 sequences do."""
    return chunk or max(1, SEQUENCES // max(1, math.prod(examples)))


def in_chunks(one: Callable[[Any], Any], xs: Any, chunk: int) -> Any:
    """`jax.vmap(one)(xs)`, of which at most `chunk` are computed at once.

    Args:
      one: a function of one entry.
      xs: a pytree whose leaves have one leading axis.
      chunk: how many at once, at least 1.
    """
    leaves = jax.tree.leaves(xs)
    chex.assert_equal_shape_prefix(leaves, 1)
    n = len(leaves[0])
    n_chunks = -(-n // chunk)
    if n_chunks <= 1:
        return jax.vmap(one)(xs)
    size = -(-n // n_chunks)  # chunks of one size, the last filled up: what is left over would be a second program
    rows = jnp.minimum(jnp.arange(n_chunks * size), n - 1).reshape(n_chunks, size)
    values = lax.map(lambda some: jax.vmap(one)(jax.tree.map(lambda x: x[some], xs)), rows)
    return jax.tree.map(lambda x: x.reshape(n_chunks * size, *x.shape[2:])[:n], values)
