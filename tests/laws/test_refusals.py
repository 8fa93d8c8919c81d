"""Laws 5, 6 and 7: what is refused, in one line that says what, where and the remedy."""

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp
import pytest

import interp_jax as ij
from interp_jax import interventions as iv
from tests.laws.functions import close, inputs, looped, params, scanned


@pytest.mark.parametrize("f", [scanned, looped])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("blocks.resid_pots", "near names: blocks.resid_post"),
        ("blocks.9.resid_post", "has no layer 9; its layers: 0-4"),
        ("embed.0", "stands in no loop over layers"),
        ("blocks.attn.*", "matches no site"),
        ("nothing", "interp_jax.sites"),
        ("blocks.1.2.gate", "more than one layer number"),
    ],
)
def test_unknown_addresses(f, address, words) -> None:
    for transform in (ij.capture(f, address), ij.intervene(f, {address: iv.zero()}), ij.grads(f, jnp.sum, address)):
        with pytest.raises(ValueError, match=words) as error:
            transform(params(), inputs())
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("f", [scanned, looped])
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (iv.at(iv.zero(), head=1), "no axis 'head'; its axes: batch, position, d_model"),
        (iv.at(iv.zero(), layer=7), "no layer 7"),
        (lambda x: x[:, :1], "'blocks.gate' returned float32.8,1,4., but the site holds float32.8,3,4."),
        (lambda x: x.astype(jnp.bfloat16), "returned bfloat16.*astype"),
        (iv.at(lambda x: x.astype(jnp.bfloat16), layer=jnp.int32(1)), "returned bfloat16"),
        (lambda x: None, "returned NoneType"),
        (iv.add(jnp.ones(7)), "does not broadcast"),
        (iv.at(iv.zero(), position=jnp.arange(5)), "one per example"),
        (iv.at(iv.zero(), position="generated"), "only in models.generate"),
    ],
)
def test_edits_that_do_not_fit(f, edit, words) -> None:
    with pytest.raises(ValueError, match=words) as error:
        ij.intervene(f, {"blocks.gate": edit})(params(), inputs())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "f",
    [
        lambda w, x: (looped(w, x)).sum(),
        lambda w, x: scanned(w, x).sum(),
        lambda w, x: jax.checkpoint(scanned)(w, x).sum(),
        lambda w, x: jax.jit(jax.checkpoint(jax.jit(scanned)))(w, x).sum(),
    ],
)
def test_an_edit_of_a_differentiated_function(f) -> None:
    for differentiated in (jax.grad(f), jax.jit(jax.value_and_grad(f))):
        with pytest.raises(ValueError, match=r"jax.grad\(intervene\(f, edits\)\)"):
            ij.intervene(differentiated, {"blocks.gate": iv.zero()})(params(), inputs())


def test_a_capture_in_a_differentiated_function_skips_what_remat_recomputes() -> None:
    args = params(), inputs()
    plain = ij.capture(looped, "blocks.resid_post", output=False)(*args)
    for f in (looped, scanned, jax.checkpoint(looped), jax.checkpoint(scanned)):
        slopes = jax.grad(lambda w, x: f(w, x).sum())  # noqa: B023  # called at once
        out, acts = ij.capture(slopes, "blocks.resid_post")(*args)
        close(acts, plain)
        close(out, slopes(*args), rtol=1e-4)


def test_a_name_met_twice() -> None:
    def f(x):
        return ij.site(ij.site(x, "x") + 1, "x")

    for call in (lambda: ij.sites(f, 1.0 * jnp.ones(2)), lambda: ij.capture(f, "x")(jnp.ones(2))):
        with pytest.raises(ValueError, match="declared twice"):
            call()
    with pytest.raises(ValueError, match="declared twice"):
        ij.intervene(f, {"x": iv.zero()})(jnp.ones(2))


def test_a_site_in_a_kernel() -> None:
    def kernel(x_ref, o_ref):
        o_ref[...] = ij.site(x_ref[...] * 2, "inside")

    def f(x):
        return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), interpret=True)(x)

    with pytest.raises(ValueError, match="inside pallas_call"):
        ij.capture(f, "inside")(jnp.ones(8))


def test_an_axis_name_of_a_vmap_around() -> None:
    f = jax.vmap(lambda x: ij.site(x, "x"), axis_name="rows")
    with pytest.raises(NameError, match="put intervene inside the vmap"):
        ij.intervene(f, {"x": lambda x: jax.lax.psum(x, "rows")})(jnp.ones((2, 3)))


def test_what_is_not_an_edit() -> None:
    with pytest.raises(TypeError, match="use replace"):
        ij.intervene(looped, {"embed": 3.0})
    with pytest.raises(ValueError, match="confined to layer 2"):
        ij.intervene(looped, {"blocks.gate": iv.at(iv.at(iv.zero(), layer=1), layer=2)})(params(), inputs())
    with pytest.raises(ValueError, match="confined to layer 2"):
        ij.intervene(looped, {"blocks.2.gate": iv.at(iv.zero(), layer=1)})(params(), inputs())


def test_sites_that_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="dotted name"):
        ij.site(jnp.ones(1), "")
    with pytest.raises(TypeError, match="static integer"):
        jax.jit(lambda i: ij.site(jnp.ones(1), "x", layer=i))(0)
    with pytest.raises(ValueError, match="2 axis names"):
        ij.site(jnp.ones(1), "x", axes=("a", "b"))


def test_values_that_freeze_lacks() -> None:
    with pytest.raises(ValueError, match="no value for 'embed'"):
        ij.freeze(looped, "embed", {"final": jnp.ones(1)})


def test_layers_of_other_shapes_are_not_stacked() -> None:
    def f(x: jax.Array) -> jax.Array:
        return ij.site(ij.site(x, "x", layer=0)[:2], "x", layer=1)

    with pytest.raises(ValueError, match=r"'x' has shape \(3,\) in layer 0 and \(2,\) in layer 1") as error:
        ij.capture(f, "x")(jnp.ones(3))
    assert "\n" not in str(error.value)
    assert ij.capture(f, "x.1", output=False)(jnp.ones(3))["x.1"].shape == (2,)
    assert ij.capture(f, {"x": jnp.sum}, output=False)(jnp.ones(3))["x"].tolist() == [3, 2]
