"""Law 14: a transform of `f` equals what `f` would do if called now."""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
import random
from types import ModuleType, SimpleNamespace
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij

X = jnp.arange(1.0, 4.0)
SCALE: Any = 1.0
TABLE: Any = {}
MODULE = ModuleType("settings_of_a_user")
MODULE.scale = 1.0


def site(x: Any) -> Any:
    return ij.site(x, "h")


def by_global(x: Any) -> Any:
    return site(x * SCALE)


def helper(x: Any) -> Any:
    return x * SCALE


def by_helper(x: Any) -> Any:
    return site(helper(x))


def by_comprehension(x: Any) -> Any:
    return site(sum(x * scale for scale in [SCALE]))


def by_module(x: Any) -> Any:
    return site(x * MODULE.scale)


def by_table(x: Any) -> Any:
    return site(x * TABLE["scale"])


def set_global(value: Any) -> None:
    global SCALE
    SCALE = value


def globally(f: Callable[..., Any], *values: Any) -> Any:
    return f, [partial(set_global, value) for value in values]


def closure() -> Any:
    scale: Any = 1.0

    def f(x: Any) -> Any:
        return site(x * scale)

    def change(value: Any) -> None:
        nonlocal scale
        scale = value

    return f, [partial(change, value) for value in (2.0, jnp.float32(3), jnp.ones(3), np.full(3, 5.0, np.float32), 7)]


def numpy_in_place() -> Any:
    scale = np.ones(3, np.float32)
    return lambda x: site(x * scale), [lambda: scale.__setitem__(1, 5.0)]


def defaults() -> Any:
    def f(x: Any, scale: Any = 1.0, *, shift: Any = 0.0) -> Any:
        return site(x * scale + shift)

    return f, [lambda: setattr(f, "__defaults__", (2.0,)), lambda: setattr(f, "__kwdefaults__", {"shift": 3.0})]


def function_attribute() -> Any:
    return by_attribute, [lambda: setattr(by_attribute, "scale", 2.0)]


def by_attribute(x: Any) -> Any:
    return site(x * by_attribute.scale)


by_attribute.scale = 1.0  # type: ignore[attr-defined]


class Plain:
    times = 1

    def __init__(self, scale: Any = 1.0) -> None:
        self.scale, self.power, self.inner = scale, 1, SimpleNamespace(w=jnp.ones(3))

    @property
    def squared(self) -> Any:
        return self.scale**2

    @staticmethod
    def shift() -> Any:
        return SCALE

    def run(self, x: Any) -> Any:
        return site((x * self.squared * self.inner.w * self.times) ** self.power + self.shift())

    __call__ = run


def plain_object(pick: Callable[[Plain], Any]) -> Any:
    plain = Plain()
    return pick(plain), [
        lambda: setattr(plain, "scale", 2.0),
        lambda: setattr(plain, "power", 2),
        lambda: setattr(plain.inner, "w", 3 * jnp.ones(3)),
        lambda: setattr(Plain, "times", 2),
        lambda: setattr(Plain, "times", 1),
        lambda: set_global(4.0),
        lambda: setattr(plain, "run", lambda x: site(x)) if pick is not METHOD else None,
    ]


METHOD = Plain.run.__get__


@dataclass
class Settings:
    scale: Any
    layer: int = 0


@dataclass(frozen=True)
class Frozen:
    scales: dict[str, Any]


def settings() -> Any:
    s = Settings(1.0)
    return lambda x: site(x * s.scale + s.layer), [
        lambda: setattr(s, "scale", jnp.ones(3) * 2),
        lambda: setattr(s, "layer", 3),
    ]


def frozen() -> Any:
    s = Frozen({"a": jnp.ones(3)})
    return lambda x: site(x * s.scales["a"]), [lambda: s.scales.update(a=2 * jnp.ones(3))]


class Net(nnx.Module):
    def __init__(self, rngs: Any) -> None:
        self.linear, self.times = nnx.Linear(3, 3, rngs=rngs), 1
        self.act = jnp.tanh

    def __call__(self, x: Any) -> Any:
        return site(self.act(self.linear(x)) * self.times * SCALE)


def nnx_model(pick: Callable[[Net], Any]) -> Any:
    model = Net(nnx.Rngs(0))
    return pick(model), [
        lambda: model.linear.kernel.set_value(model.linear.kernel[...] * 2),
        lambda: setattr(model, "times", 3),
        lambda: setattr(model, "linear", nnx.Linear(3, 3, rngs=nnx.Rngs(1))),
        lambda: setattr(model, "act", jnp.sin),
        lambda: set_global(3.0),
    ]


