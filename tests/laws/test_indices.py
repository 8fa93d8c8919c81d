"""Law 15 of indices: one that is out of range is refused, a negative one counts from the end of what is real."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from tests.laws.functions import D_MODEL, LAYERS, POSITIONS, inputs, looped, params, scanned

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


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("axis", ["position", "head", "index", "layer", "axis"])
@pytest.mark.parametrize("bad", [1.0, np.float32(1), jnp.float32(0), True, np.array([True, False, True]), "one", [0.5]])
def test_an_index_is_an_integer(axis: str, bad: Any) -> None:
    if axis == "position" and isinstance(bad, str):
        return refused("neither an index nor", lambda: iv.at(iv.zero(), position=bad))
    where = {"index": {"axis": -1, "index": bad}, "axis": {"axis": bad, "index": 0}}.get(axis, {axis: bad})
    return refused(f"{axis}= takes .*integer", lambda: iv.at(iv.zero(), **where), TypeError)


@pytest.mark.parametrize("f", [scanned, looped])
@pytest.mark.parametrize("address", ["blocks.resid_post", "blocks.1.resid_post"])
@pytest.mark.parametrize(
    "edit",
    [
        iv.at(iv.at(iv.zero(), layer=2), layer=1),
        iv.at(iv.at(iv.zero(), layer=-1), layer=1),
        iv.at(iv.chain(iv.at(iv.zero(), layer=1), iv.at(iv.zero(), layer=2)), layer=1),
        iv.chain(iv.at(iv.zero(), layer=1), iv.at(iv.at(iv.zero(), layer=0), layer=-2)),
    ],
)
def test_layers_that_contradict_each_other(f: Any, address: str, edit: Any) -> None:
    refused("chooses nothing.*confined to", lambda: ij.intervene(f, {address: edit})(params(), inputs()))


@pytest.mark.parametrize("f", [scanned, looped])
def test_choices_that_agree_are_one(f: Any) -> None:
    def run(edits: Any) -> np.ndarray:
        return np.asarray(ij.intervene(f, edits)(params(), inputs()))

    last = LAYERS - 1
    same = run({SITE: iv.at(iv.zero(), layer=last)})
    for edit in (iv.at(iv.at(iv.zero(), layer=-1), layer=last), iv.at(iv.at(iv.zero(), layer=last), layer=-1)):
        np.testing.assert_array_equal(run({SITE: edit}), same)
    np.testing.assert_array_equal(run({f"blocks.{last}.resid_post": iv.at(iv.zero(), layer=-1)}), same)
    np.testing.assert_array_equal(run({f"blocks.{last}.resid_post": iv.at(iv.zero(), layer=jnp.int32(-1))}), same)
    refused("layer=2 is out of range", lambda: run({"blocks.1.resid_post": iv.at(iv.zero(), layer=jnp.int32(2))}))


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: iv.chain(iv.add(1.0), e)])
@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ({"head": 2}, {"head": 1}),
        ({"head": -2}, {"head": [-1, -3]}),
        ({"position": 0}, {"position": [1, 2]}),
        ({"axis": -1, "index": 1}, {"axis": -1, "index": 2}),
        ({"position": "prompt"}, {"position": "generated"}),
    ],
)
def test_places_that_contradict_each_other(wrap: Any, inner: dict[str, Any], outer: dict[str, Any]) -> None:
    refused("no place is in both", lambda: iv.at(wrap(iv.at(iv.zero(), **inner)), **outer))


def test_the_indices_of_every_layer_are_looked_at() -> None:
    def f(x: Any) -> Any:
        return jax.lax.scan(
            lambda c, i: (ij.site(c + i, "h", axes=("batch", "position", "head")), None), x, jnp.ones(2)
        )[0]

    for name, size in (("head", 4), ("position", 3)):
        good = iv.per_layer(iv.at(iv.zero(), **{name: [0, size - 1]}))
        assert not np.array_equal(edited(good, f), f(VALUES))
        bad = iv.per_layer(iv.at(iv.zero(), **{name: jnp.array([0, size])}))
        refused(f"{name}={size} is out of range", lambda bad=bad: edited(bad, f))


def test_an_edit_that_is_looked_at_runs_once() -> None:
    runs: list[int] = []

    def edit(x: Any) -> Any:
        runs.append(1)
        return jnp.sqrt(x)

    edited(iv.at(edit, position=1))
    assert len(runs) == 1


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
    np.testing.assert_allclose(edited(iv.mean_ablate(), f, values), np.where(values == 9, 9, 3))
    for edit in (iv.add(1.0), lambda x: x + 1, lambda x: jnp.log(x - 9)):  # padding is left alone, by its slope, too
        there = np.asarray(values == 9)
        assert edited(edit, f, values)[there].tolist() == [9]
        slopes = jax.grad(lambda x: ij.intervene(f, {"h": edit})(x).sum(where=values == 9))(values)  # noqa: B023
        np.testing.assert_array_equal(slopes, there)
