"""`explain` says what a transform does: held against what is known of small functions, and against what is computed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import interventions as iv

X = jnp.arange(3.0)


def scanned(x):
    return jax.lax.scan(lambda x, _: (ij.site(jnp.sin(x), "h", axes=("d_model",)), None), x, length=6)[0]


def looped(x):
    for layer in range(6):
        x = ij.site(jnp.sin(x), "h", layer=layer, axes=("d_model",))
    return x


def only(g, *args):
    (step,) = ij.explain(g, *args).steps
    return step


@pytest.mark.parametrize("f", [scanned, looped])
def test_what_is_asked_is_said(f):
    step = only(ij.capture(f, ["h", "3.h"]), X)
    assert step.name == "capture" and step.matched == {"h": ("h",), "3.h": ("h",)}
    assert step.captured == {"h": (0, 1, 2, 3, 4, 5)}
    step = only(ij.intervene(f, {"h": iv.at(iv.zero(), layer=2), "4.h": iv.scale(2.0)}), X)
    assert step.edited == {("h", "at(edit=zero(), layer=2)"): (2,), ("h", "scale(factor=2.0)"): (4,)}
    assert only(ij.grads(f, jnp.sum, "1.h"), X).captured == {"h": (1,)}
    assert only(ij.freeze(f, "2.h"), X).edited == {("h", "held without gradient"): (2,)}


def test_cuts_are_said():
    step = only(ij.intervene(scanned, {"h": iv.at(iv.zero(), layer=2)}), X)
    (scan,) = step.scans
    assert [tuple(piece) for piece in scan.pieces] == [(0, 2, True), (2, 1, False), (3, 3, True)]
    assert scan.left_out == () and step.n_left_out == 0
    (scan,) = only(ij.capture(scanned, "2.h", output=False), X).scans
    assert scan.left_out == (3, 4, 5)
    step = only(ij.capture(looped, "2.h", output=False), X)
    assert step.scans == () and step.left_out == ("h",)
    assert step.n_left_out == 6  # sin and site of three layers


def test_what_a_detail_takes_and_via_reads_is_said():
    def f(x):
        y = ij.detail(lambda x: 2 * x, lambda x: ij.site(x, "costly") + x, x)
        return ij.site(y, "out")

    assert only(ij.capture(f, "costly"), X).detailed == ("costly",)
    assert only(ij.capture(f, "out"), X).detailed == ()
    step = only(ij.intervene(f, {"out": iv.via({"a": "costly"}, lambda x, a: x + a)}), X)
    assert step.read == ("costly",) and step.detailed == ("costly",)


def test_nested_transforms_and_methods_are_said_from_the_outside_in():
    g = ij.intervene(ij.capture(scanned, "h"), {"1.h": lambda x: -x})
    step = only(g, X)
    assert step.name == "intervene" and [inner.name for inner in step.inner] == ["capture"]
    assert list(step.edited) == [("h", "<lambda>")]

    def doubled(address, f, x):
        return ij.intervene(f, {address: iv.scale(2.0)})(x)

    step = only(ij.transform(doubled, "h", scanned), X)
    assert step.name == "doubled" and [inner.name for inner in step.inner] == ["intervene"]


@pytest.mark.parametrize("around", [lambda g: g, jax.jit, lambda g: partial(g), lambda g: lambda x: jax.jit(g)(x)])
def test_it_is_said_anew_of_what_ran_before(around):
    g = around(ij.capture(scanned, "2.h"))
    value = g(X)
    first, second = ij.explain(g, X), ij.explain(g, X)
    assert first == second and first.steps[0].captured == {"h": (2,)}
    jax.tree.map(np.testing.assert_array_equal, g(X), value)


def test_under_vmap_and_grad_each_is_said_once():
    g = ij.intervene(scanned, {"2.h": iv.add(1.0)})
    assert len(ij.explain(jax.vmap(g), jnp.ones((4, 3))).steps) == 1
    assert len(ij.explain(jax.grad(lambda x: g(x).sum()), X).steps) == 1


def test_of_a_plain_function_it_says_what_to_give():
    assert ij.explain(scanned, X).steps == ()
    assert "nothing is transformed here: give explain what capture" in repr(ij.explain(scanned, X))


def test_nothing_is_run_and_errors_are_those_of_the_call():
    def loud(x):
        jax.debug.callback(lambda: pytest.fail("it ran"))
        return ij.site(x, "h")

    assert only(ij.capture(loud, "h"), jax.ShapeDtypeStruct((3,), jnp.float32)).captured == {"h": None}
    with pytest.raises(ValueError, match="near names: h"):
        ij.explain(ij.capture(scanned, "g"), X)


def test_every_room_is_named():
    assert {"lens", "patching", "dictionaries", "circuits", "explain"} <= set(dir(ij))
    for room in ij._ROOMS:
        assert getattr(ij, room).__name__ == f"interp_jax.{room}"