def containers() -> Any:
    values, by_name, kinds = [1.0, jnp.ones(3)], {"a": {"b": 1}}, {"twice"}
    ordered, default, queue = OrderedDict(w=jnp.ones(3)), defaultdict(lambda: 0, k=1), deque([1])

    def f(x: Any) -> Any:
        x = x * values[0] + sum(values[1:]) + by_name["a"]["b"]
        return site((2 * x if "twice" in kinds else x) * ordered["w"] + default["k"] + queue[-1])

    return f, [
        lambda: values.__setitem__(0, 2.0),
        lambda: values.append(jnp.ones(3)),
        lambda: by_name["a"].update(b=2),
        kinds.clear,
        lambda: ordered.update(w=3 * jnp.ones(3)),
        lambda: default.update(k=5),
        lambda: queue.append(3),
    ]


def wrapped() -> Any:
    scale: Any = 1.0

    def inner(x: Any) -> Any:
        return site(jnp.sin(x) * scale)

    @wraps(inner)
    def outer(*args: Any) -> Any:
        return jax.vmap(inner)(*args)

    def change(value: Any) -> None:
        nonlocal scale
        scale = value

    return outer, [partial(change, 2.0), partial(change, 3 * jnp.ones(()))]


def custom_rule() -> Any:
    scale: Any = jnp.ones(3)

    @jax.custom_jvp
    def g(x: Any) -> Any:
        return x * scale

    g.defjvp(lambda p, t: (g(*p), t[0] * scale))

    def change() -> None:
        nonlocal scale
        scale = 3 * scale

    return lambda x: site(g(x)), [change]


def random_numbers() -> Any:
    rng, py = np.random.default_rng(0), random.Random(0)
    twin, twin_py = np.random.default_rng(0), random.Random(0)
    f = lambda x: site(x * float(rng.normal()) + py.random())  # noqa: E731
    return f, [lambda: None] * 2, lambda x: x * float(twin.normal()) + twin_py.random()


def iterator() -> Any:
    def numbers(i: int = 1) -> Any:
        while True:
            yield float(i)
            i += 1

    mine, twin = numbers(), numbers()
    return lambda x: site(x * next(mine)), [lambda: None] * 2, lambda x: x * next(twin)


def a_transform() -> Any:
    v: Any = jnp.ones(3)
    steered = ij.intervene(site, {"h": lambda x: x * v})

    def change(value: Any) -> None:
        nonlocal v
        v = value

    return lambda x: steered(x), [partial(change, 2 * jnp.ones(3)), partial(change, 3.0)]


CASES: dict[str, Callable[[], Any]] = {
    "global": lambda: globally(by_global, 2.0, jnp.ones(3), 4 * jnp.ones(3), 5, np.float32(6)),
    "a helper's global": lambda: globally(by_helper, 2.0, jnp.full(3, 7.0)),
    "in a comprehension": lambda: globally(by_comprehension, 2.0, jnp.full(3, 7.0)),
    "of a module": lambda: (by_module, [lambda: setattr(MODULE, "scale", 2.0)]),
    "in a global table": lambda: (by_table, [lambda: TABLE.update(scale=v) for v in (2.0, jnp.ones(3))]),  # noqa: B023
    "closure": closure,
    "numpy in place": numpy_in_place,
    "defaults": defaults,
    "attribute of a function": function_attribute,
    "plain object": lambda: plain_object(lambda p: p),
    "bound method": lambda: plain_object(METHOD),
    "object in a closure": lambda: plain_object(lambda p: lambda x: p.run(x)),
    "dataclass": settings,
    "frozen dataclass": frozen,
    "nnx": lambda: nnx_model(lambda m: m),
    "nnx in a closure": lambda: nnx_model(lambda m: lambda x: m(x)),
    "nnx method": lambda: nnx_model(lambda m: m.__call__),
    "containers": containers,
    "wrapped": wrapped,
    "custom_jvp": custom_rule,
    "random numbers": random_numbers,
    "iterator": iterator,
    "a transform": a_transform,
}
WAYS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "capture": lambda f: lambda x: ij.capture(f, "h")(x)[1]["h"],
    "intervene": lambda f: lambda x: ij.intervene(f, {"h": lambda h: h})(x),
    "method": lambda f: ij.transform(lambda address, f, x: ij.capture(f, address)(x)[1][address], "h", f),
    "jit": lambda f: lambda x: jax.jit(ij.capture(f, "h", output=False))(x)["h"],
    "grads": lambda f: lambda x: ij.grads(f, jnp.sum, "h")(x)[1]["h"],
    "freeze": lambda f: lambda x: jax.linearize(ij.freeze(f, "h"), x)[0],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_what_changed_is_seen(case: str, way: str) -> None:
    set_global(1.0)
    TABLE.update(scale=1.0)
    MODULE.scale = by_attribute.scale = 1.0  # type: ignore[attr-defined]
    f, changes, *oracle = CASES[case]()
    plain = oracle[0] if oracle else f
    look = WAYS[way](f)
    for change in (lambda: None, *changes):
        change()
        np.testing.assert_allclose(look(X), plain(X), rtol=1e-6)
