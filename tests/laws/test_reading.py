"""Law 14, by what a function may read: where a value can stand, how it can be named, and what is only written."""

from array import array
from collections import ChainMap, UserDict, namedtuple
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
import enum
from functools import cached_property, lru_cache, partial, partialmethod, singledispatch
import gc
import os
import random
import sys
import threading
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from tests.laws.test_calls import compilations

X = jnp.arange(1.0, 4.0)
W: Any = jnp.ones(3)
COUNT, CACHE, SECOND = 0, None, 1.0
SETTINGS = ModuleType("settings_in_a_body")
sys.modules["settings_in_a_body"] = SETTINGS
TOKEN = ModuleType("token")  # as the user calls it; the standard library has one too


def site(x: Any) -> Any:
    return ij.site(x, "h")


def capture(f: Callable[..., Any], *args: Any) -> Any:
    return ij.capture(f, "h")(*args)[1]["h"]


def same(f: Callable[..., Any], expected: Any, *args: Any) -> None:
    """A transform gives what is expected; twice, since the second may be remembered."""
    for _ in range(2):
        np.testing.assert_allclose(capture(f, *(args or (X,))), expected, rtol=1e-6)


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


# What keeps what it is given.


def test_what_is_stored_is_no_tracer() -> None:
    memo: dict[str, Any] = {}
    local = threading.local()
    times: Any = 2.0

    def remembering(x: Any) -> Any:
        if "w" not in memo:
            memo["w"] = times * 2
        return site(x * memo["w"])

    @contextmanager
    def scaled() -> Any:
        nonlocal times
        old, times = times, 3.0
        yield
        times = old

    def under(x: Any) -> Any:
        with scaled():
            x = x * times
        return site(x * times)

    @singledispatch
    def dispatched(x: Any) -> Any:
        return site(x * times * local.times)

    for times in (2.0, 4.0):  # noqa: B007  # the functions close over it
        memo.clear()
        local.times = times * 2
        for f in (remembering, under, dispatched):
            same(f, f(X))
        assert memo == {"w": times * 2}


# What is equal and not the same.


def test_equal_values_that_differ() -> None:
    for values in ([0.0] * 99, [-0.0] * 99):
        same(lambda x: site(x * np.copysign(1.0, values[0])), X * np.copysign(1.0, values[0]))  # noqa: B023
    for chosen in ({1}, {True}):
        same(lambda x: site(x * len(str(next(iter(chosen))))), X * len(str(next(iter(chosen)))))  # noqa: B023


# A function that would do another thing with a tracer in the place of what it reads.


def by_type(s: Any) -> Any:
    return lambda x: site(x * s if isinstance(s, float) else x)


def by_helper(s: Any) -> Any:
    def scaled(x: Any, s: Any) -> Any:
        return x * s if type(s) is float else x

    return lambda x: site(scaled(x, s))


def by_error(s: Any) -> Any:
    def f(x: Any) -> Any:
        try:
            return site(x * float(s))
        except Exception:  # noqa: BLE001
            return site(x)

    return f


def by_words(s: Any) -> Any:
    return lambda x: site(x * len(f"{s}"))


def by_identity(s: Any) -> Any:
    kept = [s]
    return lambda x: site(x * (2 if kept[0] is s else 1))


def by_match(s: Any) -> Any:
    def f(x: Any) -> Any:
        match s:
            case float():
                return site(x * 3)
            case _:
                return site(x)

    return f


@pytest.mark.parametrize(
    ("make", "value"),
    [
        *((make, 2.5) for make in (by_type, by_helper, by_error, by_words, by_identity, by_match)),
        (by_error, jnp.float32(2.5)),
        (by_identity, jnp.ones(3)),
    ],
)
def test_what_a_function_asks_of_a_value(make: Any, value: Any) -> None:
    f = make(value)
    np.testing.assert_allclose(ij.intervene(lambda x: ij.site(f(x), "g"), {"g": lambda g: g})(X), f(X), rtol=1e-6)


