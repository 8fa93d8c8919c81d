"""What the layers of one call share: padding, positions and the causal mask."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.core import detail, site
from interp_jax.models.config import Config

Array = jax.Array


@dataclass(frozen=True)
class Frame:
    """What the layers of one call share.

    Attributes:
      config: the model's.
      batch: `("batch",)`, or `()` for a single sequence.
      positions: int32 `[*batch position]`, the position of each token, 0 for the first real one.
      mask: bool `[*batch or 1, 1, query, key]` (without batch: `[1 query key]`): may the query see the key.
      offset: int32 `[*batch]`, position of index 0 of the position and query axes; None: 0.
      key_offset: the same for the key axis; differs in a cached step.
      start: int32 `[]`, where in the cache the keys and values of this call go; None without a cache.
    """

    config: Config
    batch: tuple[str, ...]
    positions: Array
    mask: Array
    offset: Array | None = None
    key_offset: Array | None = None
    start: Any = None

    def at(self, offset: Array | None) -> "Frame":
        """The same with another offset: inside `detail` an array that is an argument and not closed over."""
        return dataclasses.replace(self, offset=offset)

    def site(self, x: Array, name: str, *axes: str, layer: int | None = None) -> Array:
        offset: Any = self.offset
        if offset is not None and "key" in axes:
            offset = {"query": self.offset, "key": self.key_offset}
        return site(x, name, layer=layer, axes=(*self.batch, *axes), offset=offset)


def alias(x: Array, name: str, axes: tuple[str, ...], offset: Array | None, *, layer: int | None = None) -> Array:
    """A site that is a second name of a value: on demand, so that a capture does not hold the value twice."""
    return detail(
        lambda x, offset: x, lambda x, offset: site(x, name, layer=layer, axes=axes, offset=offset), x, offset
    )


def whole(config: Config, tokens: Array, attention_mask: Array | None) -> Frame:
    """The frame of a call without a cache."""
    batch, n = ("batch",) * (tokens.ndim - 1), tokens.shape[-1]
    index = jnp.arange(n, dtype=jnp.int32)
    causal = (index[:, None] >= index)[None]
    if attention_mask is None:
        return Frame(config, batch, jnp.broadcast_to(index, tokens.shape), causal)
    offset = left_padding(attention_mask)
    mask = causal & attention_mask[..., None, None, :]
    return Frame(config, batch, count(attention_mask), mask, offset, offset)


def count(attention_mask: Array) -> Array:
    """Positions of the real tokens, from 0; int32 `[*batch position]`."""
    return jnp.maximum(jnp.cumsum(attention_mask, axis=-1, dtype=jnp.int32) - 1, 0)


def left_padding(attention_mask: Array) -> Array:
    """Position of index 0: minus the number of padding tokens before the first real one; int32 `[*batch]`."""
    return -jnp.argmax(attention_mask, axis=-1).astype(jnp.int32)
