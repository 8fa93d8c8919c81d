"""Laws 1, 2, 3, 8 and 9: what is read, and that reading changes nothing."""

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax.interventions import add, at, replace
from tests.laws.functions import BATCH, D_MODEL, LAYERS, POSITIONS, SITES, close, inputs, looped, params, scanned

LAYERED = [name for name in SITES if name.startswith("blocks")]


def test_no_edits_is_the_function() -> None:
    assert ij.intervene(scanned, {}) is scanned


@pytest.mark.parametrize("f", [scanned, looped])
def test_an_identity_changes_no_bit(f) -> None:
    args = params(), inputs()
    same = ij.intervene(f, dict.fromkeys(SITES, lambda x: x))
    np.testing.assert_array_equal(same(*args), jax.jit(f)(*args))


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)])
@pytest.mark.parametrize("f", [scanned, looped])
def test_replacing_a_value_by_itself_changes_nothing(f, dtype, tolerance) -> None:
    args = params(dtype), inputs(dtype)
    out, acts = ij.capture(f, SITES)(*args)
    close(ij.intervene(f, {name: replace(acts[name]) for name in SITES})(*args), out, rtol=tolerance, atol=tolerance)
    for name in LAYERED:
        one = {name.replace("blocks", "blocks.2"): replace(acts[name][2])}
        close(ij.intervene(f, one)(*args), out, rtol=tolerance, atol=tolerance)


def test_capture_commutes_with_jit_remat_and_vmap() -> None:
    weights, x = params(), inputs()
    plain = ij.capture(scanned, SITES)(weights, x)
    close(jax.jit(ij.capture(scanned, SITES))(weights, x), plain)
    close(ij.capture(jax.jit(scanned), SITES)(weights, x), plain)
    close(ij.capture(jax.checkpoint(scanned), SITES)(weights, x), plain)
    xs = jnp.stack([x, 2 * x])
    names = [name for name in SITES if name != "final"]
    inside = jax.vmap(ij.capture(scanned, names), (None, 0))(weights, xs)
    outside = ij.capture(jax.vmap(scanned, (None, 0)), names)(weights, xs)
    close(outside[0], inside[0])
    for name in names:  # a mapped axis stands after the layer axis
        close(outside[1][name], jnp.moveaxis(inside[1][name], 0, 1) if name in LAYERED else inside[1][name])


def test_capture_sees_through_a_function_already_compiled() -> None:
    f = jax.jit(scanned)
    args = params(), inputs()
    f(*args)
    close(ij.capture(f, "blocks.2.resid_post")(*args)[1], ij.capture(scanned, "blocks.2.resid_post")(*args)[1])


def test_a_loop_equals_a_scan_for_captures() -> None:
    args = params(), inputs()
    where = [*SITES, "blocks.3.turn", "blocks.0.hook_resid_pre"]
    a, b = ij.capture(scanned, where)(*args), ij.capture(looped, where)(*args)
    close(a, b)
    assert a[1]["blocks.gate"].shape == (LAYERS, BATCH, POSITIONS, D_MODEL)
    close(a[1]["blocks.3.turn"], a[1]["blocks.turn"][3])
    close(a[1], ij.capture(scanned, where, output=False)(*args))


@pytest.mark.parametrize("f", [scanned, looped])
def test_an_outer_capture_sees_the_edited_value(f) -> None:
    args = params(), inputs()
    edits = {"blocks.2.resid_post": add(1.0), "blocks.gate": at(add(1.0), layer=3)}
    where = ["blocks.resid_post", "blocks.3.gate", "blocks.turn", "final"]
    direct = ij.capture(ij.intervene(f, edits), where)(*args)
    wrapped = ij.capture(lambda *a: ij.intervene(f, edits)(*a), where)(*args)
    close(direct, wrapped)
    plain = ij.capture(f, where)(*args)[1]
    close(direct[1]["blocks.resid_post"][2], plain["blocks.resid_post"][2] + 1)
    # The edited run, as the function sees it: what it adds at layer 2 reaches layer 3.
    close(ij.intervene(f, {"blocks.resid_post": replace(direct[1]["blocks.resid_post"])})(*args), direct[0])


