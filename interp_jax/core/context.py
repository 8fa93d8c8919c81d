"""What an intervention is told of the value that it edits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
import functools
import operator

import jax
import jax.numpy as jnp

from interp_jax.core.jaxprs import is_shard

Array = jax.Array
COUNTED = ("position", "query", "key")  # axes whose places are positions in a sequence
INSIDE = "to give each its own, put intervene inside the vmap"


@dataclass(frozen=True)
class Context:
    """What a library intervention is told about the value that it edits.

    Attributes:
      name: canonical name of the site.
      layer: layer of this value: an int where it is known when tracing, an int32 `[]` inside a scan, None where
        the site has no layers.
      axes: names of the trailing axes, or None.
      offsets: axis -> int32 `[]` or `[batch]`, the position of index 0 along it; an axis that is not there begins at 0.
      length: int32 `[]` or `[batch]`, how many real tokens the sequences have so far; None: nothing is padding.
      open_ended: whether the sequences go on beyond this value, as in a cached step.
      marks: what else the site says of the call, int32 `[]` or `[batch]` each.
      index: one index per loop around the site, outermost first: the place of this value in a captured stack.
      stack: the sizes of these axes of the stack.
      layers: the numbers of the site's layers.
      mapped: the sizes of the vmaps around the value, which has none of these axes.
      reads: values of other sites, by address, for `via`.
      numbered: what `numbers` gives, by axis, where it is known already.
    """

    name: str
    layer: int | Array | None = None
    axes: tuple[str, ...] | None = None
    offsets: Mapping[str, Array] = field(default_factory=dict)
    length: Array | None = None
    open_ended: bool = False
    marks: Mapping[str, Array] = field(default_factory=dict)
    index: tuple[int | Array, ...] = ()
    stack: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    mapped: tuple[int, ...] = ()
    reads: Mapping[str, Array] = field(default_factory=dict)
    numbered: Mapping[str, Array] = field(default_factory=dict)

    def axis(self, name: str) -> int:
        """The negative index of the axis called `name`. Raises ValueError where the site has none."""
        if name not in (self.axes or ()):
            known = ", ".join(self.axes) if self.axes else "none of its axes is named: use axis= and index="
            raise ValueError(f"site {self.name!r} has no axis {name!r}; its axes: {known}")
        axes = self.axes or ()
        return axes.index(name) - len(axes)

    def numbers(self, name: str, size: int) -> Array:
        """The number by which each place along an axis goes, int32 `[size]` or `[batch size]`; -1 where nothing real
        stands: at padding, and beyond what has been read of a text that is generated."""
        if name in self.numbered:
            return self.numbered[name]
        places = jnp.arange(size)
        if name not in COUNTED:
            return places
        if (offset := self.offset(name)) is not None:
            places = places + offset[..., None]
        real = places >= 0 if self.length is None else (places >= 0) & (places < self.length[..., None])
        return jnp.where(real, places, -1)

    def real(self, value: Array) -> Array | None:
        """Where a value is real, bool, broadcastable to it; None: everywhere. An edit leaves the other places."""
        if not self.offsets and self.length is None:
            return None
        counted = [name for name in COUNTED if name in (self.axes or ())]
        real = [self.spread(self.numbers(n, value.shape[self.axis(n)]) >= 0, n, value) for n in counted]
        return functools.reduce(operator.and_, real) if real else None

    def offset(self, name: str) -> Array | None:
        """The position of index 0 along an axis of `COUNTED`; None means 0."""
        return self.offsets.get(name, next(iter(self.offsets.values()), None))

    def end(self, name: str, size: int) -> int | Array | None:
        """How many numbers an axis has, from which negative ones count: an int, or int32 `[]` or `[batch]`; None where
        the sequence goes on beyond it."""
        if name not in COUNTED:
            return size
        if self.open_ended:
            return None
        return size if self.length is None else self.length

    def spread(self, values: Array, name: str, like: Array) -> Array:
        """`[size]` or `[batch size]`, along an axis, on the axes of `like`. Raises ValueError where they do not fit."""
        shape = [1] * like.ndim
        shape[self.axis(name)] = values.shape[-1]
        if values.ndim == 2:
            shape[self.axis("batch")] = values.shape[0]
        if values.ndim > 2 or any(n not in (1, size) for n, size in zip(shape, like.shape, strict=True)):
            raise ValueError(
                f"at: site {self.name!r} has shape {like.shape} with axes {self.axes}; "
                f"a choice of {name} of shape {values.shape} does not fit: give one per example, [batch]"
                f"{self.part_seen(like)}"
            )
        return values.reshape(shape)

    def part_seen(self, value: Array) -> str:
        """What an edit sees of a value, said where that is not all of it."""
        shard = " (inside shard_map an edit sees one shard)" if is_shard(value) else ""
        return f" (under vmap an edit sees one example: {INSIDE})" if self.mapped else shard
