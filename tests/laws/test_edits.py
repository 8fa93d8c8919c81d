"""Laws 4, 9, 10 and 11: what edits do, against functions edited by hand."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from tests.laws.functions import D_MODEL, LAYERS, SITES, by_hand, close, inputs, looped, params, scanned

LAYERED = [name for name in SITES if name.startswith("blocks")]
VECTOR = jnp.arange(1.0, 1.0 + D_MODEL)


def mask(shape, axis: int, index: int):
    return jnp.expand_dims(jnp.arange(shape[axis]) == index, tuple(range(1, -axis)))


def unit(v):
    return v / jnp.linalg.norm(v)


# Each: the library's edit, and the same written by hand as (value, layer) -> value.
EDITS = {
    "function": (lambda x: 2 * x, lambda x, i: 2 * x),
    "add": (iv.add(VECTOR), lambda x, i: x + VECTOR),
    "replace": (iv.replace(VECTOR), lambda x, i: jnp.broadcast_to(VECTOR, x.shape)),
    "zero": (iv.zero(), lambda x, i: 0 * x),
    "scale": (iv.scale(0.5), lambda x, i: x / 2),
    "clamp": (iv.clamp(-0.1, 0.2), lambda x, i: jnp.clip(x, -0.1, 0.2)),
    "mean": (iv.mean_ablate(), lambda x, i: jnp.broadcast_to(x.mean((0, 1), keepdims=True), x.shape)),
    "project": (iv.project_out(VECTOR), lambda x, i: x - (x @ unit(VECTOR))[..., None] * unit(VECTOR)),
    "layer": (iv.at(iv.add(1.0), layer=2), lambda x, i: x + float(i == 2)),
    "traced": (iv.at(iv.add(1.0), layer=jnp.int32(3)), lambda x, i: x + float(i == 3)),
    "position": (iv.at(iv.zero(), position=1), lambda x, i: jnp.where(mask(x.shape, -2, 1), 0, x)),
    "last": (iv.at(iv.zero(), position=-1), lambda x, i: jnp.where(mask(x.shape, -2, x.shape[-2] - 1), 0, x)),
    "index": (iv.at(iv.zero(), axis=-1, index=2), lambda x, i: jnp.where(mask(x.shape, -1, 2), 0, x)),
    "chain": (
        iv.chain(iv.add(1.0), lambda x: 3 * x, iv.at(iv.zero(), layer=1)),
        lambda x, i: 3 * (x + 1) * float(i != 1),
    ),
    "per_layer": (iv.per_layer(iv.add(jnp.arange(float(LAYERS)))), lambda x, i: x + float(i)),
}


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_equals_the_function_edited_by_hand(kind) -> None:
    edit, hand = EDITS[kind]
    args = params(), inputs()
    expected = by_hand({"blocks.resid_post": hand})
    for f in (scanned, looped):
        close(ij.intervene(f, {"blocks.resid_post": edit})(*args), expected(*args))


@given(data=st.data())
@settings(max_examples=6, deadline=None)
def test_any_edit_at_any_address(data) -> None:
    name = data.draw(st.sampled_from(LAYERED))
    layer = data.draw(st.none() | st.integers(0, LAYERS - 1))
    elsewhere = ("layer", "chain") if layer in (None, 3) else ("layer", "traced", "chain")  # at other layers: refused
    edit, hand = EDITS[data.draw(st.sampled_from([k for k in EDITS if k not in elsewhere]))]
    address = name if layer is None else name.replace("blocks", f"blocks.{layer}")
    args = params(), inputs(seed=data.draw(st.integers(0, 5)))
    expected = by_hand({name: lambda x, i: hand(x, i) if layer in (None, i) else x})(*args)
    close(ij.intervene(scanned, {address: edit})(*args), expected)
    close(ij.intervene(looped, {address: edit})(*args), expected)


@pytest.mark.parametrize("kind", ["function", "add", "project", "layer", "traced", "position", "chain", "per_layer"])
def test_intervene_commutes_with_jit_and_vmap(kind) -> None:
    edits = {"blocks.gate": EDITS[kind][0], "embed": EDITS["add"][0]}
    weights, xs = params(), jnp.stack([inputs(seed=i) for i in range(3)])
    inside = jax.vmap(ij.intervene(scanned, edits), (None, 0))(weights, xs)
    close(ij.intervene(jax.vmap(scanned, (None, 0)), edits)(weights, xs), inside)
    close(jax.jit(ij.intervene(jax.jit(jax.vmap(scanned, (None, 0))), edits))(weights, xs), inside)
    close(inside, jnp.stack([ij.intervene(scanned, edits)(weights, x) for x in xs]))


def test_under_vmap_an_edit_sees_one_example() -> None:
    shapes = []

    def edit(x):
        shapes.append(x.shape)
        return x - x.mean(0, keepdims=True)

    f = jax.vmap(jax.vmap(lambda x: ij.site(x * 2, "x").sum(-1), in_axes=1), in_axes=2)
    x = jax.random.normal(jax.random.key(0), (5, 3, 4))
    close(ij.intervene(f, {"x": edit})(x), jnp.zeros((4, 3)), atol=1e-5)
    assert set(shapes) == {(5,)}
    assert ij.capture(f, "x")(x)[1]["x"].shape == (4, 3, 5)


def test_a_mapped_cond_is_edited_in_both_branches() -> None:
    def f(x):
        return jax.lax.cond(x.sum() > 0, lambda x: ij.site(x, "x") * 2, lambda x: ij.site(x, "x") * 3, x)

    xs = jnp.array([[1.0, 2.0], [-1.0, -2.0]])
    edits = {"x": lambda x: x + 1}
    close(ij.intervene(jax.vmap(f), edits)(xs), jax.vmap(ij.intervene(f, edits))(xs))


def test_via_reads_the_same_layer_and_earlier_ones() -> None:
    args = params(), inputs()
    edits = {
        "blocks.gate": iv.via({"x": "blocks.resid_pre", "e": "embed"}, lambda h, x, e: h + x - e),
        "blocks.4.resid_post": iv.via({"a": "blocks.1.gate", "b": "blocks.4.resid_pre"}, lambda x, a, b: x + a * b),
    }
    seen = {}

    def gate(h, i):
        seen[i] = h + seen["pre"] - seen["embed"]
        return seen[i]

    hand = by_hand(
        {
            "embed": lambda x, i: seen.setdefault("embed", x),
            "blocks.resid_pre": lambda x, i: seen.update(pre=x) or x,
            "blocks.resid_post": lambda x, i: x + seen["kept"] * seen["pre"] if i == 4 else x,
            "blocks.gate": lambda h, i: seen.update(kept=gate(h, i)) or seen["kept"] if i == 1 else gate(h, i),
        }
    )
    # The branches of a cond are traced with the hand-edited values of their own layer: close over nothing traced.
    expected = _eager(hand)(*args)
    close(ij.intervene(scanned, edits)(*args), expected)
    close(ij.intervene(looped, edits)(*args), expected)
    grads = [jax.grad(lambda *a: ij.intervene(f, edits)(*a).sum())(*args) for f in (scanned, looped)]  # noqa: B023
    close(*grads, rtol=1e-4, atol=1e-4)
    xs = jnp.stack([args[1], 2 * args[1]])
    outside = ij.intervene(jax.vmap(scanned, (None, 0)), edits)(args[0], xs)
    close(outside, jax.vmap(ij.intervene(scanned, edits), (None, 0))(args[0], xs))


def _eager(f):
    def run(*args):
        with jax.disable_jit():
            return f(*args)

    return run


def test_via_refuses_what_is_not_met_before() -> None:
    args = params(), inputs()
    for f in (scanned, looped):
        for address, source in [("embed", "final"), ("blocks.2.gate", "blocks.3.resid_pre")]:
            with pytest.raises(ValueError, match="not met before"):
                ij.intervene(f, {address: iv.via({"x": source}, lambda v, x: v)})(*args)
        with pytest.raises(ValueError, match="no glob"):
            ij.intervene(f, {"final": iv.via({"x": "blocks.*"}, lambda v, x: v)})(*args)
        with pytest.raises(ValueError, match="give the address a number"):
            ij.intervene(f, {"final": iv.via({"x": "blocks.gate"}, lambda v, x: v)})(*args)


def test_a_scan_that_is_cut_copies_no_weights() -> None:
    def plain(w, x):
        return jax.lax.scan(lambda c, wi: (ij.site(jnp.tanh(c @ wi), "h"), None), x, w)[0]

    weights, x = jnp.ones((8, 256, 256)) / 256, jnp.ones((4, 256))
    for f in (
        ij.intervene(plain, {"h": iv.at(iv.add(1.0), layer=5)}),
        ij.intervene(plain, {"h.5": iv.add(1.0)}),
        ij.capture(plain, "h.6", output=False),
    ):
        used = jax.jit(f).lower(weights, x).compile().memory_analysis()
        assert used is not None and used.temp_size_in_bytes < weights.nbytes / 3


def test_a_static_layer_leaves_the_prefix_unmapped_and_cuts_what_follows() -> None:
    weights, x = params(), inputs()
    vectors = jax.random.normal(jax.random.key(3), (16, D_MODEL))

    def plain(w, x):
        return jax.lax.scan(lambda c, wi: (ij.site(jnp.tanh(c @ wi), "h"), None), x, w)[0]

    def sweep(f, layer):
        return lambda v: ij.intervene(f, {"h": iv.at(iv.add(v), layer=layer)})(weights["blocks"], x)

    scans = [e for e in jax.make_jaxpr(jax.vmap(sweep(plain, 3)))(vectors).eqns if e.primitive.name == "scan"]
    shapes = [(e.params["length"], e.outvars[0].aval.shape) for e in scans]
    assert shapes == [(3, x.shape), (1, (16, *x.shape))]
    close(jax.vmap(sweep(plain, 3))(vectors), jnp.stack([sweep(plain, 3)(v) for v in vectors]))

    cut = ij.capture(plain, "h.2", output=False)
    lengths = [e.params["length"] for e in jax.make_jaxpr(cut)(weights["blocks"], x).eqns if e.primitive.name == "scan"]
    assert sum(lengths) <= 2

    def loop(w, x):
        for i in range(LAYERS):
            x = ij.site(jnp.tanh(x @ w[i]), "h", layer=i)
        return x

    def flops(f, *args):
        cost = jax.jit(f).lower(*args).compile().cost_analysis()
        return cost["flops"]

    one = flops(lambda w, x: x @ w[0], weights["blocks"], x)
    assert flops(ij.capture(loop, "h.1", output=False), weights["blocks"], x) < 2.9 * one
    assert flops(loop, weights["blocks"], x) > 4.9 * one
    shared = flops(jax.vmap(sweep(loop, LAYERS - 1)), vectors)
    assert shared < (LAYERS + 8) * one  # not 16 runs of every layer


def test_interventions_are_pytrees() -> None:
    weights, x = params(), inputs()
    for kind, (edit, _) in EDITS.items():
        if kind == "function":
            continue
        run = jax.jit(lambda edit, w, x: ij.intervene(scanned, {"blocks.resid_post": edit})(w, x))
        close(run(edit, weights, x), ij.intervene(scanned, {"blocks.resid_post": edit})(weights, x))
        leaves, tree = jax.tree.flatten(edit)
        close(run(jax.tree.unflatten(tree, [np.asarray(leaf) for leaf in leaves]), weights, x), run(edit, weights, x))
    vectors = jax.random.normal(jax.random.key(3), (4, D_MODEL))
    steer = lambda edit: ij.intervene(scanned, {"blocks.2.resid_post": edit})(weights, x)  # noqa: E731
    close(jax.vmap(steer)(iv.add(vectors)), jnp.stack([steer(iv.add(v)) for v in vectors]))
    slope = jax.grad(lambda edit: steer(edit).sum())(iv.add(vectors[0]))
    assert float(jnp.abs(slope.vector).sum()) > 0


def test_edits_keep_the_dtype() -> None:
    weights, x = params(jnp.bfloat16), inputs(jnp.bfloat16)
    acts = ij.capture(scanned, "blocks.resid_post", output=False)
    for edit in (*(edit for edit, _ in EDITS.values()), iv.noise(jax.random.key(0)), iv.mean_ablate(VECTOR)):
        edited = ij.intervene(scanned, {"blocks.resid_post": edit})
        assert edited(weights, x).dtype == jnp.bfloat16
    assert acts(weights, x)["blocks.resid_post"].dtype == jnp.bfloat16


def test_noise_is_of_its_key_and_layer() -> None:
    f = lambda x: ij.site(ij.site(x, "x", layer=0), "x", layer=1)  # noqa: E731
    x = jnp.zeros((100, 100))
    first, second = ij.capture(ij.intervene(f, {"x": iv.noise(jax.random.key(0), 2.0)}), "x", output=False)(x)["x"]
    assert abs(float(first.std()) - 2) < 0.1
    assert abs(float(jnp.corrcoef(first.ravel(), (second - first).ravel())[0, 1])) < 0.1
    close(first, ij.intervene(f, {"x.0": iv.noise(jax.random.key(0), 2.0)})(x))