@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_edits_apply_one_after_another(data) -> None:
    names = st.sampled_from(LAYERED)
    first, second = data.draw(names), data.draw(names)
    layers = data.draw(st.tuples(st.integers(0, LAYERS - 1), st.integers(0, LAYERS - 1)))
    a = {first: at(lambda x: 2 * x, layer=layers[0])}
    b = {second: at(lambda x: x + 1, layer=layers[1])}
    args = params(), inputs()
    for f in (scanned, looped):
        nested = ij.intervene(lambda *args: ij.intervene(f, a)(*args), b)(*args)  # noqa: B023  # called at once
        chained = [edit for edits in (a, b) for edit in edits.items()]
        if first == second:
            close(nested, ij.intervene(f, {first: ij.interventions.chain(*(edit for _, edit in chained))})(*args))
        else:
            close(nested, ij.intervene(f, dict(chained))(*args))


def test_nested_scans_give_two_leading_axes() -> None:
    def f(w, x):
        def inner(c, wi):
            return ij.site(jnp.tanh(c @ wi), "deep", axes=("d_model",)), None

        def outer(c, ws):
            c, _ = jax.lax.scan(inner, ij.site(c, "shallow"), ws)
            return c, None

        return jax.lax.scan(outer, x, w)[0]

    w, x = 0.5 * jax.random.normal(jax.random.key(0), (2, 3, D_MODEL, D_MODEL)), jnp.ones(D_MODEL)
    out, acts = ij.capture(f, ["deep", "shallow", "deep.1"])(w, x)
    assert acts["deep"].shape == (2, 3, D_MODEL)
    assert acts["shallow"].shape == (2, D_MODEL)
    close(acts["deep.1"], acts["deep"][:, 1])
    close(acts["deep"][-1, -1], out)
    close(acts["deep"][0, -1], acts["shallow"][1])
    close(ij.intervene(f, {"deep": replace(acts["deep"])})(w, x), out)
    edits = {"shallow": at(add(1.0), layer=1), "deep": at(add(1.0), layer=2)}
    nested = ij.capture(lambda *a: ij.intervene(f, edits)(*a), ["deep", "shallow"])(w, x)
    h, seen = x, []
    for i in range(2):
        h = h + (1.0 if i == 1 else 0.0)
        for j in range(3):
            h = jnp.tanh(h @ w[i, j]) + (1.0 if j == 2 else 0.0)
            seen.append(h)
    close(nested[0], h)
    close(nested[1]["deep"].reshape(6, -1), jnp.stack(seen))


def test_reversed_scans_and_reducers() -> None:
    def f(x):
        return jax.lax.scan(lambda c, y: (ij.site(c + y, "sum"), c), jnp.zeros(()), x, reverse=True)

    x = jnp.arange(5.0)
    (out, ys), acts = ij.capture(f, {"sum": lambda s: s * 2, "sum.3": None})(x)
    close(acts["sum"], 2 * jnp.cumsum(x[::-1])[::-1])
    close(acts["sum.3"], jnp.asarray(7.0))
    edited, edited_ys = ij.intervene(f, {"sum.3": lambda s: s + 100})(x)
    close(edited, out + 100)
    close(edited_ys, ys + jnp.where(jnp.arange(5) < 3, 100.0, 0.0))
    assert ij.capture(f, {"sum": jnp.max}, output=False)(x)["sum"].shape == (5,)


def test_globs_and_spellings() -> None:
    args = params(), inputs()
    _, acts = ij.capture(scanned, ["blocks.*.resid_post", "blocks.2.*", "blocks.1.hook_turn"])(*args)
    assert set(acts) == {"blocks.resid_post", "blocks.1.hook_turn", *(n.replace("s.", "s.2.", 1) for n in LAYERED)}
    close(acts["blocks.2.resid_post"], acts["blocks.resid_post"][2])


def test_values_in_while_and_cond() -> None:
    def f(x, n):
        last = jax.lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, ij.site(c[1] * 2, "turn")), (0, x))[1]
        return jax.lax.cond(n > 2, lambda y: ij.site(y + 1, "branch"), lambda y: ij.site(y - 1, "branch"), last)

    x = jnp.ones(3)
    for n in (3, 1):
        out, acts = ij.capture(f, ["turn", "branch"])(x, jnp.int32(n))
        close(acts["turn"], x * 2**n)
        close(acts["branch"], out)
    assert ij.capture(f, "turn")(x, jnp.int32(0))[1]["turn"].tolist() == [0, 0, 0]  # no iteration
    close(ij.intervene(f, {"turn": lambda t: t + 1, "branch": lambda b: -b})(x, jnp.int32(2)), -(x * 4 + 3 - 1))

    def one_sided(x):
        return jax.lax.cond(x.sum() > 0, lambda y: ij.site(y, "branch"), lambda y: y, x)

    with pytest.raises(ValueError, match=r"'branch' cannot be captured: 1 of the 2 branches"):
        ij.capture(one_sided, "branch")(x)
    close(ij.intervene(one_sided, {"branch": lambda y: y * 5})(x), 5 * x)


