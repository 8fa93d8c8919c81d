"""Law 13: what is traced and compiled, what is remembered, and what may be called."""

from functools import partial
import gc
import weakref

import jax
import jax.numpy as jnp

import interp_jax as ij
from interp_jax import interventions as iv
from tests.laws.functions import D_MODEL, close, inputs, looped, params, scanned


def test_a_sweep_over_vectors_traces_and_compiles_once() -> None:
    traces = []

    def f(w, x):
        traces.append(1)
        return scanned(w, x)

    weights, x = params(), inputs()
    for v in jax.random.normal(jax.random.key(0), (5, D_MODEL)):
        ij.intervene(f, {"blocks.2.resid_post": iv.add(v)})(weights, x)
    assert len(traces) == 1
    for v in jax.random.normal(jax.random.key(0), (5, D_MODEL)):
        ij.capture(ij.intervene(partial(f, weights), {"blocks.2.gate": iv.add(v)}), "blocks.gate")(x)
    assert len(traces) <= 2
    for position in range(3):
        ij.intervene(f, {"blocks.2.resid_post": iv.at(iv.zero(), position=position)})(weights, x)
    assert len(traces) <= 2


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
    jax.clear_caches()
    gc.collect()
    assert reference() is None and kept() is None


def test_functions_that_close_over_tracers() -> None:
    weights, x = params(), inputs()

    def outer(weights, x):
        f = lambda y: looped(weights, y)  # noqa: E731
        _, acts = ij.capture(f, "blocks.resid_post")(inputs())
        return ij.intervene(f, {"blocks.resid_post": iv.add(acts["blocks.resid_post"].mean())})(x).sum()

    expected = outer(weights, x)
    close(jax.jit(outer)(weights, x), expected)
    close(jax.jit(outer)(weights, 2 * x), outer(weights, 2 * x))
    close(jax.vmap(outer, (None, 0))(weights, x[None]), expected[None])
    close(jax.jit(jax.grad(outer))(weights, x), jax.grad(outer)(weights, x), rtol=1e-4, atol=1e-4)


def test_keywords_and_statics() -> None:
    def f(x, *, double: bool, name: str, times: int = 1):
        x = ij.site(x, name)
        for _ in range(times):
            x = x * 2 if double else x
        return {"out": x, "none": None}

    edited = ij.intervene(f, {"a": lambda x: x + 1})
    assert edited(jnp.ones(()), double=True, name="a", times=3)["out"] == 16
    assert edited(jnp.ones(()), double=False, name="a")["out"] == 2
    assert edited(jnp.ones(()), double=False, name="a")["none"] is None


def test_a_callable_pytree_is_a_function() -> None:
    @jax.tree_util.register_pytree_node_class
    class Affine:
        def __init__(self, w):
            self.w = w

        def tree_flatten(self):
            return (self.w,), None

        @classmethod
        def tree_unflatten(cls, _, children):
            return cls(*children)

        def __call__(self, x):
            return ij.site(x * self.w, "x")

    for w in (2.0, 3.0):
        f = Affine(jnp.float32(w))
        assert ij.intervene(f, {"x": lambda x: x + 1})(jnp.ones(())) == w + 1
        assert ij.capture(f.__call__, "x")(jnp.ones(()))[1]["x"] == w
        assert ij.intervene(lambda x: ij.site(x, "y"), {"y": f})(jnp.ones(())) == w
