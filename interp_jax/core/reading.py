"""What a call reads: its arguments, and what the functions in it close over, default to and name.

A program that was traced once may run again only while all that it was traced with is as it was. A `Reading` walks a
call and splits what it meets into leaves, the arrays and floats that become arguments of the program, and facts, all
else, by which the program is remembered. Functions are seen through: a lambda built again over another array is the
same program (see `rebuilding`). What holds arrays and cannot be built again with tracers in it, as an instance of a
plain class, is read too, but its arrays are tokens: another array there is another program.

Of a module, a class or an object only what the code names is read (see `naming`): a trainer may count its steps.
What a function of an installed package names as globals is taken to stay as it is; what it closes over is read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from random import Random
import sys
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import jax

from interp_jax.core import kinds
from interp_jax.core.kinds import Lift, Readable, kind_of
from interp_jax.core.lifting import can_be_argument
from interp_jax.core.naming import DYNAMIC, MAKING, Names, changes_unseen, names
from interp_jax.core.record import Link, Record, Slot, Tree, is_plain, plain


class _Members(NamedTuple):
    """What a module, a class, an object or a function holds, to be read where it is named."""

    node: int
    held: Mapping[str, Any]
    all_of_it: bool  # whether named or not
    open: bool  # whether code that looks names up, as `getattr` does, may find it
    read: set[str]
    fixed: int
    holders: list[Any]


class Reading(Record):
    """One look at a call, which makes the record."""

    def __init__(self, call: Any, lift: Lift = Lift.ALL):
        super().__init__(lift)
        self._members: list[_Members] = []
        self._named, self._written, self._everything = set[str](), set[str](), False
        self._passed: set[int] = set()  # the modules that code passes on, to `getattr` perhaps
        with _deep():
            self._tree(call, of_call=True)
            self._read_members()
        self._close()

    def _see(self, x: Any, node: int, slot: Slot) -> None:
        """Reads what stands in a slot of a node."""
        kind = kind_of(type(x))
        if kind == "value":
            self.facts.append((type(x), x))
        elif kind in ("array", "numpy", "number", "tracer"):
            self._array(x, kind, node, slot)
        elif id(x) in self._numbers:
            self.links[node, slot] = Link(False, self._numbers[id(x)])
            self.facts.append(self._numbers[id(x)])
        else:
            getattr(self, f"_{kind}")(x)
            if id(x) in self._numbers:
                self.links[node, slot] = Link(False, self._numbers[id(x)])

    # Pytrees and containers.

    def _tree(self, x: Any, *, of_call: bool = False) -> None:
        """A pytree. The call itself is one, and its arrays are leaves whatever is lifted."""
        node = self._node(x)
        leaves, structure = jax.tree.flatten(x, is_leaf=kinds.is_function_like)
        try:
            self.facts.append(structure if hash(structure) else structure)
        except TypeError:  # a static part of it cannot be hashed
            self.unseen = True
        numbers: list[int | None] = [None] * len(leaves)
        self.trees[node] = Tree(structure, leaves, numbers)
        for i, leaf in enumerate(leaves):
            kind = kind_of(type(leaf))
            if kind not in ("array", "numpy", "tracer"):
                self._see(leaf, node, i)
            elif of_call and can_be_argument(leaf, kind):
                self.traced |= kind == "tracer"
                numbers[i] = self._leaf(leaf)
            else:
                self._array(leaf, kind, node, i, in_tree=True)
        with self._as_it_is():
            for i, part in enumerate((*kinds.classes_in(structure), *kinds.statics_in(structure))):
                self._see(part, node, ("static", i))

    def _readable(self, x: Readable) -> None:
        node = self._node(x)
        self.facts.append((type(x), x.label()))
        self._see(x.parts(), node, "parts")

    def _sequence(self, x: Any) -> None:
        if is_plain(x):
            self.facts.append((type(x), plain(x)))
            return
        node = self._node(x)
        self.facts.append((type(x), len(x)))
        for i, value in enumerate(x):
            self._see(value, node, i)

    def _dict(self, x: dict[Any, Any]) -> None:
        if is_plain(x) and is_plain(x.values()):
            self.facts.append(("dict", plain(x), plain(x.values())))
            return
        node = self._node(x)
        self.facts.append(("dict", len(x)))
        for i, (name, value) in enumerate(x.items()):
            with self._as_it_is():
                self._see(name, node, ("key", i))
            self._see(value, node, i)

    def _set(self, x: Any) -> None:
        node = self._node(x)
        if is_plain(x):
            self.facts.append((type(x), frozenset((type(value), value) for value in x)))
            return
        self.facts.append((type(x), len(x)))
        with self._as_it_is():
            for i, value in enumerate(x):
                self._see(value, node, i)

    def _slice(self, x: slice) -> None:
        self.facts.append(("slice", plain((x.start, x.stop, x.step))))
        self.unseen |= not is_plain((x.start, x.stop, x.step))

    # Functions.

    def _function(self, fn: FunctionType) -> None:
        node, code = self._node(fn), fn.__code__
        self.facts.append(id(code))
        self.codes.append(code)  # while it is held, no other has its id
        self._holders.append(fn)
        named = None if kinds.is_of_library(fn) else names(code)
        fixed = kinds.is_standard(fn.__globals__.get("__name__"))  # functools keeps what it is given
        self._fixed += fixed
        for i, (name, cell) in enumerate(zip(code.co_freevars, fn.__closure__ or (), strict=True)):
            with suppress(ValueError):  # of an empty cell
                if named is None or self._reads(named, name, cell.cell_contents):
                    self._see(cell.cell_contents, node, ("cell", i))
        for i, value in enumerate(fn.__defaults__ or ()):
            self._see(value, node, ("default", i))
        for name, value in (fn.__kwdefaults__ or {}).items():
            self._see(value, node, ("keyword", name))
        if named is not None:
            self._names(fn, named, node)
            own = {name: value for name, value in vars(fn).items() if name != "__wrapped__"}  # it closes over that
            self._hold(node, own)
        self._fixed -= fixed
        self._holders.pop()

    def _names(self, fn: FunctionType, named: Names, node: int) -> None:
        """What a user's function names."""
        self._named |= named.attributes
        self._written |= named.written
        self._everything |= named.everything
        if "__class__" in named.attributes or "type" in named.variables:
            self._named |= MAKING
        if named.lift:
            self._asking[node] = named.lift
        for name in dict.fromkeys((*named.variables, *sorted(named.written))):
            chains = named.variables.get(name, frozenset())
            if name in fn.__code__.co_freevars:
                continue
            if name not in fn.__globals__:
                self.unseen |= name in DYNAMIC
                self.facts.append((name, "a builtin, or none"))
                continue
            value = fn.__globals__[name]
            if isinstance(value, ModuleType):
                self._passed |= {id(value)} if () in chains else set()
                self.unseen |= changes_unseen(value.__name__, {part for chain in chains for part in chain})
            elif isinstance(value, type):
                self.unseen |= changes_unseen(value.__module__, {part for chain in chains for part in chain})
            if self._reads(named, name, value):
                self._see(value, node, ("global", name))
        package = fn.__globals__.get("__package__")
        for name in sorted(named.modules):
            for full in dict.fromkeys((name, f"{package}.{name}".rstrip("."), name.partition(".")[0])):
                if full in sys.modules:
                    self.unseen |= changes_unseen(full, named.attributes)
                    self._see(sys.modules[full], node, ("import", full))

    def _reads(self, named: Names, name: str, value: Any) -> bool:
        """Whether code that names a variable depends on its value."""
        self.unseen |= isinstance(getattr(value, "__self__", None), Random)  # as `from random import random`
        self._named |= MAKING if isinstance(value, type) else set()
        return name in named.variables or (name in named.written and not kinds.can_be_books(value))

    def _partial(self, x: Any) -> None:
        node = self._node(x)
        self.facts.append((type(x), len(x.args), *x.keywords))
        self._see(x.func, node, "func")
        for i, value in enumerate(x.args):
            self._see(value, node, i)
        for name, value in x.keywords.items():
            self._see(value, node, name)

    def _method(self, x: MethodType) -> None:
        node = self._node(x)
        self.facts.append("method")
        self._see(x.__func__, node, "func")
        self._see(x.__self__, node, "self")

    def _bound(self, x: Any) -> None:
        """A builtin: of a module, or bound to what it reads, as `table.get`."""
        node = self._node(x)
        self.facts.append((type(x), x.__name__))
        owner = x.__self__
        if owner is None or isinstance(owner, (ModuleType, Random)):
            self.unseen |= changes_unseen(getattr(owner, "__name__", ""), ())
            self._itself(x)
            return
        with self._as_it_is():
            self._see(owner, node, "self")

    # What is read and never built again.

    def _hold(self, node: int, held: Mapping[str, Any], *, all_of_it: bool = False, open: bool = True) -> None:
        if held:
            self._members.append(_Members(node, held, all_of_it, open, set(), self._fixed, self._holders[-1:]))

    def _read_members(self) -> None:
        """Reads what is named of modules, classes and objects, until that names nothing more."""
        progress = True
        while progress:
            progress = False
            for members in self._members:  # grows
                fixed, holders = self._fixed, self._holders
                self._fixed, self._holders = members.fixed, list(members.holders)
                all_of_it = members.all_of_it or (members.open and self._everything)
                for name, value in members.held.items():
                    if name not in members.read and self._is_named(name, value, all_of_it):
                        members.read.add(name)
                        self.facts.append((members.node, name))
                        self._see(value, members.node, ("attribute", name))
                        progress = True
                self._fixed, self._holders = fixed, holders

    def _is_named(self, name: str, value: Any, all_of_it: bool) -> bool:
        if name in self._written and name not in self._named and kinds.can_be_books(value):
            return False
        return all_of_it or name in self._named or name in self._written

    def _module(self, module: ModuleType) -> None:
        node = self._node(module)
        self.facts.append(module.__name__)
        if sys.modules.get(module.__name__) is not module or not kinds.is_library(module.__name__):
            with self._as_it_is():
                self._hold(node, vars(module), open=id(module) in self._passed)

    def _class(self, cls: type) -> None:
        """A user's class: its methods and attributes, and those of its bases."""
        node = self._node(cls)
        self._itself(cls)
        if kinds.is_library(cls.__module__):
            return
        with self._as_it_is():
            self._see(type(cls), node, "metaclass")
            for base in cls.__bases__:
                self._see(base, node, base)
            special, others = kinds.members_of(cls)
            self._hold(node, {name: value for name, value in special.items() if name not in MAKING}, all_of_it=True)
            self._hold(node, special | others, all_of_it=kinds.has_library_base(cls))

    def _enum(self, x: Any) -> None:
        node = self._node(x)
        self.facts.append(x.name)
        with self._as_it_is():
            self._see(type(x), node, "class")

    def _object(self, x: Any) -> None:
        """An instance of any other class: a pytree, what it holds, or just the one that it is."""
        cls = type(x)
        if not jax.tree_util.all_leaves((x,)) and kinds.is_its_leaves(x):
            return self._tree(x)
        node = self._node(x)
        if kinds.has_value(cls):
            with suppress(TypeError):  # says that it can be hashed, and cannot
                self.facts.append((hash(x), x))
                return None
        if kinds.is_itself(cls):
            state = {"__wrapped__": x.__wrapped__} if hasattr(x, "__wrapped__") else {}
        else:
            state = kinds.state_of(x)
        if not state and (kinds.is_itself(cls) or not hasattr(x, "__dict__")):
            self.unseen |= cls.__hash__ is None or kinds.has_value(cls)  # it holds what cannot be seen, and may change
            return self._itself(x)
        self._holders.append(x)
        with self._as_it_is():
            self._see(cls, node, "class")
            self._hold(node, state, all_of_it=kinds.has_library_base(cls))
        self._holders.pop()
        return None

    def _opaque(self, x: Any) -> None:
        self._node(x)
        self._itself(x)

    def _unseen(self, x: Any) -> None:
        self._opaque(x)
        self.unseen = True


@contextmanager
def _deep() -> Iterator[None]:
    """Lets items be linked to others for long."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