def test_shards_are_captured_side_by_side() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    def local(w, x):
        return jax.lax.scan(lambda c, wi: (ij.site(jnp.tanh(c @ wi), "local"), None), x, w)[0]

    f = jax.shard_map(local, mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec("data"))
    w, x = params()["blocks"], inputs()[:, 0]
    out, acts = ij.capture(f, "local")(w, x)
    assert acts["local"].shape == (LAYERS, 8, 1, D_MODEL)  # layer, shard, what one device holds
    close(acts["local"][-1, :, 0], out)
    first = ij.intervene(f, {"local.0": lambda v: v * 0})(w, x)
    close(first, local(w[1:], jnp.zeros_like(x)))


def test_on_demand_sites() -> None:
    def f(w, x):
        def step(c, wi):
            def detailed(c, wi):
                return ij.site(c[:, None] * wi, "products", axes=("in", "out")).sum(0)

            return ij.site(ij.detail(jnp.matmul, detailed, c, wi), "product"), None

        return jax.lax.scan(step, x, w)[0]

    w, x = params()["blocks"], jnp.ones(D_MODEL)
    assert ij.sites(f, w, x)["products"].on_demand
    out, acts = ij.capture(f, ["products", "product"])(w, x)
    close(acts["products"].sum(1), acts["product"])
    close(ij.intervene(f, {"products": replace(acts["products"])})(w, x), out)
    assert not np.allclose(ij.intervene(f, {"products.2": lambda p: 2 * p})(w, x), out)
    # The choice survives an edit elsewhere, also where that cuts the scan.
    for edit, edited in ((add(1.0), range(LAYERS)), (at(add(1.0), layer=1), (1,))):
        outer = ij.capture(lambda *a: ij.intervene(f, {"product": edit})(*a), ["products", "product"])(w, x)  # noqa: B023
        close(
            outer[1]["products"].sum(1) + jnp.array([[float(i in edited)] for i in range(LAYERS)]),
            outer[1]["product"],
        )
    close(jax.vmap(f, (None, 0))(w, jnp.ones((2, D_MODEL))), jnp.stack([out, out]))
    with pytest.raises(ValueError, match="differentiated"):
        ij.intervene(jax.grad(lambda w, x: f(w, x).sum()), {"products": lambda p: p})(w, x)


def test_names_of_checkpoint_name_are_read_only_sites() -> None:
    def f(x):
        return jax.lax.scan(lambda c, _: (checkpoint_name(c * 2, "doubled"), None), x, None, length=3)[0]

    _, acts = ij.capture(f, "doubled")(jnp.ones(2))
    assert acts["doubled"].tolist() == [[2, 2], [4, 4], [8, 8]]
    with pytest.raises(ValueError, match="cannot be edited"):
        ij.intervene(f, {"doubled": lambda x: x})(jnp.ones(2))


def test_captures_stay_sharded() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    weights, x = params(), jax.device_put(inputs(), rows)
    edited = ij.intervene(scanned, {"blocks.2.resid_post": add(jnp.ones(D_MODEL))})
    compiled = jax.jit(ij.capture(edited, "blocks.resid_post")).lower(weights, x).compile()
    assert "all-gather" not in compiled.as_text()
    _, acts = compiled(weights, x)
    assert acts["blocks.resid_post"].sharding.shard_shape((LAYERS, BATCH, POSITIONS, D_MODEL))[1] == 1
    close(acts, ij.capture(edited, "blocks.resid_post")(weights, inputs())[1])


def test_explicit_shardings() -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))

    def f(w, x):
        step = jax.checkpoint(lambda c, wi: (ij.site(jnp.tanh(ij.site(c, "in") @ wi), "out"), None))
        return jax.jit(partial(jax.lax.scan, step))(x, w)[0]

    with jax.set_mesh(mesh):
        x = jax.device_put(inputs()[:, 0], jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
        w = jax.device_put(params()["blocks"], jax.NamedSharding(mesh, jax.sharding.PartitionSpec()))
        out, acts = ij.capture(f, ["out", "out.1"])(w, x)
        assert jax.typeof(acts["out"]).sharding.spec[1] == "data"
        close(
            ij.intervene(f, {"out": replace(acts["out"]), "in": at(replace(0.0), layer=3)})(w, x),
            jnp.tanh(jnp.zeros_like(x)) * 0 + acts["out"][-1],
        )
        value, _, slopes = ij.grads(f, jnp.sum, ["out", "out.1"])(w, x)
    close(value, out.sum())
    close(slopes["out"][-1], jnp.ones_like(out))
