"""What a call reads: its arguments, and what the functions in it close over, default to and name as globals.

A program that was traced once may run again only while all that it was traced with is as it was. A `Reading` walks a
call and splits what it meets into leaves, the arrays and floats that become arguments of the program, and facts, all
else, by which the program is remembered. Functions are seen through: a lambda built again over another array is the
same program (see `rebuilding`). What holds arrays and cannot be built again with tracers in it, as an instance of a
plain class, is read too, but its arrays are tokens: another array there is another program.

What a function of an installed package names as globals is taken to stay as it is; what it closes over is read.
"""

from collections.abc import Hashable, Iterable
from contextlib import contextmanager, suppress
import functools
import hashlib
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from interp_jax.core import kinds
from interp_jax.core.kinds import Lift, Readable, Same, kind_of

Slot = Hashable
Path = tuple[Any, ...]  # where in a call something stands: (path of what holds it, slot)
LONG = 64  # more numbers than this in a list are data, and no arguments each


class Link(NamedTuple):
    """What stands in a slot of a node."""

    leaf: bool
    number: int  # of the leaf, or of another node


class Tree(NamedTuple):
    """A pytree that was read: its structure, its leaves, and the numbers of those that are leaves of the reading."""

    structure: Any
    leaves: list[Any]
    numbers: list[int | None]


