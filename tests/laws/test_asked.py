"""Law 15: what is asked for happens, or is refused in one line that says what, where and the remedy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from tests.laws.functions import BATCH, D_MODEL, LAYERS, POSITIONS, close, inputs, looped, params, scanned

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


# Stacks of layers, kinds of numbers.


@pytest.mark.parametrize("f", [scanned, looped])
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (iv.per_layer(iv.add(jnp.ones((LAYERS - 1, D_MODEL)))), "has 5 layers.*shape .4, 4.*the layers"),
        (iv.replace(jnp.ones((3, BATCH, POSITIONS, D_MODEL))), "stands in 5 layers.*stack of 3 layers"),
        (iv.add(jnp.ones((7, BATCH, POSITIONS, D_MODEL))), "stack of 7 layers"),
        (iv.project_out(jnp.ones((3, D_MODEL))), "stack of 3 layers"),
        (iv.per_layer(iv.add(1.0)), "first axis must be the layers"),
    ],
)
def test_a_stack_of_another_number_of_layers(f: Any, edit: Any, words: str) -> None:
    refused(words, lambda: ij.intervene(f, {SITE: edit})(params(), inputs()))


def test_under_vmap_a_batch_is_not_taken_for_layers() -> None:
    weights = params()
    for n, words in ((3, "stack of 3 layers.*inside the vmap"), (LAYERS, "5 layers under a vmap of as many")):
        xs = jnp.stack([inputs(seed=i) for i in range(n)])
        f = jax.vmap(scanned, (None, 0))
        one = ij.capture(f, "blocks.2.resid_post", output=False)(weights, xs)["blocks.2.resid_post"]
        refused(words, lambda: ij.intervene(f, {"blocks.2.resid_post": iv.replace(one)})(weights, xs))  # noqa: B023
        inside = jax.vmap(lambda x, v: ij.intervene(scanned, {"blocks.2.resid_post": iv.replace(v)})(weights, x))
        close(inside(xs, one), f(weights, xs))
        stack = ij.capture(scanned, SITE, output=False)(weights, xs[0])[SITE]
        same = jnp.stack([xs[0]] * n)
        close(ij.intervene(f, {SITE: iv.per_layer(iv.replace(stack))})(weights, same), f(weights, same))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
@pytest.mark.parametrize(
    "edit",
    [iv.add(0.5), iv.replace(0.5), iv.scale(1.5), iv.clamp(0.5), iv.mean_ablate(), iv.project_out(jnp.ones(4))]
    + [iv.noise(jax.random.key(0)), iv.replace(jnp.ones(4, jnp.complex64)), iv.at(iv.add(0.5), head=1)],
)
def test_a_site_of_integers_is_not_edited_by_halves(dtype: Any, edit: Any) -> None:
    refused("does not fit", lambda: edited(edit, x=VALUES.astype(dtype)))
    assert not edited(iv.zero(), x=VALUES.astype(dtype)).any()


def test_integers_are_edited_by_integers() -> None:
    np.testing.assert_array_equal(edited(iv.add(2), x=VALUES.astype(jnp.int32)), VALUES + 2)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8])
def test_numbers_fit_the_integers_of_a_site(dtype: Any) -> None:
    x, low, high = (VALUES % 5).astype(dtype), int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
    for bad in (low - 1, high + 1):
        for make in (iv.add, iv.replace, iv.scale, iv.mean_ablate, lambda b: iv.at(iv.replace([0, 1, 2, b]), head=3)):
            refused(f"{bad} is out of range", lambda make=make, bad=bad: edited(make(bad), x=x))
    np.testing.assert_array_equal(edited(iv.clamp(low - 200, high + 200), x=x), x)
    np.testing.assert_array_equal(edited(iv.clamp(1, 10**6), x=x), np.maximum(x, 1))


def test_a_complex_direction_is_projected_out() -> None:
    direction = np.array([1, 1j, 2, 0], np.complex64)
    left = edited(iv.project_out(direction), x=jax.lax.complex(VALUES, VALUES[::-1]))
    np.testing.assert_allclose(left @ direction.conj(), 0, atol=1e-4)


class Unregistered(ij.interventions.Intervention):
    def __call__(self, value: Any, ctx: Any) -> Any:
        return value


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: iv.at(iv.zero(), mask="all"), "mask= is an array"),
        (lambda: iv.at(iv.zero(), mask=1.5), "mask= is an array"),
        (lambda: iv.add(None), "add takes numbers"),
        (lambda: iv.noise(0), "noise: key is"),
        (lambda: iv.per_layer(Unregistered()), "Unregistered is no pytree"),
        (lambda: iv.via(["a"], jnp.add), "via: sources are a mapping"),
        (lambda: iv.via({"a": "a"}, None), "via: fn is a function"),
        (lambda: ij.intervene(here, [("h", iv.zero())]), "edits are a mapping"),
        (lambda: ij.intervene(here, {1: iv.zero()}), "address is a string"),
        (lambda: ij.capture(here, None), "where is an address"),
        (lambda: ij.grads(here, None, "h"), "a metric is a function"),
        (lambda: ij.grads(here, lambda x: (x, x), "h")(VALUES), "a metric returns one real number"),
        (lambda: ij.freeze(here, "h", 3), "values are a mapping"),
        (lambda: ij.site(VALUES, "h", axes="head"), "axes are a sequence"),
    ],
)
def test_what_is_of_a_wrong_type_is_told(call: Any, words: str) -> None:
    refused(words, call, TypeError)


def test_a_reducer_reads_no_other_site() -> None:
    refused("'a' here.*a reducer may not", lambda: ij.capture(here, {"h": iv.via({"a": "a"}, jnp.add)})(VALUES))


# Several sites.


def two(x: Any) -> Any:
    q, k = ij.site(x, "blocks.attn.q"), ij.site(x, "blocks.attn.k")
    return ij.site(q * x, "o") + k * x


def test_freeze_holds_what_is_named() -> None:
    x, acts = jnp.ones(3), ij.capture(two, ["blocks.attn.q", "blocks.attn.k", "o"], output=False)(jnp.ones(3))
    slope = jax.grad(lambda x: ij.freeze(two, "blocks.attn.*", acts)(x).sum())(x)
    np.testing.assert_allclose(slope, 2 * x)  # "o" is in acts, and is not held
    refused("'typo.*' matches no site", lambda: ij.freeze(two, "typo.*", acts)(x))
    refused("'typo.*' matches no site", lambda: ij.freeze(two, "typo.*")(x))
    some = {"blocks.attn.q": acts["blocks.attn.q"]}
    refused("no value for 'blocks.attn.k'", lambda: ij.freeze(two, "blocks.attn.*", some)(x))
    stack = ij.capture(scanned, "blocks.*", output=False)(params(), inputs())
    close(
        ij.freeze(scanned, "blocks.2.*", {k.replace("s.", "s.2.", 1): v[2] for k, v in stack.items()})(
            params(), inputs()
        ),
        scanned(params(), inputs()),
    )


def test_noise_is_another_at_each_site() -> None:
    noisy = ij.intervene(two, {"blocks.attn.*": iv.noise(jax.random.key(0))})
    acts = ij.capture(noisy, "blocks.attn.*", output=False)(jnp.zeros(1000))
    assert abs(np.corrcoef(acts["blocks.attn.q"], acts["blocks.attn.k"])[0, 1]) < 0.1


@pytest.mark.parametrize(
    "f",
    [
        lambda x: ij.site(ij.site(x, "h") + 1, "h"),
        lambda x: ij.site(x, "h") + ij.site(2 * x, "h"),
        lambda x: jnp.where(x > 0, ij.site(ij.site(x, "h"), "h"), x),
        lambda x: jax.lax.cond(x.sum() > 0, lambda x: ij.site(ij.site(x, "h"), "h"), lambda x: ij.site(x, "h"), x),
    ],
)
def test_a_name_declared_twice_is_refused_under_vmap_too(f: Any) -> None:
    for g in (jax.vmap(f), jax.vmap(jax.jit(f))):
        refused("declared twice", lambda g=g: ij.intervene(g, {"h": iv.add(1.0)})(VALUES))
        refused("declared twice", lambda g=g: ij.capture(g, "h")(VALUES))


def test_the_branches_of_a_mapped_cond_are_one_site() -> None:
    def f(x: Any) -> Any:
        return jax.lax.cond(x.sum() > 9, lambda x: 2 * ij.site(x, "h"), lambda x: 3 * ij.site(x, "h"), x)

    expected = jnp.stack([ij.intervene(f, {"h": iv.add(1.0)})(x) for x in VALUES])
    np.testing.assert_allclose(ij.intervene(jax.vmap(f), {"h": iv.add(1.0)})(VALUES), expected)
    assert ij.sites(jax.vmap(f), VALUES)["h"].shape == VALUES.shape
    refused("select.*capture inside the vmap", lambda: ij.capture(jax.vmap(f), "h")(VALUES))


def test_via_between_vmaps_that_have_nothing_to_do_with_each_other() -> None:
    def f(x: Any, y: Any) -> Any:
        return jax.vmap(lambda a: ij.site(2 * a, "a"))(x), jax.vmap(lambda b: ij.site(3 * b, "b"))(y)

    edits = {"b": iv.via({"a": "a"}, lambda b, a: b + a.sum())}
    x, y = jnp.arange(12.0).reshape(4, 3), jnp.ones((4, 2))
    for g in (
        f,
        jax.jit(f),
        lambda x, y: (jax.jit(jax.vmap(lambda a: ij.site(a, "a")))(x), jax.vmap(lambda b: ij.site(b, "b"))(y)),
    ):
        refused("another vmap.*put intervene inside", lambda g=g: ij.intervene(g, edits)(x, y))

    def together(x: Any, y: Any) -> Any:
        a = ij.site(2 * x, "a")
        return ij.site(3 * y + jnp.tanh(a @ jnp.ones((3, 2))), "b")

    expected = jnp.stack([ij.intervene(together, edits)(*row) for row in zip(x, y, strict=True)])
    close(ij.intervene(jax.vmap(together), edits)(x, y), expected)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_a_site_in_the_forward_of_a_custom_vjp(wrap: Any) -> None:
    @jax.custom_vjp
    def g(x: Any) -> Any:
        return 2 * x

    g.defvjp(lambda x: (ij.site(2 * x, "h"), None), lambda _, ct: (2 * ct,))
    f = wrap(lambda x: g(x).sum())
    for differentiated in (jax.grad(f), jax.value_and_grad(f), lambda x: jax.vjp(f, x)[1](1.0), jax.vmap(jax.grad(f))):
        refused(r"jax.grad\(intervene", lambda d=differentiated: ij.intervene(d, {"h": iv.zero()})(VALUES))
