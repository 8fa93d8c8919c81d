"""What is known of an object by its type, of a function by its code, of a module by where it is installed."""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
import dis
from enum import Enum, IntEnum
from functools import lru_cache, partial
from pathlib import Path
import random
import sys
import types
from typing import Any, NamedTuple
import weakref

import jax
import jax.core
import numpy as np

_PACKAGE = __name__.partition(".")[0]


class Lift(IntEnum):
    """What becomes an argument of a program besides the arrays of the call itself."""

    ALL = 0  # the arrays and floats that functions read, and the floats of the call
    ARRAYS = 1  # jax's arrays alone: a function that branches on a float needs its value
    NOTHING = 2  # a function that makes numbers of an array needs the array


class Readable:
    """An object of this package that holds functions: it says what it holds, and is made again of other parts."""

    def label(self) -> Hashable:
        """All else that it is."""
        return None

    def parts(self) -> Any:
        """A pytree of what it holds."""
        raise NotImplementedError

    def remade(self, parts: Any) -> Any:
        """The same, holding `parts`."""
        raise NotImplementedError


class Same:
    """Equal for one object alone, which it does not keep alive."""

    __slots__ = ("_get", "_id")

    def __init__(self, x: Any):
        self._id = id(x)
        try:
            self._get: Callable[[], Any] = weakref.ref(x)
        except TypeError:  # what cannot be held weakly is held
            self._get = lambda: x

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self._id == other._id and self._get() is other._get() is not None


_ARRAYS = {
    "tracer": jax.core.Tracer,
    "array": (jax.Array, jax.ShapeDtypeStruct),
    "numpy": (np.ndarray, np.generic),
}
_EQUAL = (int, bool, str, bytes, type(None), type(...), range)  # equal ones are the same
_KINDS: dict[str, Any] = {
    "value": (Enum, np.dtype),
    "readable": Readable,
    "function": types.FunctionType,
    "method": types.MethodType,
    "partial": partial,
    "class": type,
    "opaque": (
        types.BuiltinFunctionType,
        types.ModuleType,
        types.MethodDescriptorType,
        types.WrapperDescriptorType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        types.ClassMethodDescriptorType,
    ),
    "unseen": (random.Random, np.random.Generator, np.random.RandomState),
}
_CONTAINERS = {list: "sequence", tuple: "sequence", dict: "dict", set: "set", frozenset: "set"}
_GROUND = {_PACKAGE, "jax", "jaxlib", "numpy", *sys.stdlib_module_names}
_DATA = (dict, list, set, deque, types.SimpleNamespace, jax.custom_jvp, jax.custom_vjp)  # whatever class they are of


@lru_cache(maxsize=1024)
def kind_of(cls: type) -> str:
    """What an instance is to a `Reading`, whose method of this name reads it."""
    if cls in (float, complex):
        return "number"
    if cls in _EQUAL:
        return "value"
    if cls in _CONTAINERS:
        return _CONTAINERS[cls]
    for kind, bases in (_ARRAYS | _KINDS).items():
        if issubclass(cls, bases):
            return kind
    return "unseen" if hasattr(cls, "__next__") else "object"


def is_function_like(x: Any) -> bool:
    """Whether a pytree's node is read as the function that it is."""
    return isinstance(x, (Readable, partial))


class Names(NamedTuple):
    """What the code of a function, and of those inside it, names."""

    globals: tuple[str, ...]
    attributes: tuple[str, ...]


@lru_cache(maxsize=4096)
def names(code: types.CodeType) -> Names:
    """What a function's code names."""
    found = {i.argval: None for i in dis.get_instructions(code) if i.opname.endswith(("_GLOBAL", "_NAME"))}
    attributes = dict.fromkeys(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            found |= dict.fromkeys(names(inner).globals)
            attributes |= dict.fromkeys(names(inner).attributes)
    return Names(tuple(found), tuple(attributes))


@lru_cache(maxsize=1024)
def is_library(module: str | None) -> bool:
    """Whether a module is of an installed package, of the standard library or of this package."""
    top = (module or "").partition(".")[0]
    if top in _GROUND:
        return True
    if top == "__main__":
        return False
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


@lru_cache(maxsize=1024)
def is_itself(cls: type) -> bool:
    """Whether an instance is known by being the one that it is, not by what it holds: a lock, a compiled function."""
    return cls.__module__.partition(".")[0] in _GROUND and not issubclass(cls, _DATA)


@lru_cache(maxsize=1024)
def has_value(cls: type) -> bool:
    """Whether equal instances are the same, as a library says of a class of its own: a mesh, a path."""
    return is_library(cls.__module__) and cls.__hash__ not in (None, object.__hash__) and not issubclass(cls, _DATA)


@lru_cache(maxsize=256)
def classes_in(tree: Any) -> tuple[type, ...]:
    """The users' classes among the nodes of a pytree's structure, whose methods may be called."""
    found: dict[type, None] = {}
    todo = [tree]
    while todo:
        node = todo.pop()
        data = node.node_data()
        if data is not None and not is_library(data[0].__module__):
            found[data[0]] = None
        todo += node.children()
    return tuple(found)


def state_of(x: Any) -> dict[str, Any]:
    """What an object holds, by name."""
    slots = [name for cls in type(x).__mro__ for name in _slots(cls)]
    named = [*slots, *(f.name for f in fields(x))] if is_dataclass(x) else slots
    held = {name: getattr(x, name) for name in named if hasattr(x, name)} | getattr(x, "__dict__", {})
    if isinstance(x, dict):
        held[""] = dict(x)
    elif isinstance(x, (list, set, deque)):
        held[""] = list(x)
    return held


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    slots = (slots,) if isinstance(slots, str) else tuple(slots)
    private = cls.__name__.lstrip("_")
    return tuple(f"_{private}{name}" if name.startswith("__") and not name.endswith("__") else name for name in slots)
