"""What was read of a call: a graph of nodes, whose slots hold leaves, the facts, and what has to stay alive."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
import hashlib
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from interp_jax.core import lifting
from interp_jax.core.kinds import Lift, Same, kind_of
from interp_jax.core.lifting import can_be_argument

Slot = Hashable
LONG = 64  # more numbers than this in a list are data, and no arguments each
LARGE = 1 << 16  # bytes; a program that has this much of a numpy array in it goes when the array does


class Link(NamedTuple):
    """What stands in a slot of a node."""

    leaf: bool
    number: int  # of the leaf, or of another node


class Tree(NamedTuple):
    """A pytree that was read: its structure, its leaves, and the numbers of those that are leaves of the reading."""

    structure: Any
    leaves: list[Any]
    numbers: list[int | None]


class _Open(NamedTuple):
    """An array or number in a slot of a node, or in place i of a tree, that may become a leaf."""

    value: Any
    kind: str
    node: int
    slot: Slot
    fact: int  # its place among the facts
    in_tree: bool
    anchors: list[Any]


class Record:
    """What a call was found to be made of.

    Attributes:
      lift: what may become an argument.
      leaves: what becomes one.
      lifted: how many of these are no arrays of the call itself.
      facts: all else, in the order in which it was met; equal facts and tokens, the same program.
      tokens: the arrays that are neither, which the facts leave out.
      anchors: what holds those arrays: when it dies, a program that has them is of no use.
      codes: the code of the functions that were met.
      traced: whether a tracer was met.
      unseen: whether something was met that changes unseen: an iterator, a random generator, `globals()`.
      nodes, links, trees: the call as a graph, by which it is built again.
    """

    def __init__(self, lift: Lift):
        self.lift = lift
        self.leaves: list[Any] = []
        self.lifted = 0
        self.facts: list[Hashable] = []
        self.tokens: list[Same] = []
        self.anchors: list[Any] = []
        self.codes: list[CodeType] = []
        self.traced = self.unseen = False
        self.nodes: list[Any] = []
        self.links: dict[tuple[int, Slot], Link] = {}
        self.trees: dict[int, Tree] = {}
        self._numbers: dict[int, int] = {}
        self._open: list[_Open] = []
        self._asking: dict[int, Lift] = {}  # the nodes whose code would do another thing with a tracer
        self._holders: list[Any] = []
        self._fixed = 0  # inside how many objects that cannot be built again

    @property
    def key(self) -> tuple[Hashable, ...]:
        return tuple(self.facts)

    def _node(self, x: Any) -> int:
        number = self._numbers[id(x)] = len(self.nodes)
        self.nodes.append(x)
        return number

    def _array(self, x: Any, kind: str, node: int, slot: Slot, *, in_tree: bool = False) -> None:
        """An array or number: whether it is an argument is known when everything was read."""
        self.traced |= kind == "tracer"
        self._open.append(_Open(x, kind, node, slot, len(self.facts), in_tree, self._holders[-1:]))
        self.facts.append(None)
        if self._fixed or not can_be_argument(x, kind):
            self._constant(self._open.pop())

    def _close(self) -> None:
        """Makes leaves or constants of what is open."""
        limits: dict[int, Lift] = {}
        if self._asking:
            edges = [(node, link.number) for (node, _), link in self.links.items() if not link.leaf]
            limits = lifting.limits(self.nodes, edges, self._asking)
        for x in self._open:
            limit = max(self.lift, limits.get(x.node, Lift.ALL))
            if limit is Lift.NOTHING or (limit is Lift.ARRAYS and x.kind not in ("array", "tracer")):
                self._constant(x)
                continue
            number = self._leaf(x.value)
            self.lifted += 1
            self.facts[x.fact] = x.kind
            if x.in_tree:
                self.trees[x.node].numbers[x.slot] = number  # type: ignore[index]
            else:
                self.links[x.node, x.slot] = Link(True, number)

    def _leaf(self, x: Any) -> int:
        self.leaves.append(x)
        return len(self.leaves) - 1

    def _constant(self, x: _Open) -> None:
        """An array or number that a program is traced with as it is."""
        value = x.value
        if x.kind == "number":
            self.facts[x.fact] = type(value), repr(value)
        elif x.kind == "numpy":
            self.unseen |= value.dtype.hasobject
            masked = isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).tobytes()
            content = hashlib.blake2b(np.ascontiguousarray(value).tobytes()).digest()
            self.facts[x.fact] = type(value), value.shape, value.dtype, content, masked
            self.anchors += [value] * (value.nbytes > LARGE)
        else:
            self.facts[x.fact] = x.kind
            self.tokens.append(Same(value))
            self.anchors += x.anchors

    def _itself(self, x: Any) -> None:
        self.facts.append(Same(x))
        self.anchors.append(x)

    @contextmanager
    def _as_it_is(self) -> Iterator[None]:
        self._fixed += 1
        yield
        self._fixed -= 1


def is_plain(items: Any) -> bool:
    """Whether these are plain values, which are one fact, and no arguments among them."""
    kinds = {float if cls is float and len(items) > LONG else kind_of(cls) for cls in set(map(type, items))}
    return kinds <= {"value", float}


def plain(items: Any) -> tuple[Any, ...]:
    """Plain values as a fact: equal for the same ones alone, and 0.0 is not -0.0."""
    types = tuple(map(type, items))
    return types, tuple(map(repr, items) if float in types else items)
