"""A call built again with tracers in the place of what a `Reading` found in it.

Only what has a leaf below it is made again: the functions, with new cells and globals, the partials, methods and
containers. All else is used as it is, so that what a function changes while it is traced is changed for good.
"""

from collections.abc import Sequence
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import jax

from interp_jax.core.kinds import Readable, is_function_like, kind_of
from interp_jax.core.naming import names
from interp_jax.core.reading import Reading
from interp_jax.core.record import Slot, Tree


class NotLifted(Exception):
    """A function cannot be traced with tracers in the place of what it reads."""


class Rebuilding:
    """A call made again.

    Attributes:
      call: the new call.
    """

    def __init__(self, reading: Reading, values: Sequence[Any]):
        self._reading, self._values = reading, values
        self._made: dict[int, Any] = {}
        self._globals: dict[int, _Globals] = {}  # by the id of those that they stand before
        self._cells: list[tuple[CellType, Any]] = []
        self._copies: list[tuple[Any, list[Any]]] = []
        self._grown: list[tuple[Any, Tree, list[Any]]] = []
        self._needed = _above_leaves(reading)
        self.call = self._new(0)

    def _new(self, number: int) -> Any:
        x = self._reading.nodes[number]
        if number not in self._needed:
            return x
        if number not in self._made:
            kind = "tree" if number in self._reading.trees else kind_of(type(x))
            getattr(self, f"_{kind}")(x, number)
        return self._made[number]

    def _changes(self, number: int, slot: Slot) -> bool:
        link = self._reading.links.get((number, slot))
        return link is not None and (link.leaf or link.number in self._needed)

    def _slot(self, number: int, slot: Slot, old: Any) -> Any:
        """What the new node has in a slot."""
        link = self._reading.links.get((number, slot))
        if link is None:
            return old
        return self._values[link.number] if link.leaf else self._new(link.number)

    def _tree(self, x: Any, number: int) -> None:
        tree = self._reading.trees[number]
        leaves = self._leaves(tree, number)
        self._made[number] = jax.tree.unflatten(tree.structure, leaves)
        if number:
            self._grown.append((self._made[number], tree, leaves))

    def _readable(self, x: Readable, number: int) -> None:
        self._made[number] = x.remade(self._slot(number, "parts", x.parts()))

    def _sequence(self, x: Any, number: int) -> None:
        items = [self._slot(number, i, value) for i, value in enumerate(x)]
        self._made[number] = type(x)(items)
        if isinstance(x, list):
            self._copies.append((self._made[number], _items(items)))

    def _dict(self, x: dict[Any, Any], number: int) -> None:
        made = {name: self._slot(number, i, value) for i, (name, value) in enumerate(x.items())}
        self._made[number] = made
        self._copies.append((made, _items(made)))

    def _partial(self, x: partial, number: int) -> None:
        args = [self._slot(number, i, value) for i, value in enumerate(x.args)]
        keywords = {name: self._slot(number, name, value) for name, value in x.keywords.items()}
        self._made[number] = type(x)(self._slot(number, "func", x.func), *args, **keywords)

    def _method(self, x: MethodType, number: int) -> None:
        self._made[number] = MethodType(self._slot(number, "func", x.__func__), self._slot(number, "self", x.__self__))

    def _function(self, fn: FunctionType, number: int) -> None:
        """A cell or a global that does not change stays the function's own, so that it can be written to."""
        old = fn.__closure__ or ()
        changed = [i for i in range(len(old)) if self._changes(number, ("cell", i))]
        cells = tuple(CellType() if i in changed else cell for i, cell in enumerate(old))
        before = self._globals.setdefault(id(fn.__globals__), _Globals(fn.__globals__))
        made = FunctionType(fn.__code__, before, fn.__name__, fn.__defaults__, cells)
        self._made[number] = made  # before what may lead back to it
        for name in ("__kwdefaults__", "__qualname__", "__module__", "__doc__"):
            setattr(made, name, getattr(fn, name))
        made.__dict__.update({k: self._slot(number, ("attribute", k), v) for k, v in vars(fn).items()})
        if fn.__defaults__:
            made.__defaults__ = tuple(self._slot(number, ("default", i), v) for i, v in enumerate(fn.__defaults__))
        if fn.__kwdefaults__:
            made.__kwdefaults__ = {k: self._slot(number, ("keyword", k), v) for k, v in fn.__kwdefaults__.items()}
        for i in changed:
            cells[i].cell_contents = self._slot(number, ("cell", i), None)
            self._cells.append((cells[i], cells[i].cell_contents))
        for name in names(fn.__code__).variables:
            if self._changes(number, ("global", name)):
                before.put(name, self._slot(number, ("global", name), None))

    def finish(self) -> None:
        """To be called after the new call was made: carries over what it wrote to globals.

        Raises:
          NotLifted: it changed something that was made again.
          ValueError: it changed a pytree, whose new state would be lost.
        """
        for put in self._globals.values():
            put.finish()
        for cell, value in self._cells:
            if cell.cell_contents is not value:
                raise NotLifted("it assigns to a variable that it closes over")
        for made, items in self._copies:
            now = _items(made)
            if len(now) != len(items) or any(a[1] is not b[1] for a, b in zip(now, items, strict=True)):
                raise NotLifted(f"it changes a {type(made).__name__}")
        for made, tree, leaves in self._grown:
            _check_state(made, tree.structure, leaves)

    def check_arguments(self) -> None:
        """Raises ValueError where the call changed its arguments in place."""
        tree = self._reading.trees[0]
        _, before, named_before = tree.structure.children()
        _, args, kwargs = self.call
        parts = [
            *zip(args, before.children(), strict=True),
            *zip(kwargs.values(), named_before.children(), strict=True),
        ]
        for i, (value, structure) in enumerate(parts):
            if isinstance(value, (dict, list)) and jax.tree.structure(value, is_leaf=is_function_like) != structure:
                raise ValueError(
                    f"the function changes argument {i}, a {type(value).__name__}, in place, and a transform gives it "
                    "its own: copy it first, or return what is new"
                )
        _check_state(self.call, tree.structure, self._leaves(tree, 0))

    def _leaves(self, tree: Tree, number: int) -> list[Any]:
        return [
            self._slot(number, i, leaf) if n is None else self._values[n]
            for i, (leaf, n) in enumerate(zip(tree.leaves, tree.numbers, strict=True))
        ]


