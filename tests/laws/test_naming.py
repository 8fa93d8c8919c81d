"""Laws 13 and 14, by what a function does with what it reads: asks what it is, stores it, or names it not at all."""

from collections.abc import Callable
from contextlib import contextmanager
from functools import lru_cache, singledispatch
import gc
import random
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from tests.laws.seen import X, capture, compilations, same, site

W: Any = jnp.ones(3)
COUNT, SECOND = 0, 1.0


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
        assert ij.grads(f, jnp.sum, "h")(X)[2]["h"].shape == (3, 3)


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
