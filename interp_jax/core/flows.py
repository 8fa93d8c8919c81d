"""What the axes of a value follow.

An axis of a value *follows* a source (an axis of an input, of a constant or of a site) if its place i depends on place
i of the source. A value *mixes* a source if it depends on other places of it, too: after a sum over the axis, or a
shift along it. What is not known of a primitive counts as mixing. An axis that follows nothing is the
same at each of its places.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

Sources = frozenset[Hashable]
NONE: Sources = frozenset()


@dataclass(frozen=True)
class Flow:
    """The sources that each axis of a value follows, and those that the value mixes."""

    axes: tuple[Sources, ...] = ()
    mixed: Sources = NONE
    known: Any = field(default=None, compare=False)  # the value itself, of a small array of integers
    columns: tuple["Flow", ...] = field(default=(), compare=False)  # of each place along a short last axis

    def __or__(self, other: "Flow") -> "Flow":
        axes = tuple(a | b for a, b in zip(self.axes, other.axes, strict=True))
        return Flow(axes, self.mixed | other.mixed)

    def all_mixed(self) -> Sources:
        return self.mixed.union(*map(plain, self.axes))

    def mixing(self, *more: Sources) -> "Flow":
        """The flow with more that it mixes, what two axes follow too: place i of one meets place j of the other."""
        each = [plain(sources) for sources in self.axes]
        several = {s for i, a in enumerate(each) for b in each[i + 1 :] for s in a & b}
        return Flow(self.axes, self.mixed.union(several, *more))

    def keeps(self, axis: int, source: Hashable) -> bool:
        """Whether each place along an axis depends on a source's same place alone, if on any."""
        others = (plain(sources) for a, sources in enumerate(self.axes) if a != axis)
        return source not in self.mixed.union(*others)


def source(shape: Sequence[int], name: Hashable) -> Flow:
    """The flow of a value that stands for itself: its axis `a` follows `(name, a)`, unless it has one place only."""
    return Flow(tuple(frozenset({(name, a)}) if n > 1 else NONE for a, n in enumerate(shape)))


SMALL = 1 << 16  # numbers of a value that is looked at itself
SHORT = 8  # places of an axis that are looked at each


def constant(value: Any, name: Hashable) -> Flow:
    """The flow of a value that is known, or of an array that no trace gives.

    An axis along which the value does not change follows nothing.
    """
    flow = source(np.shape(value), name)
    if isinstance(value, (jax.core.Tracer, jax.ShapeDtypeStruct)) or np.size(value) > SMALL:
        return flow
    if not (jnp.issubdtype(jnp.result_type(value), jnp.integer) or jnp.result_type(value) == jnp.bool_):
        return flow
    known = np.asarray(value)
    axes = [s if known.size and (known != known.take([0], a)).any() else NONE for a, s in enumerate(flow.axes)]
    short = known.ndim > 0 and known.shape[-1] <= SHORT
    columns = tuple(constant(known[..., i], (name, i)) for i in range(known.shape[-1])) if short else ()
    return Flow(tuple(axes), known=known, columns=columns)


class Torn(NamedTuple):
    """What one of several axes follows that a reshape has made of others, where it is not known how."""

    source: Hashable
    part: int


class Merged(NamedTuple):
    """What an axis follows that a reshape has made of several: of each, its size and its sources."""

    sizes: tuple[int, ...]
    parts: tuple[Sources, ...]


def plain(sources: Sources) -> Sources:
    """The sources themselves, also of axes that were merged."""
    return NONE.union(*(plain(NONE.union(*s.parts)) if isinstance(s, Merged) else {s} for s in sources))
