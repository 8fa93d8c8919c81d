"""What the layers of one call share: padding, positions, rotary angles and the masks of attention."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.core import detail, site
from interp_jax.models import ops
from interp_jax.models.attention import Sight
from interp_jax.models.config import Config

Array = jax.Array
Rotary = tuple[Array, Array] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Places:
    """Where the tokens of a call stand in their sequences. Each int32 `[*batch]`, or None.

    Attributes:
      offset: position of index 0 of the position and query axes; None: 0.
      key_offset: the same for the key axis; differs in a cached step.
      length: how many real tokens a sequence has so far, those of this call included; None where nothing is padding.
      prompt: how many tokens the prompt has, while a text is generated; None otherwise.
    """

    offset: Array | None = None
    key_offset: Array | None = None
    length: Array | None = None
    prompt: Array | None = None

    def site(self, x: Array, name: str, axes: tuple[str, ...], layer: int | None = None) -> Array:
        offset: Any = self.offset
        if offset is not None and "key" in axes:
            offset = {"query": self.offset, "key": self.key_offset}
        counted = not {"position", "query"}.isdisjoint(axes)
        return site(
            x,
            name,
            layer=layer,
            axes=axes,
            offset=offset if counted else None,
            length=self.length if counted else None,
            open_ended=counted and self.prompt is not None,
            marks={"prompt": self.prompt},
        )


@dataclass(frozen=True)
class Frame:
    """What the layers of one call share.

    Attributes:
      config: the model's.
      batch: `("batch",)`, or `()` for a single sequence.
      positions: int32 `[*batch position]`, the position of each token, 0 for the first real one.
      sight: which keys a query may see.
      rotary: cosine and sine of the rotary angles, float32 `[*batch position 1 rotary_dim/2]` each.
      places: where the tokens stand in their sequences.
    """

    config: Config
    batch: tuple[str, ...]
    positions: Array
    sight: Sight
    rotary: Rotary = None
    places: Places = Places()

    def at(self, places: Places) -> "Frame":
        """The frame with other places: inside `detail` arrays that are arguments and not closed over."""
        return dataclasses.replace(self, places=places)

    def nearby(self) -> "Frame":
        """The frame of a local layer, which sees the last `window` tokens, under rotary angles of its own."""
        return dataclasses.replace(self, sight=self.sight.near(self.config.window), rotary=self._local_rotary())

    def choose(self, local: Array) -> "Frame":
        """Chooses `nearby()` where `local` (bool `[]`, as a scan over layers has it), else this frame."""
        rotary = jax.tree.map(lambda a, b: jnp.where(local, a, b), self._local_rotary(), self.rotary)
        return dataclasses.replace(self, sight=self.sight.choose(local, self.config.window), rotary=rotary)

    def _local_rotary(self) -> Rotary:
        local = self.config.rope_local_theta and self.rotary is not None
        return ops.rotation(self.positions, self.config, True) if local else self.rotary

    def site(self, x: Array, name: str, *axes: str, layer: int | None = None) -> Array:
        return self.places.site(x, name, (*self.batch, *axes), layer)


def alias(x: Array, name: str, axes: tuple[str, ...], places: Places, *, layer: int | None = None) -> Array:
    """A site that is a second name of a value: on demand, so that a capture does not hold the value twice."""
    return detail(lambda x, places: x, lambda x, places: places.site(x, name, axes, layer), x, places)


def whole(config: Config, tokens: Array, attention_mask: Array | None, *, causal: bool = True) -> Frame:
    """The frame of a call without a cache."""
    batch, n = ("batch",) * (tokens.ndim - 1), tokens.shape[-1]
    index = jnp.arange(n, dtype=jnp.int32)
    if attention_mask is None:
        positions, places = jnp.broadcast_to(index, tokens.shape), Places()
    else:
        positions, offset = count(attention_mask), left_padding(attention_mask)
        places = Places(offset, offset, attention_mask.sum(axis=-1, dtype=jnp.int32))
    return Frame(config, batch, positions, Sight(attention_mask, causal=causal), rotary_of(config, positions), places)


def rotary_of(config: Config, positions: Array) -> Rotary:
    """The rotary angles of int32 positions `[*batch position]`; None in a model of learned positions."""
    return ops.rotation(positions, config) if config.positions == "rotary" else None


def count(attention_mask: Array) -> Array:
    """Positions of the real tokens, from 0; int32 `[*batch position]`."""
    return jnp.maximum(jnp.cumsum(attention_mask, axis=-1, dtype=jnp.int32) - 1, 0)


def left_padding(attention_mask: Array) -> Array:
    """Position of index 0: minus the number of padding tokens before the first real one; int32 `[*batch]`."""
    return -jnp.argmax(attention_mask, axis=-1).astype(jnp.int32)
