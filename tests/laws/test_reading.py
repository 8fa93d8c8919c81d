"""Law 14, by what a function may read: where a value can stand and how it can be named."""

from array import array
from collections import ChainMap, UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
import enum
from functools import cached_property, partial, partialmethod
import os
import sys
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.laws.seen import X, same, site

W: Any = jnp.ones(3)
COUNT, CACHE, SECOND = 0, None, 1.0
SETTINGS = ModuleType("settings_in_a_body")
sys.modules["settings_in_a_body"] = SETTINGS
TOKEN = ModuleType("token")  # as the user calls it; the standard library has one too


# Where a value can stand. Each holds 1 and can be told to hold another number; `f` multiplies by it.


def in_static_part() -> Any:
    @dataclass
    class Act:
        times: Any

    @partial(jax.tree_util.register_dataclass, data_fields=["w"], meta_fields=["act"])
    @dataclass
    class Layer:
        w: Any
        act: Act

    layer = Layer(jnp.ones(3), Act(1))
    Act.__hash__ = lambda self: 0  # type: ignore[assignment]
    return lambda x: x * layer.w * layer.act.times, lambda v: setattr(layer.act, "times", v)


def in_static_function() -> Any:
    times: Any = 1

    @partial(jax.tree_util.register_dataclass, data_fields=["w"], meta_fields=["act"])
    @dataclass(frozen=True)
    class Layer:
        w: Any
        act: Any

    def change(v: Any) -> None:
        nonlocal times
        times = v

    layer = Layer(jnp.ones(3), lambda x: x * times)
    return lambda x: layer.act(x * layer.w), change


def beside_the_leaves() -> Any:
    @jax.tree_util.register_pytree_node_class
    class Layer:
        def __init__(self, w: Any) -> None:
            self.w, self.times = w, 1

        def tree_flatten(self) -> Any:
            return (self.w,), None

        @classmethod
        def tree_unflatten(cls, _: Any, children: Any) -> Any:
            return cls(*children)

    layer = Layer(jnp.ones(3))
    return lambda x: x * layer.w * layer.times, lambda v: setattr(layer, "times", v)


def imported() -> Any:
    def f(x: Any) -> Any:
        import settings_in_a_body  # type: ignore[import-not-found]

        return x * settings_in_a_body.times

    return f, lambda v: setattr(SETTINGS, "times", v)


def module_in_a_closure(module: ModuleType) -> Any:
    module.times = 1  # type: ignore[attr-defined]
    return lambda x: x * module.times, lambda v: setattr(module, "times", v)


def looked_up(x: Any) -> Any:
    return x * getattr(SETTINGS, "ti" + "mes")


def lazily() -> Any:
    def f(x: Any) -> Any:
        global CACHE
        if CACHE is None:
            CACHE = 1
        return x * CACHE

    def change(v: Any) -> None:
        global CACHE
        CACHE = v

    change(None)
    return f, change


class MyFloat(float):
    pass


class MyTuple(tuple):
    pass


class Level(enum.Enum):
    LOW = 1

    def times(self) -> Any:
        return SETTINGS.times


class Meta(type):
    @property
    def times(cls) -> Any:
        return SETTINGS.times


class WithMeta(metaclass=Meta):
    pass


def twice(method: Any) -> Any:
    return lambda self, x: method(self, x) * 1


class Model:
    def _scaled(self, by: str, x: Any) -> Any:
        return x * getattr(SETTINGS, by)

    scaled = partialmethod(_scaled, "times")

    @cached_property
    def function(self) -> Any:
        return lambda x: x * SETTINGS.times

    @twice
    def __call__(self, x: Any) -> Any:
        return x * SETTINGS.times


class Slots:
    __slots__ = ("times",)

    def __init__(self) -> None:
        self.times: Any = 1


Pair = namedtuple("Pair", "times other")


def holding(make: Callable[[Any], Any], read: Callable[[Any], Any]) -> Any:
    """An object in a closure that is rebound: made of a value and read."""
    held = make(1)

    def change(v: Any) -> None:
        nonlocal held
        held = make(v)

    return lambda x: x * read(held), change


