"""Laws 13 and 14: what was traced is remembered, and nothing that it was traced with is kept alive."""

import gc
import threading
from typing import Any
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import interventions as iv

X = jnp.arange(4.0)


def plain(x: Any) -> Any:
    return ij.site(ij.site(x, "a") * 2, "h")


def test_the_memory_holds_functions_weakly() -> None:
    big = jnp.ones(1000)
    kept = weakref.ref(big)

    def make(big):
        return lambda x: ij.site(x + big, "x").sum()

    f = make(big)
    ij.intervene(f, {"x": iv.add(1.0)})(jnp.ones(1000))
    ij.capture(f, "x")(jnp.ones(1000))
    reference = weakref.ref(f)
    del f, big
    gc.collect()
    assert reference() is None and kept() is None


def test_nothing_is_held() -> None:
    big = 1 << 20

    def held() -> int:
        gc.collect()
        return sum(a.nbytes for a in jax.live_arrays()) // big

    x = jnp.ones(big // 4)
    before = held()
    for i in range(10):
        v = jnp.full(big // 4, float(i))
        f = lambda x: ij.site(x * v, "h")  # noqa: B023, E731  # called at once
        ij.intervene(f, {"h": lambda h: h + v + f(h)})(x)  # noqa: B023
        ij.capture(f, {"h": lambda h: h * v})(x)  # noqa: B023
        ij.sites(f, x)
        jax.jit(ij.capture(f, "h", output=False))(x)
        branching = lambda h: h + v if np.asarray(v)[0] >= 0 else h  # noqa: B023, E731
        ij.intervene(plain, {"h": branching})(x)
    reference = weakref.ref(f)
    del f, v, branching
    assert held() - before <= 1 and reference() is None


def test_no_tracer_leaks() -> None:
    def outer(w: Any) -> Any:
        f = lambda x: ij.site(x * w, "h")  # noqa: E731
        acts = ij.capture(f, "h", output=False)(X)
        return ij.intervene(f, {"h": iv.chain(iv.add(acts["h"]), lambda h: h * w)})(X).sum()

    with jax.checking_leaks():
        for transform in (jax.jit, jax.grad, lambda f: lambda x: jax.vmap(f)(x[None])):
            transform(outer)(jnp.float32(2))


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp_jax.core.memory.KEPT", 4)
    failed: list[BaseException] = []

    def work(step: int) -> None:
        try:
            for i in range(20):
                k = i * step % 11
                assert ij.intervene(plain, {"h": lambda h: h + k})(X)[0] == k  # noqa: B023
        except BaseException as error:  # noqa: BLE001  # a thread would keep it to itself
            failed.append(error)

    threads = [threading.Thread(target=work, args=(step,)) for step in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
