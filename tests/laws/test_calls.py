"""Law 13: what is traced and compiled, what is remembered, and what may be called."""

from collections.abc import Callable
from functools import partial
import gc
from typing import Any

from flax import linen, nnx
import jax
import jax.numpy as jnp
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from tests.laws.functions import D_MODEL, close, inputs, looped, params, scanned
from tests.laws.seen import compilations


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


def plain(x: Any) -> Any:
    return ij.site(ij.site(x, "a") * 2, "h")


class Affine:
    def __init__(self) -> None:
        self.w = jnp.ones(4)

    def run(self, x: Any) -> Any:
        return ij.site(x * self.w, "h")


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return ij.site(linen.Dense(4)(x), "h")


AFFINE, DENSE = Affine(), Dense()
WEIGHTS = DENSE.init(jax.random.key(0), jnp.ones(4))
LIST = nnx.List([nnx.Linear(4, 4, rngs=nnx.Rngs(0))])
X = jnp.arange(4.0)


def read_along(address: str, arrays: Any, *args: Any) -> Any:
    """A method as somebody outside the package writes it."""
    f, direction = arrays
    return ij.capture(f, address, output=False)(*args)[address] @ direction


# Each is called with another array and another number every time.
REBUILT: dict[str, Callable[[Any, float], Any]] = {
    "lambda": lambda v, s: ij.intervene(plain, {"h": lambda h: h * s + v})(X),
    "function": lambda v, s: ij.intervene(lambda x: plain(x + v) * s, {"h": iv.add(v)})(X),
    "partial": lambda v, s: ij.intervene(plain, {"h": partial(lambda v, s, h: h * s + v, v, s)})(X),
    "Partial": lambda v, s: ij.intervene(plain, {"h": jax.tree_util.Partial(lambda v, h: h * s + v, v)})(X),
    "via": lambda v, s: ij.intervene(plain, {"h": iv.via({"a": "a"}, lambda h, a: h - a * s + v)})(X),
    "nested": lambda v, s: ij.intervene(plain, {"h": iv.chain(iv.at(lambda h: h * s, axis=-1, index=0), iv.add(v))})(X),
    "reducer": lambda v, s: ij.capture(plain, {"h": lambda h: (h * v).sum() * s})(X),
    "metric": lambda v, s: ij.grads(plain, lambda y: (y * v).sum() * s, "h")(X),
    "held values": lambda v, s: ij.freeze(plain, "h", {"h": v * s})(X),
    "float argument": lambda v, s: ij.capture(lambda x, scale, *, shift: plain(x * scale + shift), "h")(X, s, shift=s),
    "twice": lambda v, s: ij.capture(ij.intervene(plain, {"a": lambda a: a * s}), {"h": lambda h: h + v})(X),
    "bound method": lambda v, s: ij.intervene(AFFINE.run, {"h": iv.add(v)})(X),
    "linen": lambda v, s: ij.intervene(DENSE.apply, {"h": iv.add(v)})(WEIGHTS, X),
    "model in a closure": lambda v, s: ij.capture(lambda x: ij.site(LIST[0](x) * s, "h"), "h")(X),
    "transform in a closure": lambda v, s: ij.capture(lambda x: ij.intervene(plain, {"a": iv.add(v)})(x * s), "h")(X),
    "method": lambda v, s: ij.transform(read_along, "h", (lambda x: plain(x * s), v))(X),
    "vmap": lambda v, s: ij.intervene(jax.vmap(lambda x: plain(x * s)), {"h": lambda h: h + v})(X[None]),
}


@pytest.mark.parametrize("kind", REBUILT)
def test_what_is_built_again_compiles_once(kind: str) -> None:
    vectors = list(jax.random.normal(jax.random.key(0), (4, 4)))
    first = REBUILT[kind](vectors[0], 0.5)
    with compilations() as compiled:
        outs = []
        for i, v in enumerate(vectors[1:]):
            if kind in ("bound method", "linen"):  # whose functions die at once
                gc.collect()
            outs.append(REBUILT[kind](v, float(i) + 1.5))
    assert not compiled
    with jax.ensure_compile_time_eval():
        assert all(
            jnp.shape(a) == jnp.shape(b)
            for out in outs
            for a, b in zip(*map(jax.tree.leaves, (out, first)), strict=True)
        )


def test_a_number_on_which_a_function_branches() -> None:
    def f(x: Any, scale: float, limit: float = 1.0) -> Any:
        return ij.site(x * scale if scale > limit else x, "h")

    for scale in (0.5, 2.0, 3.0):
        assert ij.capture(f, "h")(X, scale)[0].tolist() == f(X, scale).tolist()