def in_place(held: Any, read: Callable[[Any], Any], write: Callable[[Any, Any], None]) -> Any:
    return lambda x: x * read(held), lambda v: write(held, v)


def setting(f: Callable[[Any], Any]) -> Any:
    return f, lambda v: setattr(SETTINGS, "times", v)


def item(held: Any, v: Any) -> None:
    held["times"] = v


def first(held: Any, v: Any) -> None:
    held[0] = v


HELD: dict[str, Callable[[], Any]] = {
    "static part of a pytree": in_static_part,
    "static function of a pytree": in_static_function,
    "beside the leaves of a pytree": beside_the_leaves,
    "import in a body": imported,
    "module in a closure": lambda: module_in_a_closure(ModuleType("of_a_user")),
    "module called as the standard library's": lambda: module_in_a_closure(TOKEN),
    "getattr of a module": lambda: setting(looked_up),
    "a global set at first": lazily,
    "UserDict": lambda: in_place(UserDict(times=1), lambda h: h["times"], item),
    "ChainMap": lambda: in_place(ChainMap({}, {"times": 1}), lambda h: h["times"], item),
    "a view of a dict": lambda: (lambda d: in_place(d, lambda h: MappingProxyType(h)["times"], item))({"times": 1}),
    "MappingProxyType": lambda: (
        lambda d: (lambda p: (lambda x: x * p["times"], lambda v: item(d, v)))(MappingProxyType(d))
    )({"times": 1}),
    "array": lambda: in_place(array("d", [1.0]), lambda h: h[0], first),
    "SimpleNamespace": lambda: in_place(
        SimpleNamespace(times=1), lambda h: h.times, lambda h, v: setattr(h, "times", v)
    ),
    "slots": lambda: in_place(Slots(), lambda h: h.times, lambda h, v: setattr(h, "times", v)),
    "bound builtin": lambda: (lambda d: (lambda get: (lambda x: x * get("times"), lambda v: item(d, v)))(d.get))(
        {"times": 1}
    ),
    "float of a class": lambda: holding(MyFloat, float),
    "tuple of a class": lambda: holding(lambda v: MyTuple([v]), lambda h: h[0]),
    "named tuple": lambda: holding(lambda v: Pair(v, 0), lambda h: h.times),
    "slice": lambda: holding(lambda v: slice(int(v), 9), lambda h: h.start),
    "dict in a list": lambda: in_place([{"times": 1}], lambda h: h[0]["times"], lambda h, v: item(h[0], v)),
    "key of a dict": lambda: holding(lambda v: {v: 0}, lambda h: next(iter(h))),
    "set": lambda: holding(lambda v: {v}, lambda h: next(iter(h))),
    "method of an Enum": lambda: setting(lambda x: x * Level.LOW.times()),
    "property of a metaclass": lambda: setting(lambda x: x * WithMeta.times),
    "partialmethod": lambda: (lambda m: setting(lambda x: m.scaled(x)))(Model()),
    "cached_property": lambda: (lambda m: setting(lambda x: m.function(x)))(Model()),
    "decorated __call__": lambda: setting(Model()),
    "jit in a closure": lambda: (lambda g: setting(lambda x: g(x)))(lambda x: x * SETTINGS.times),
    "string array": lambda: holding(lambda v: np.array([str(float(v))]), lambda h: float(h[0])),
    "masked array": lambda: holding(
        lambda v: np.ma.masked_array([v, 9.0], mask=[False, v > 2]), lambda h: jnp.float32(h.sum())
    ),
    "environ": lambda: (
        lambda x: x * float(os.environ.get("INTERP_TIMES", "1")),
        lambda v: os.environ.__setitem__("INTERP_TIMES", str(v)),
    ),
}


@pytest.mark.parametrize("where", HELD)
def test_what_is_held_is_seen(where: str) -> None:
    SETTINGS.times = 1  # type: ignore[attr-defined]
    os.environ.pop("INTERP_TIMES", None)
    f, change = HELD[where]()
    g = lambda x: site(f(x))  # noqa: E731
    same(g, f(X))
    for value in (2, 3, 2):
        change(value)
        same(g, f(X))