class _Globals(dict[str, Any]):
    """A module's globals with others before them. It holds these and what is written; all else is looked up."""

    def __init__(self, behind: dict[str, Any]):
        super().__init__()
        self._behind, self._put = behind, dict[str, Any]()

    def __missing__(self, name: str) -> Any:
        return self._behind[name]

    def put(self, name: str, value: Any) -> None:
        self[name] = self._put[name] = value

    def finish(self) -> None:
        for name, value in self.items():
            if name not in self._put:
                self._behind[name] = value
            elif value is not self._put[name]:
                raise NotLifted(f"it assigns to the global {name!r}")


def _items(x: list[Any] | dict[Any, Any]) -> list[tuple[Any, Any]]:
    return list(x.items() if isinstance(x, dict) else enumerate(x))


def _above_leaves(reading: Reading) -> set[int]:
    """The nodes that have a leaf below them."""
    above: dict[int, list[int]] = {}
    todo = [number for number, tree in reading.trees.items() if any(n is not None for n in tree.numbers)]
    for (parent, _), link in reading.links.items():
        if link.leaf:
            todo.append(parent)
        else:
            above.setdefault(link.number, []).append(parent)
    found: set[int] = set()
    while todo:
        number = todo.pop()
        if number not in found:
            found.add(number)
            todo += above.get(number, ())
    return found


def _check_state(x: Any, structure: Any, leaves: Sequence[Any]) -> None:
    now, structure_now = jax.tree_util.tree_flatten_with_path(x, is_leaf=is_function_like)
    if structure_now != structure:
        what = "the structure of what it is given"
    else:
        changed = [path for (path, leaf), before in zip(now, leaves, strict=True) if leaf is not before]
        what = ".".join(jax.tree_util.keystr((key,), simple=True) for key in changed[0]) if changed else ""
    if what and isinstance(x, (dict, list)):  # a defaultdict, say, in which the function keeps its books
        raise NotLifted(f"it changes a {type(x).__name__}")
    if what:
        raise lost_state(what)


def lost_state(what: str) -> ValueError:
    """The refusal of a function that would change `what`."""
    return ValueError(
        f"the function changes {what} in place, and a transform keeps no state, so the change would be lost: put the "
        "model in evaluation mode (model.eval()), or let the function return its new state (flax.nnx.split)"
    )