def test_a_count_stays_a_count() -> None:
    for n in (3, np.int64(3)):
        f = lambda x: jax.lax.fori_loop(0, n, lambda _, x: ij.site(x * 2, "h"), x)  # noqa: B023, E731
        assert ij.sites(f, X)["h"].layers == (0, 1, 2) and capture(f, X).shape == (3, 3)
        assert ij.grads(f, "h", jnp.sum)(X)[2]["h"].shape == (3, 3)


# What a function writes.


def test_what_is_written_stays_written() -> None:
    w: Any = jnp.ones(3)
    last: Any = None

    def helper(x: Any) -> Any:
        global COUNT
        COUNT += 1
        return x

    def f(x: Any) -> Any:
        nonlocal last
        global SECOND
        SECOND = 2.0
        last = "set"
        return site(helper(x) * w * W)

    before = COUNT
    same(f, X)
    assert (last, SECOND, COUNT) == ("set", 2.0, before + 1)

    times: Any = 1.0

    def g(x: Any) -> Any:
        nonlocal times
        times = times + 1.0
        return site(x * times)

    assert [capture(g, X)[0].item() for _ in range(3)] == [2, 3, 4] and times == 4.0


# What another thing in an object, or another call, does not make again.


class Trainer:
    def __init__(self) -> None:
        self.w, self.step, self.rng, self.batches = jnp.ones(4), 0, np.random.default_rng(0), iter(range(9))
        self.acts: dict[str, Any] = {}

    def forward(self, x: Any) -> Any:
        return ij.site(x * self.w, "h")

    def run(self, x: Any) -> Any:
        self.acts |= ij.capture(self.forward, "h", output=False)(x)
        self.step += 1
        return self.acts["h"]


def mixed(x: Any) -> Any:
    noise = jax.random.normal(jax.random.key(0), x.shape)
    return ij.site(x * np.float32(2) + noise, "h")


class Meter:
    times = 2.0


METER = Meter()


AGAIN: dict[str, Callable[[], Callable[[float], Any]]] = {
    "a trainer's step": lambda: (lambda t: lambda s: t.run(jnp.ones(4) * s))(Trainer()),
    "numpy and jax.random": lambda: lambda s: capture(mixed, jnp.ones(4) * s),
    "an unread attribute": lambda: lambda s: (setattr(METER, "seen", s), capture(lambda x: site(x * METER.times), X)),
    "a slice": lambda: lambda s: capture(lambda x, part=slice(1, 3): site(x[part] * s), X),
    "a set of functions": lambda: lambda s: capture(lambda x, kinds=frozenset({jnp.sin}): site(x * s * len(kinds)), X),
    "one that asks, beside another": lambda: lambda s: ij.intervene(by_type(1.0), {"h": lambda h: h * s})(X),
    "a vector beside one that catches": lambda: lambda s: ij.intervene(by_error(1.0), {"h": lambda h: h + X * s})(X),
    "words for a site": lambda: lambda s: capture(lambda x: ij.site(x * X * s, "".join(["h"])), X),
}


@pytest.mark.parametrize("case", AGAIN)
def test_what_changes_nothing_compiles_nothing(case: str) -> None:
    run = AGAIN[case]()
    run(0.5), run(1.5)
    with compilations() as compiled:
        run(2.5), run(3.5)
    assert not compiled


def test_what_dies_is_not_held() -> None:
    big = 1 << 20

    def held() -> int:
        gc.collect()
        return sum(a.nbytes for a in jax.live_arrays()) // big

    before = held()
    for i in range(6):
        w = jnp.full(big // 4, float(i))
        jitted, cached = jax.jit(lambda x: x * w), lru_cache(lambda n: n * w)  # noqa: B023

        class Local:
            scale = w

        capture(lambda x: site(jitted(x) * Local.scale * cached(3)), jnp.ones(()))  # noqa: B023
    del w, jitted, cached, Local
    assert held() == before


def test_what_is_deep() -> None:
    chain: Any = None
    for i in range(700):
        chain = {"next": chain, "w": float(i)}
    same(lambda x: site(x * chain["w"]), X * 699)


def test_random_numbers_of_a_module() -> None:
    def f(x: Any) -> Any:
        return site(x + random.random())

    assert len({capture(f, X)[0].item() for _ in range(4)}) == 4
