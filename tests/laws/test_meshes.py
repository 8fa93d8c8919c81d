"""The laws on a mesh: library edits, captures and gradients, Auto and Explicit axes, scan, loop and shard_map."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from tests.laws.functions import close

AXES = ("batch", "position", "d")
WEIGHTS = (0.5 + 0.1 * jnp.arange(5.0))[:, None, None] * jnp.eye(4)
X = jnp.linspace(-1, 1, 8 * 3 * 4).reshape(8, 3, 4)
V = jnp.arange(4.0)


def block(x: Any, w: Any, layer: int | None = None) -> Any:
    x = ij.site(x, "in", layer=layer, axes=AXES)
    return ij.site(jnp.tanh(x @ w), "h", layer=layer, axes=AXES)


def scan(w: Any, x: Any) -> Any:
    return jax.lax.scan(lambda c, wi: (block(c, wi), None), x, w)[0]


def loop(w: Any, x: Any) -> Any:
    for i in range(5):
        x = block(x, w[i], i)
    return x


EDITS = {
    "add": iv.add(V),
    "zero": iv.zero(),
    "scale": iv.scale(0.5),
    "replace": iv.replace(V),
    "mean": iv.mean_ablate(),
    "a mean": iv.mean_ablate(V),
    "project": iv.project_out(V),
    "clamp": iv.clamp(-0.1, 0.1),
    "noise": iv.noise(jax.random.key(0)),
    "position": iv.at(iv.zero(), position=-1),
    "layer": iv.at(iv.replace(V), layer=2),
    "traced layer": iv.at(iv.add(V), layer=jnp.int32(-2)),
    "index": iv.at(iv.add(1.0), axis=-1, index=1),
    "per layer": iv.per_layer(iv.add(jnp.arange(5.0))),
    "chain": iv.chain(iv.add(V), iv.zero(), iv.add(1.0)),
    "function": lambda h: 2 * h,
    "zeros": lambda h: jnp.zeros(h.shape),
    "constant": lambda h: jnp.ones(h.shape, h.dtype) * V,
    "via": iv.via({"a": "in"}, lambda h, a: h + a),
    "where it may": iv.at(jnp.sqrt, position=0),
}
WHOLE = {
    "stack": iv.replace(jnp.ones((5, 8, 3, 4))),
    "mask": iv.at(iv.zero(), mask=jnp.ones((8, 3), bool)),
    "ragged": iv.at(iv.zero(), position=jnp.arange(8) % 3),
}
FUNCTIONS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "scan": lambda mesh: scan,
    "loop": lambda mesh: jax.jit(loop),
    "shard_map scan": lambda mesh: sharded(mesh, scan, True),
    "shard_map scan unchecked": lambda mesh: sharded(mesh, scan, False),
    "shard_map loop": lambda mesh: sharded(mesh, loop, True),
    "auto_axes": lambda mesh: jax.sharding.auto_axes(scan, out_sharding=PartitionSpec("data")),
}
LONG = ("loop", "shard_map scan unchecked", "shard_map loop")
CASES = [
    pytest.param(kind, name, marks=[pytest.mark.long] * (name in LONG))
    for kind in ("Auto", "Explicit")
    for name in FUNCTIONS
    if (kind, name) != ("Auto", "auto_axes")
]


def sharded(mesh: Any, f: Any, check: bool) -> Any:
    rows = PartitionSpec("data")
    return jax.shard_map(f, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=check)


@pytest.fixture
def case(kind: str, name: str) -> Any:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(getattr(AxisType, kind),))
    with jax.set_mesh(mesh):
        everywhere, rows = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("data")))
        yield name, FUNCTIONS[name](mesh), (jax.device_put(WEIGHTS, everywhere), jax.device_put(X, rows))


def each(f: Any, edits: dict[str, Any]) -> Callable[..., Any]:
    """All edits in one program, so that it compiles once."""
    return jax.jit(lambda w, x: {name: ij.intervene(f, {"h": edit})(w, x) for name, edit in edits.items()})


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The edits without a mesh: of the whole batch, and of each row by itself, which is what a shard sees."""
    whole, rows = each(scan, EDITS | WHOLE)(WEIGHTS, X), [each(scan, EDITS)(WEIGHTS, X[i : i + 1]) for i in range(8)]
    return {"whole": whole, "rows": jax.tree.map(lambda *x: jnp.concatenate(x), *rows)}


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_edits(case: Any, alone: dict[str, Any]) -> None:
    name, f, args = case
    shards = name.startswith("shard_map")
    expected = alone["rows" if shards else "whole"]
    got = each(f, EDITS if shards else EDITS | WHOLE)(*args)
    for edit, value in jax.device_get(got).items():
        np.testing.assert_allclose(value, expected[edit], atol=1e-5, err_msg=edit)
    for edit in WHOLE if shards else ():
        with pytest.raises(ValueError, match="inside shard_map an edit sees one shard") as error:
            ij.intervene(f, {"h": WHOLE[edit]})(*args)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_gradients_and_captures(case: Any) -> None:
    name, f, args = case
    where = ["in", "h", "h.2"]
    loss = lambda y: (y**2).sum((1, 2))  # noqa: E731
    expected = ij.grads(scan, loss, where)(WEIGHTS, X)
    got = jax.jit(ij.grads(f, loss, where))(*args)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5)
    for here, there in zip(got[1:], expected[1:], strict=True):
        for key in where:
            np.testing.assert_allclose(np.reshape(here[key], there[key].shape), there[key], atol=1e-5)
    close(
        jax.grad(lambda x: ij.intervene(f, {"h": iv.add(V)})(args[0], x).sum())(args[1]),
        jax.grad(lambda x: ij.intervene(scan, {"h": iv.add(V)})(WEIGHTS, x).sum())(X),
    )
    close(jax.grad(lambda x: ij.freeze(f, "h")(args[0], x).sum())(args[1]), jnp.zeros_like(X))


def test_nothing_is_gathered() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        args = WEIGHTS, jax.device_put(X, NamedSharding(mesh, PartitionSpec("data")))
        for f in (scan, jax.sharding.auto_axes(scan, out_sharding=PartitionSpec("data"))):
            run = jax.jit(ij.capture(ij.intervene(f, {"h": EDITS["chain"]}), ["h", "in.1"]))
            assert "all-gather" not in run.lower(*args).compile().as_text()