def test_arrays_that_a_function_makes_numbers_of() -> None:
    sizes = jnp.array([2, 3])

    def f(x: Any) -> Any:
        return ij.site(jnp.tile(x, tuple(sizes.tolist())), "h")

    assert ij.capture(f, "h", output=False)(X)["h"].shape == (2, 12)
    sizes = jnp.array([1, 2])
    assert ij.capture(f, "h", output=False)(X)["h"].shape == (1, 8)


class Held:
    def __init__(self) -> None:
        self.w, self.calls, self.log, self.acts, self.last = jnp.ones(4), 0, [], {}, None


def test_functions_that_keep_their_books() -> None:
    calls: list[str] = []
    count = 0
    total = {"n": 0}
    held = Held()

    def edit(v: Any) -> Any:
        def edit(h: Any) -> Any:
            nonlocal count
            count += 1
            return h + v

        return edit

    def f(x: Any) -> Any:
        calls.append("f")
        return plain(x)

    def g(x: Any) -> Any:
        total["n"] += 1
        held.calls += 1
        held.log.append(x)
        held.acts["last"] = x
        held.last = x
        return plain(x * held.w)

    for v in jax.random.normal(jax.random.key(0), (3, 4)):
        ij.intervene(f, {"h": edit(v)})(X)
        ij.capture(f, "h")(X)
        ij.capture(g, "h")(X)
    assert calls == ["f"] and count == 1 and total["n"] == held.calls == len(held.log) == 1
    calls.clear()
    ij.intervene(f, {"h": edit(X)})(X)
    assert not calls and count == 1


def test_callbacks_read_what_they_read() -> None:
    scale: Any = jnp.ones(())
    seen = []

    def host(x: Any) -> None:
        seen.append(float(x) * float(scale))

    def f(x: Any) -> Any:
        jax.debug.callback(host, x.sum() * scale)
        return ij.site(x, "h")

    for scale in (jnp.float32(2), jnp.float32(3)):  # noqa: B007  # f reads it
        ij.capture(f, "h")(X)
        jax.effects_barrier()
    assert seen == [6 * 4, 6 * 9]


def test_rules_of_derivatives_that_read_globals() -> None:
    w: Any = jnp.full(4, 2.0)

    def f(x: Any) -> Any:
        @jax.custom_jvp
        def g(x: Any) -> Any:
            return x * w

        g.defjvp(lambda p, t: (g(*p), t[0] * w))
        return ij.site(g(x), "h").sum()

    for w in (jnp.full(4, 2.0), jnp.full(4, 3.0)):
        assert jax.grad(ij.intervene(f, {"h": iv.scale(2.0)}))(X).tolist() == (2 * w).tolist()
        assert ij.grads(f, jnp.sum, "h")(X)[2]["h"].tolist() == [1, 1, 1, 1]


def test_names_of_static_arguments() -> None:
    def f(x: Any, mode: str) -> Any:
        return ij.site(x, "h") if mode == "a" else x

    for jitted in (
        jax.jit(ij.intervene(f, {"h": iv.add(1.0)}), static_argnames="mode"),
        jax.jit(ij.freeze(f, "h"), static_argnums=1),
    ):
        assert jitted(X, mode="a").shape == X.shape


def test_compiling_turned_off() -> None:
    args = params(), inputs()
    expected = ij.capture(scanned, "blocks.gate")(*args)
    with jax.disable_jit():
        close(ij.capture(scanned, "blocks.gate")(*args), expected)
        close(
            jax.vmap(ij.capture(scanned, "blocks.gate", output=False), (None, 0))(args[0], args[1][None])[
                "blocks.gate"
            ][0],
            expected[1]["blocks.gate"],
        )
        assert ij.sites(scanned, *args)["blocks.gate"].layers == (0, 1, 2, 3, 4)


def test_a_model_that_changes_is_refused() -> None:
    class Net(nnx.Module):
        def __init__(self) -> None:
            self.norm, self.drop = nnx.BatchNorm(4, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1))

        def __call__(self, x: Any) -> Any:
            return ij.site(self.drop(self.norm(x)), "h")

    model, x = Net(), jnp.ones((2, 4))
    for f in (model, model.__call__, lambda x: model(x)):
        for transform in (lambda g: g, jax.jit):
            with pytest.raises(ValueError, match=r"keeps no state.*model.eval\(\)") as error:
                transform(ij.capture(f, "h"))(x)
            assert "\n" not in str(error.value)
    model.eval()
    ij.capture(lambda x: model(x), "h")(x)

    def log(x: Any, seen: list[Any]) -> Any:
        seen.append(x)
        return ij.site(x, "h")

    with pytest.raises(ValueError, match="changes argument 1, a list, in place.*copy it first"):
        ij.capture(log, "h")(x, [])
