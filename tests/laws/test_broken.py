"""Functions that broke the transforms once, or were answered by misleading words."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.experimental import checkify
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from tests.laws.functions import close, inputs, looped, params, scanned

SITE = "blocks.resid_post"
VALUES = jnp.arange(24.0).reshape(2, 3, 4)


def here(x: Any) -> Any:
    """[batch position head] with names."""
    return ij.site(x, "h", axes=("batch", "position", "head"))


def edited(edit: Any, f: Callable[..., Any] = here, x: Any = VALUES) -> np.ndarray:
    return np.asarray(ij.intervene(f, {"h": edit})(x))


def refused(match: str, call: Callable[[], Any], kind: type = ValueError) -> None:
    with pytest.raises(kind, match=match) as error:
        call()
    assert "\n" not in str(error.value)


# Derivatives.


def test_outside_a_choice_a_derivative_is_that_of_the_value() -> None:
    def slope(edit: Any, x: Any, axes: Any = ("position", "d")) -> np.ndarray:
        f = lambda x: (ij.site(x, "h", axes=axes) * jnp.arange(1.0, 1 + x.size).reshape(x.shape)).sum()  # noqa: E731
        return np.asarray(jax.grad(lambda x: ij.intervene(f, {"h": edit})(x))(x))

    weights = np.arange(1.0, 7.0).reshape(3, 2)
    x = jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    root = slope(iv.at(jnp.sqrt, position=1), x)
    np.testing.assert_allclose(root, [weights[0], weights[1] / (2 * np.sqrt([3.0, 4.0])), weights[2]], rtol=1e-6)
    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    expected = jax.grad(lambda r: (unit(r) * weights[1]).sum())(x[1])
    np.testing.assert_allclose(slope(iv.at(unit, position=1), x), [weights[0], expected, weights[2]], rtol=1e-5)
    assert np.isfinite(slope(iv.chain(iv.at(jnp.log, position=1), iv.scale(2.0)), x)).all()
    # What is chosen may depend on what is not: then the derivative goes there.
    centred = slope(iv.at(lambda x: x - x.mean(0), position=1), x)
    direct = jax.grad(lambda x: (x.at[1].set(x[1] - x.mean(0)) * weights).sum())(x)
    np.testing.assert_allclose(centred, direct, rtol=1e-6)


# What used to break.


def test_a_while_loop_with_a_condition_for_each_example() -> None:
    def f(x: Any, n: Any) -> Any:
        return jax.lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, ij.site(2 * c[1], "h")), (0, x))[1]

    ns = jnp.array([0, 1, 3])
    xs = jnp.ones((3, 2))
    out, acts = ij.capture(jax.vmap(f), "h")(xs, ns)
    np.testing.assert_array_equal(out, jax.vmap(f)(xs, ns))
    np.testing.assert_array_equal(
        acts["h"], jnp.stack([ij.capture(f, "h")(x, n)[1]["h"] for x, n in zip(xs, ns, strict=True)])
    )
    edits = {"h": iv.add(1.0)}
    inside = jnp.stack([ij.intervene(f, edits)(x, n) for x, n in zip(xs, ns, strict=True)])
    np.testing.assert_array_equal(ij.intervene(jax.vmap(f), edits)(xs, ns), inside)
    nested = jax.vmap(jax.vmap(f, (0, None)), (None, 0))
    np.testing.assert_array_equal(
        ij.intervene(nested, edits)(xs, ns), np.array([[ij.intervene(f, edits)(x, n) for x in xs] for n in ns])
    )


def test_a_scan_without_iterations() -> None:
    def f(x: Any) -> Any:
        return jax.lax.scan(lambda c, w: (ij.site(c * w, "h"), None), x, jnp.ones(0))[0]

    assert ij.capture(f, "h", output=False)(VALUES)["h"].shape == (0, *VALUES.shape)
    np.testing.assert_array_equal(ij.intervene(f, {"h": iv.zero()})(VALUES), VALUES)
    assert "none" in repr(ij.sites(f, VALUES))


@pytest.mark.parametrize("f", [scanned, looped])
def test_reducers_return_any_pytree(f: Any) -> None:
    where = {"blocks.gate": lambda h: {"most": h.max(), "rows": (h.sum(-1), [h[0]])}, "final": jnp.max}
    acts = ij.capture(f, where, output=False)(params(), inputs())
    full = ij.capture(f, ["blocks.gate", "final"], output=False)(params(), inputs())
    close(acts["blocks.gate"]["most"], full["blocks.gate"].max((1, 2, 3)))
    close(acts["blocks.gate"]["rows"][1][0], full["blocks.gate"][:, 0])
    close(acts["final"], full["final"].max())
    refused(
        "reducer of site 'final' returned no array",
        lambda: ij.capture(f, {"final": lambda h: None})(params(), inputs()),
    )


@pytest.mark.parametrize(
    ("edit", "words", "kind"),
    [
        (lambda h: h + jnp.ones(7), "'blocks.gate' raised ValueError: Incompatible shapes", ValueError),
        (lambda h: h @ jnp.ones((9, 2)), "'blocks.gate' raised TypeError", TypeError),
        (lambda h: h if h.mean() > 0 else -h, "'blocks.gate' needs a value that is traced.*jnp.where", TypeError),
        (lambda h: h + np.asarray(h), "'blocks.gate'", TypeError),
        (lambda h: h.nothing, "'blocks.gate' raised AttributeError", AttributeError),
        (lambda h: {}["key"], "blocks.gate.* raised KeyError", KeyError),
        (lambda h: 1 / 0, "'blocks.gate' raised ZeroDivisionError", RuntimeError),
    ],
)
def test_what_goes_wrong_in_an_edit_names_the_site(edit: Any, words: str, kind: type) -> None:
    for f in (scanned, looped, jax.jit(scanned)):
        for transform in (ij.intervene(f, {"blocks.gate": edit}), ij.capture(f, {"blocks.gate": edit})):
            refused(words, partial(transform, params(), inputs()), kind)


def test_sites_of_a_guest_that_are_numbered_in_their_names() -> None:
    def guest(x: Any) -> Any:
        for i in range(3):
            x = ij.site(2 * x, f"blocks.{i}.out")
        return ij.site(x, "last")

    def names(address: str) -> set[str]:
        return set(ij.capture(guest, address, output=False)(VALUES))

    assert names("blocks.1.*") == names("blocks.1.out") == {"blocks.1.out"}
    assert names("blocks.*") == names("*.out") == {f"blocks.{i}.out" for i in range(3)}
    refused("'blocks.7.*' matches no site; near names: blocks", lambda: names("blocks.7.*"))


def test_a_function_that_calls_a_model_several_times() -> None:
    def f(x: Any) -> Any:
        return here(here(x))

    refused(
        "declared twice.*calls a model several times, transform the single call", lambda: ij.capture(f, "h")(VALUES)
    )


def test_a_value_is_one_array() -> None:
    refused("a value is one array, not a dict", lambda: ij.site({"a": VALUES}, "h"), TypeError)
    refused("a value is one array, not a tuple", lambda: ij.site((VALUES,), "h"), TypeError)


def test_checks_and_scopes_are_seen_through_a_detail() -> None:
    def f(x: Any) -> Any:
        def fast(x: Any) -> Any:
            checkify.check(x.sum() < 0, "positive")
            return jnp.log(x)

        return ij.detail(fast, lambda x: ij.site(jnp.log(x), "h"), x)

    x = jnp.arange(3.0)
    for g in (
        f,
        jax.jit(f),
        jax.vmap(lambda x: f(x[None])),
        ij.intervene(lambda x: f(ij.site(x, "x")), {"x": iv.add(1.0)}),
    ):
        assert "positive" in checkify.checkify(g)(x)[0].get()
    quiet = lambda x: ij.detail(jnp.log, lambda x: ij.site(jnp.log(x), "h"), x)  # noqa: E731
    for g in (quiet, ij.capture(quiet, "h"), jax.grad(lambda x: quiet(x).sum())):
        assert "nan" in checkify.checkify(g, errors=checkify.float_checks)(-x - 1)[0].get()

    def scoped(x: Any) -> Any:
        with jax.named_scope("a_scope"):
            return ij.detail(jnp.sin, lambda x: ij.site(jnp.sin(x), "h"), ij.site(2 * x, "in"))

    for g in (scoped, ij.capture(scoped, "h"), ij.intervene(scoped, {"in": iv.add(1.0)})):
        assert "a_scope" in jax.jit(g).lower(x).as_text(debug_info=True)
