"""Law 15: what is asked for happens, or is refused in one line that says what, where and the remedy."""

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


# Indices.


NUMBERS = [int, np.int64, jnp.int32, np.array]


@pytest.mark.parametrize(
    ("axis", "make"),
    [(axis, make) for axis in ("position", "head", "index", "layer") for make in NUMBERS]
    + [(axis, lambda i: jnp.array([i, i])) for axis in ("position", "head")],
)
def test_an_index_out_of_range_is_refused_and_a_negative_one_counts_from_the_end(axis: str, make: Any) -> None:
    size = {"position": POSITIONS, "head": D_MODEL, "index": D_MODEL, "layer": LAYERS}[axis]

    def f(x: Any) -> Any:
        def step(c: Any, i: Any) -> Any:
            return ij.site(c + i, "h", axes=("batch", "position", "head")), None

        return jax.lax.scan(step, x, jnp.arange(1.0, 1.0 + LAYERS))[0]

    def at(i: int) -> Any:
        chosen = make(i)
        choice = {"axis": -1, "index": chosen} if axis == "index" else {axis: chosen}
        return iv.at(iv.zero(), **choice)

    x = inputs()[:2]
    for bad in (size, size + 90, -size - 1):
        refused(f"{bad}.*(out of range|no layer)", lambda bad=bad: edited(at(bad), f, x))
    for good in range(size):
        same = edited(at(good), f, x)
        assert not np.array_equal(same, f(x))
        np.testing.assert_array_equal(edited(at(good - size), f, x), same)


def test_indices_are_looked_at_in_each_call_and_in_a_user_s_jit() -> None:
    for position in (0, 2, 1):
        edited(iv.at(iv.zero(), position=position))
    refused("position=3 is out of range", lambda: edited(iv.at(iv.zero(), position=3)))
    edited(iv.at(iv.zero(), position=4), x=jnp.ones((2, 5, 4)))
    refused("position=4 is out of range", lambda: edited(iv.at(iv.zero(), position=4)))
    refused("head=9 is out of range", lambda: jax.jit(lambda x: edited_in_place(x, head=9))(VALUES))
    traced = jax.jit(lambda x, i: ij.intervene(here, {"h": iv.at(iv.zero(), head=i)})(x))(VALUES, 3)
    np.testing.assert_array_equal(traced, edited(iv.at(iv.zero(), head=3)))


def edited_in_place(x: Any, **where: Any) -> Any:
    return ij.intervene(here, {"h": iv.at(iv.zero(), **where)})(x)


def test_several_heads_are_several_heads_whatever_the_batch() -> None:
    for n in (1, 2, 3):
        x = jnp.ones((n, 3, 4))
        np.testing.assert_array_equal(edited(iv.at(iv.zero(), head=[0, 2]), x=x).sum((0, 1)), [0, 3 * n, 0, 3 * n])
    np.testing.assert_array_equal(
        edited(iv.at(iv.zero(), position=[-1, 0]), x=jnp.ones((2, 3, 4)))[..., 0], [[1, 1, 0], [0, 1, 1]]
    )
    refused("one per example", lambda: edited(iv.at(iv.zero(), position=[0, 1, 2])))


@pytest.mark.parametrize("padding", ["left", "right"])
def test_positions_count_real_tokens_on_either_side(padding: str) -> None:
    length = jnp.array([2, 3])
    offset = length - 3 if padding == "left" else None

    def f(x: Any) -> Any:
        return ij.site(x, "h", axes=("batch", "position"), offset=offset, length=length)

    x = jnp.ones((2, 3))
    rows = {"left": {-1: [[1, 1, 0], [1, 1, 0]], 0: [[1, 0, 1], [0, 1, 1]], 2: [[1, 1, 1], [1, 1, 0]]}}
    rows["right"] = {-1: [[1, 0, 1], [1, 1, 0]], 0: [[0, 1, 1], [0, 1, 1]], 2: [[1, 1, 1], [1, 1, 0]]}
    for position, expected in rows[padding].items():
        np.testing.assert_array_equal(edited(iv.at(iv.zero(), position=position), f, x), expected)
    values = (
        jnp.array([[9.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
        if padding == "left"
        else jnp.array([[2.0, 4.0, 9.0], [3.0, 3.0, 3.0]])
    )
    np.testing.assert_allclose(edited(iv.mean_ablate(), f, values), np.full((2, 3), 3.0))


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
