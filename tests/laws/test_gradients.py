"""Laws 5 and 9: derivatives of edited functions, derivatives at sites, and sites without one."""

import jax
import jax.numpy as jnp
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from tests.laws.functions import SITES, by_hand, close, inputs, looped, params, scanned
from tests.laws.test_edits import EDITS


@pytest.mark.parametrize("kind", ["function", "mean", "project", "layer", "traced", "per_layer"])
def test_the_gradient_is_that_of_the_edited_function(kind) -> None:
    edit, hand = EDITS[kind]
    args = params(), inputs()
    expected = jax.grad(lambda *a: by_hand({"blocks.resid_post": hand})(*a).sum(), (0, 1))(*args)
    for f in (scanned, looped):
        edited = ij.intervene(f, {"blocks.resid_post": edit})
        slopes = jax.grad(lambda *a: edited(*a).sum(), (0, 1))(*args)  # noqa: B023  # called at once
        close(slopes, expected, rtol=1e-4, atol=1e-4)


def test_gradients_at_sites() -> None:
    weights, x = params(), inputs()
    where = [*SITES, "blocks.3.resid_post"]
    for f in (scanned, looped):
        value, acts, slopes = ij.grads(f, lambda out: out**2, where)(weights, x)
        close(value, (f(weights, x) ** 2).sum())
        close(acts, ij.capture(f, where)(weights, x)[1])
        # The derivative by another road: of an added vector that is zero.
        for name in ("blocks.rule", "blocks.gate", "final", "blocks.3.resid_post"):
            stacked = name.startswith("blocks.") and name.count(".") == 1

            def of(delta):
                edit = iv.add(delta)
                return (ij.intervene(f, {name: edit})(weights, x) ** 2).sum()  # noqa: B023  # called at once

            assert slopes[name].shape == acts[name].shape
            close(slopes[name], jax.grad(of)(jnp.zeros_like(acts[name])), rtol=1e-4, atol=1e-4)
            assert stacked == (slopes[name].ndim == 4)


def test_freezing() -> None:
    weights, x = params(), inputs()
    _, acts = ij.capture(scanned, "blocks.gate")(weights, x)
    for f in (scanned, looped):
        frozen = ij.freeze(f, "blocks.gate", acts)
        close(frozen(weights, x), f(weights, x))
        slopes = jax.grad(lambda w, x: frozen(w, x).sum(), 1)(weights, x)  # noqa: B023
        # Only the residual stream is left: the derivative is that of x @ final, summed.
        close(slopes, jnp.broadcast_to(weights["final"].sum(1), x.shape))
        close(slopes, jax.grad(lambda w, x: ij.freeze(f, "blocks.gate")(w, x).sum(), 1)(weights, x))  # noqa: B023