class Reading:
    """One look at a call.

    Attributes:
      lift: what may become an argument.
      leaves: what becomes one.
      lifted: how many of these are no arrays of the call itself.
      facts: all else, in the order in which it was met; equal facts and tokens, the same program.
      paths: where each fact was met.
      tokens: the arrays that are neither, which the facts leave out.
      anchors: what holds those arrays: when it dies, a program that has them is of no use.
      codes: the code of the functions that were met.
      traced: whether a tracer was met.
      unseen: whether something was met that changes unseen: an iterator, a random generator, `globals()`.
      nodes, links, trees: the call as a graph, by which it is built again.
    """

    def __init__(self, call: Any, lift: Lift = Lift.ALL, skip: frozenset[Path] = frozenset()):
        self.leaves: list[Any] = []
        self.lifted = 0
        self.facts: list[Hashable] = []
        self.paths: list[Path] = []
        self.tokens: list[Same] = []
        self.anchors: list[Any] = []
        self.codes: list[CodeType] = []
        self.traced = self.unseen = False
        self.nodes: list[Any] = []
        self.links: dict[tuple[int, Slot], Link] = {}
        self.trees: dict[int, Tree] = {}
        self.lift, self._skip = lift, skip
        self._numbers: dict[int, int] = {}
        self._holders: list[Any] = []
        self._fixed = 0  # inside how many objects that cannot be built again
        self._tree(call, (), of_call=True)

    @property
    def key(self) -> tuple[Hashable, ...]:
        return tuple(self.facts)

    def by_path(self) -> dict[Path, Hashable]:
        return dict(zip(self.paths, self.facts, strict=True))

    def _fact(self, path: Path, fact: Hashable) -> None:
        self.paths.append(path)
        self.facts.append(fact)

    def _node(self, x: Any) -> int:
        number = self._numbers[id(x)] = len(self.nodes)
        self.nodes.append(x)
        return number

    def _see(self, x: Any, path: Path, parent: int, slot: Slot) -> None:
        """Reads what stands in a slot of a node."""
        if self._skip and path in self._skip:
            return
        kind = kind_of(type(x))
        if kind == "value":
            self._fact(path, (type(x), x))
        elif kind in ("array", "numpy", "number", "tracer"):
            if self._lifts(kind):
                self.links[parent, slot] = Link(True, self._leaf(x, kind))
                self.lifted += 1
                self._fact(path, kind)
            else:
                self._constant(x, kind, path)
        elif id(x) in self._numbers:
            self.links[parent, slot] = Link(False, self._numbers[id(x)])
            self._fact(path, self._numbers[id(x)])
        else:
            getattr(self, f"_{kind}")(x, path)
            if id(x) in self._numbers:
                self.links[parent, slot] = Link(False, self._numbers[id(x)])

    # Arrays and numbers.

    def _lifts(self, kind: str) -> bool:
        if self._fixed or self.lift is Lift.NOTHING:
            return False
        return kind in ("array", "tracer") or self.lift is Lift.ALL

    def _leaf(self, x: Any, kind: str) -> int:
        self.traced |= kind == "tracer"
        self.leaves.append(x)
        return len(self.leaves) - 1

    def _constant(self, x: Any, kind: str, path: Path) -> None:
        """An array or number that a program is traced with as it is."""
        if kind == "number":
            self._fact(path, (type(x), repr(x)))
        elif kind == "numpy":
            self.unseen |= x.dtype.hasobject
            self._fact(path, (x.shape, x.dtype, hashlib.blake2b(np.ascontiguousarray(x).tobytes()).digest()))
        else:
            self.traced |= kind == "tracer"
            self._fact(path, kind)
            self.tokens.append(Same(x))
            self.anchors += self._holders[-1:]

    # Pytrees and containers.

    def _tree(self, x: Any, path: Path, *, of_call: bool = False) -> None:
        """A pytree. The call itself is one, and its arrays are leaves whatever is lifted."""
        parent = self._node(x)
        leaves, structure = jax.tree.flatten(x, is_leaf=kinds.is_function_like)
        try:
            self._fact(path, structure if hash(structure) else structure)
        except TypeError:  # a static part of it cannot be hashed
            self.unseen = True
        numbers: list[int | None] = []
        for i, leaf in enumerate(leaves):
            kind = kind_of(type(leaf))
            if kind in ("array", "numpy", "tracer") and (of_call or self._lifts(kind)):
                numbers.append(self._leaf(leaf, kind))
                self.lifted += not of_call
            else:
                numbers.append(None)
                self._see(leaf, (path, i), parent, i)
        self.trees[parent] = Tree(structure, leaves, numbers)
        with self._as_it_is():
            for cls in kinds.classes_in(structure):
                self._see(cls, (path, cls), parent, cls)

    def _readable(self, x: Readable, path: Path) -> None:
        parent = self._node(x)
        self._fact(path, (type(x), x.label()))
        self._see(x.parts(), (path, "parts"), parent, "parts")

    def _sequence(self, x: Any, path: Path) -> None:
        if self._is_plain(x):
            self._fact(path, (type(x), tuple(map(type, x)), tuple(x)))
            return
        parent = self._node(x)
        self._fact(path, (type(x), len(x)))
        for i, value in enumerate(x):
            self._see(value, (path, i), parent, i)

    def _dict(self, x: dict[Any, Any], path: Path) -> None:
        if self._is_plain(x) and self._is_plain(x.values()):
            self._fact(path, (tuple(map(type, x.values())), tuple(x.items())))
            return
        parent = self._node(x)
        self._fact(path, ("dict", len(x)))
        for i, (name, value) in enumerate(x.items()):
            self._see(name, (path, "key", i), parent, ("key", i))
            self._see(value, (path, "value", i), parent, i)

    def _set(self, x: Any, path: Path) -> None:
        self._node(x)
        self.unseen |= not self._is_plain(x)
        self._fact(path, (type(x), frozenset(x)))

    @staticmethod
    def _is_plain(items: Any) -> bool:
        """Whether these are plain values, which are one fact, and no arguments among them."""
        kinds = {float if cls is float and len(items) > LONG else kind_of(cls) for cls in set(map(type, items))}
        return kinds <= {"value", float}

    # Functions.

    def _function(self, fn: FunctionType, path: Path) -> None:
        parent = self._node(fn)
        self._fact(path, id(fn.__code__))
        self.codes.append(fn.__code__)  # while it is held, no other has its id
        self._holders.append(fn)
        for i, cell in enumerate(fn.__closure__ or ()):
            with suppress(ValueError):  # of an empty cell
                self._see(cell.cell_contents, (path, "cell", i), parent, ("cell", i))
        for i, value in enumerate(fn.__defaults__ or ()):
            self._see(value, (path, "default", i), parent, ("default", i))
        for name, value in (fn.__kwdefaults__ or {}).items():
            self._see(value, (path, "keyword", name), parent, ("keyword", name))
        if not kinds.is_library(fn.__globals__.get("__name__")):
            self._globals(fn, path, parent)
        self._holders.pop()

    def _globals(self, fn: FunctionType, path: Path, parent: int) -> None:
        """What a user's function names: globals, and attributes of modules and of itself."""
        named = kinds.names(fn.__code__)
        for name in named.globals:
            if name not in fn.__globals__:
                self.unseen |= name in ("globals", "eval", "exec")
                self._fact((path, name), "a builtin, or none")
                continue
            value = fn.__globals__[name]
            if isinstance(value, ModuleType):
                self._module(value, named.attributes, (path, "global", name), parent)
            else:
                self._see(value, (path, "global", name), parent, ("global", name))
        for name, value in vars(fn).items():
            if name != "__wrapped__":  # the function around it closes over it
                self._see(value, (path, "attribute", name), parent, ("attribute", name))

    def _module(self, module: ModuleType, attributes: Iterable[str], path: Path, parent: int) -> None:
        """Of a user's module, the attributes that the function's code names."""
        self._fact(path, module.__name__)
        self.unseen |= module.__name__ in ("random", "secrets", "uuid", "numpy.random")
        if kinds.is_library(module.__name__):
            self.unseen |= module is np and "random" in attributes
            return
        for name in attributes:
            value = vars(module).get(name, self)
            if isinstance(value, ModuleType):
                if value is not module:
                    self._module(value, attributes, (path, name), parent)
            elif value is not self:
                with self._as_it_is():
                    self._see(value, (path, name), parent, (module.__name__, name))

    def _partial(self, x: functools.partial, path: Path) -> None:
        parent = self._node(x)
        self._fact(path, (type(x), len(x.args), *x.keywords))
        self._see(x.func, (path, "func"), parent, "func")
        for i, value in enumerate(x.args):
            self._see(value, (path, i), parent, i)
        for name, value in x.keywords.items():
            self._see(value, (path, name), parent, name)

    def _method(self, x: MethodType, path: Path) -> None:
        parent = self._node(x)
        self._fact(path, "method")
        self._see(x.__func__, (path, "func"), parent, "func")
        self._see(x.__self__, (path, "self"), parent, "self")

    # What is read and never built again.

    @contextmanager
    def _as_it_is(self) -> Any:
        self._fixed += 1
        yield
        self._fixed -= 1

    def _class(self, cls: type, path: Path) -> None:
        """A user's class: its methods and attributes, and those of its bases."""
        parent = self._node(cls)
        self._fact(path, Same(cls))
        if kinds.is_library(cls.__module__):
            return
        with self._as_it_is():
            for name, value in vars(cls).items():
                value = getattr(value, "fget", None) or getattr(value, "__func__", value)  # properties, classmethods
                if isinstance(value, FunctionType) or not name.startswith("__"):
                    self._see(value, (path, name), parent, name)
            for base in cls.__bases__:
                self._see(base, (path, base), parent, base)

    def _object(self, x: Any, path: Path) -> None:
        """An instance of any other class: a pytree, what it holds, or just the one that it is."""
        cls = type(x)
        if not jax.tree_util.all_leaves((x,)):
            return self._tree(x, path)
        parent = self._node(x)
        if kinds.has_value(cls):
            with suppress(TypeError):  # says that it can be hashed, and cannot
                return self._fact(path, (hash(x), x))
        state = {} if kinds.is_itself(cls) else kinds.state_of(x)
        if not state and (kinds.is_itself(cls) or not hasattr(x, "__dict__")):
            return self._fact(path, Same(x))
        self._fact(path, tuple(state))
        self._holders.append(x)
        with self._as_it_is():
            for name, value in state.items():
                self._see(value, (path, name), parent, name)
            self._see(cls, (path, cls), parent, cls)
        self._holders.pop()

    def _opaque(self, x: Any, path: Path) -> None:
        self._node(x)
        self._fact(path, Same(x))

    def _unseen(self, x: Any, path: Path) -> None:
        self._opaque(x, path)
        self.unseen = True
