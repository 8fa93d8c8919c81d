"""What is captured while a text is generated: by slots of the cache, and in the end by columns of the text."""

from dataclasses import dataclass, replace
from functools import partial

import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["value"], meta_fields=["axes", "whole"])
@dataclass(frozen=True)
class Captured:
    """The values of one site, `[*layer *axes]`, whose axis of positions has a place for each slot.

    Attributes:
      value: the prompt first, then the new tokens.
      axes: names of the site's axes.
      whole: whether the site has all positions of the prompt, or only the last, as the logits do.
    """

    value: Array
    axes: tuple[str, ...]
    whole: bool

    @classmethod
    def of(cls, value: Array, axes: tuple[str, ...], n_prompt: int, n_new: int) -> "Captured":
        """The values of the pass over a prompt of `n_prompt` slots, with room for `n_new` tokens."""
        made = cls(value, axes, True)
        axis = made._axes("position", "query")[0]
        room = [(0, n_new if a == axis else 0) for a in range(value.ndim)]
        return cls(jnp.pad(value, room), axes, value.shape[axis] == n_prompt)

    def put(self, value: Array, n_prompt: int, t: Array) -> "Captured":
        """These values and that of the step from which the new token `t` is chosen."""
        (axis,) = self._axes("position", "query")
        slot = (n_prompt if self.whole else 1) + t - 1
        return replace(self, value=lax.dynamic_update_slice_in_dim(self.value, value, slot, axis))

    def columns(self, slots: Array, n_tokens: int) -> Array:
        """These values with a place for each column, given its slot, int32 `[*batch column]`; 0 at padding, slot -1.

        A site that has only the last position of the prompt gets `n_tokens` places.
        """
        value = self.value
        for axis in self._axes("key", *(("position", "query") if self.whole else ())):
            value = _taken(value, slots, axis, value.ndim - len(self.axes))
        if not self.whole:
            (axis,) = self._axes("position", "query")
            value = lax.slice_in_dim(value, 0, n_tokens, axis=axis)
        return value

    def _axes(self, *names: str) -> list[int]:
        lead = self.value.ndim - len(self.axes)
        return [lead + a for a, name in enumerate(self.axes) if name in names]


def slots_of_columns(mask: Array, n_prompt: int, n_tokens: int) -> Array:
    """The slot of each column of a text, prompts and all new tokens but the last, int32 `[*batch column]`; -1 at
    padding.

    Args:
      mask: bool `[*batch position]` of the prompts as they came; in the cache they end in slot `n_prompt - 1`.
    """
    rank = jnp.cumsum(mask, axis=-1, dtype=jnp.int32)
    prompt = jnp.where(mask, n_prompt - rank[..., -1:] + rank - 1, -1)
    new = n_prompt + jnp.arange(max(n_tokens - 1, 0), dtype=jnp.int32)
    return jnp.concatenate([prompt, jnp.broadcast_to(new, (*mask.shape[:-1], len(new)))], axis=-1)


def _taken(value: Array, slots: Array, axis: int, batch: int) -> Array:
    """`value` at the slots along an axis; `batch` is the axis of the examples, where there is one."""
    shape = [1] * value.ndim
    shape[axis] = slots.shape[-1]
    if slots.ndim == 2:
        shape[batch] = slots.shape[0]
    index = slots.reshape(shape)
    taken = jnp.take_along_axis(value, jnp.maximum(index, 0), axis=axis)
    return jnp.where(index < 0, jnp.zeros((), value.dtype), taken)
