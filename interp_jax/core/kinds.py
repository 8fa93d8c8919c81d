"""What is known of an object by its type, and of a type by where it comes from."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum, IntEnum
from functools import lru_cache, partial
import logging
from pathlib import Path
import random
import sys
import sysconfig
import types
from typing import Any, TypeVar
import weakref

import jax
import jax.core
import numpy as np

_T = TypeVar("_T")
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
    "numpy": np.ndarray,
}
_EQUAL = (int, bool, str, bytes, type(None), type(...), range)  # equal ones are the same
_KINDS: dict[str, Any] = {
    "number": np.generic,
    "value": np.dtype,
    "enum": Enum,
    "slice": slice,
    "readable": Readable,
    "function": types.FunctionType,
    "method": types.MethodType,
    "partial": partial,
    "class": type,
    "module": types.ModuleType,
    "bound": (types.BuiltinFunctionType, types.MethodWrapperType),
    "opaque": (
        types.MethodDescriptorType,
        types.WrapperDescriptorType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        types.ClassMethodDescriptorType,
        logging.Logger,
        logging.Handler,
    ),
    "unseen": (random.Random, np.random.Generator, np.random.RandomState),
}
_CONTAINERS = {list: "sequence", tuple: "sequence", dict: "dict", set: "set", frozenset: "set"}
_BOOKS = {*_EQUAL, *_CONTAINERS, float, deque, Counter, OrderedDict, defaultdict}
_BASES: tuple[Any, ...] = (int, float, complex, str, bytes, tuple, frozenset, list, dict, set, deque)


def _of_class(fn: Callable[[type], _T]) -> Callable[[type], _T]:
    """Remembers what is known of a class, and keeps no class of a user's alive."""
    of_libraries: dict[type, _T] = {}
    of_users: weakref.WeakKeyDictionary[type, _T] = weakref.WeakKeyDictionary()

    def known(cls: type) -> _T:
        found = of_libraries.get(cls)
        if found is None:
            found = of_users.get(cls)
        if found is None:
            found = fn(cls)
            (of_libraries if is_library(cls.__module__) else of_users)[cls] = found
        return found

    return known


@_of_class
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


def can_be_books(x: Any) -> bool:
    """Whether writing to an object changes nothing but what it holds: a number or a plain container."""
    return type(x) in _BOOKS


def is_function_like(x: Any) -> bool:
    """Whether a pytree's node is read as the function that it is."""
    return isinstance(x, (Readable, partial))


# Where a class or a function comes from.


@lru_cache(maxsize=1024)
def is_library(module: str | None) -> bool:
    """Whether a module is of an installed package, of the standard library or of this package."""
    top = (module or "").partition(".")[0]
    return top == _PACKAGE or _is_installed(top) or is_standard(top)


@lru_cache(maxsize=1024)
def _is_installed(top: str) -> bool:
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


@lru_cache(maxsize=1024)
def is_standard(module: str | None) -> bool:
    """Whether a module is of the standard library, by its file: a user may call a module `token`."""
    top = (module or "").partition(".")[0]
    if top not in sys.stdlib_module_names or _is_installed(top):
        return False
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is None or Path(file).is_relative_to(sysconfig.get_path("stdlib"))


def is_of_library(fn: types.FunctionType) -> bool:
    """Whether a function is of a library, or the check of types that beartype writes around a user's."""
    return is_library(fn.__globals__.get("__name__")) or fn.__code__.co_filename.startswith("<@beartype")


@_of_class
def is_itself(cls: type) -> bool:
    """Whether an instance is known by being the one that it is, not by what it holds: a compiled function."""
    return cls.__module__.partition(".")[0] in (_PACKAGE, "jax", "jaxlib", "numpy") and (
        cls not in (jax.custom_jvp, jax.custom_vjp)
    )


@_of_class
def has_value(cls: type) -> bool:
    """Whether equal instances are the same, as a library says of a class of its own: a mesh, a path, a date."""
    return (
        is_library(cls.__module__)
        and cls.__hash__ not in (None, object.__hash__)
        and not issubclass(cls, (list, dict, set, deque, types.SimpleNamespace))
    )


@_of_class
def has_library_base(cls: type) -> bool:
    """Whether code that is not the user's may read any attribute of an instance."""
    return any(is_library(base.__module__) for base in cls.__mro__ if base is not object)


# What an object holds.


def state_of(x: Any) -> dict[str, Any]:
    """What an object holds, by name; "" is what it is as an instance of a number, a string or a container."""
    slots = [name for cls in type(x).__mro__ for name in _slots(cls)]
    named = [*slots, *(f.name for f in fields(x))] if is_dataclass(x) else slots
    held = {name: getattr(x, name) for name in named if hasattr(x, name)} | getattr(x, "__dict__", {})
    for base in _BASES:
        if isinstance(x, base):
            held[""] = list(x) if base is deque else base(x)  # type: ignore[arg-type]
            break
    return held


def members_of(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """The members of a class that Python itself calls, and the others, with the functions of properties and the like.

    What dataclasses writes is one of the others: it is read where it is named.
    """
    special, others = {}, {}
    for name, member in vars(cls).items():
        member = getattr(member, "fget", None) or getattr(member, "__func__", member)
        is_dunder, is_function = name.startswith("__") and name.endswith("__"), isinstance(member, types.FunctionType)
        if not is_dunder or (is_function and member.__code__.co_filename == "<string>"):
            others[name] = member
        elif kind_of(type(member)) not in ("class", "opaque") and (callable(member) or hasattr(member, "__get__")):
            special[name] = member
    return special, others


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    slots = (slots,) if isinstance(slots, str) else tuple(slots)
    private = cls.__name__.lstrip("_")
    return tuple(f"_{private}{name}" if name.startswith("__") and not name.endswith("__") else name for name in slots)


# What a pytree is beside its leaves.


def is_its_leaves(x: Any) -> bool:
    """Whether a pytree loses nothing when it is taken apart: a user's node may hold what it does not give away."""
    children, structure = jax.tree.flatten(x, is_leaf=lambda y: y is not x)
    cls = type(x)
    if not is_library(cls.__module__) and not has_library_base(cls):
        twin = state_of(jax.tree.unflatten(structure, children))
        if not _alike(state_of(x), twin):
            return False
    return all(is_its_leaves(child) for child in children if not jax.tree_util.all_leaves((child,)))


def _alike(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_alike, a, b))
    return kind_of(type(a)) == "value" and a == b


@lru_cache(maxsize=256)
def classes_in(tree: Any) -> tuple[type, ...]:
    """The users' classes among the nodes of a pytree's structure, whose methods may be called."""
    found = (data[0] for data in _node_data(tree) if not is_library(data[0].__module__))
    return tuple(dict.fromkeys(found))


def statics_in(tree: Any) -> list[Any]:
    """The static parts of a pytree's structure that are more than values: functions, say."""
    return [data[1] for data in _node_data(tree)] if _has_statics(tree) else []


@lru_cache(maxsize=256)
def _has_statics(tree: Any) -> bool:
    return not all(_is_plain(data[1]) for data in _node_data(tree))


def _is_plain(x: Any) -> bool:
    if isinstance(x, (tuple, list)):
        return all(map(_is_plain, x))
    return kind_of(type(x)) in ("value", "number") or (isinstance(x, type) and is_library(x.__module__))


def _node_data(tree: Any) -> Iterator[tuple[type, Any]]:
    todo = [tree]
    while todo:
        node = todo.pop()
        if (data := node.node_data()) is not None:
            yield data
        todo += node.children()
