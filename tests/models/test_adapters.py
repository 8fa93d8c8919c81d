"""Sites in flax nnx models that know nothing of them."""

from functools import partial
from pathlib import Path
from typing import Any

import chex
from flax import nnx
import jax
import jax.numpy as jnp
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import add, at, via, zero
from interp_jax.io import orbax
from tests.models import guests
from tests.models.guests import LAYERS, Mixer, MixerBlock, Mlp, by_hand, images

OUTPUTS = {"embed": "embed", "blocks.mlp_out": "blocks.*.mlp", "blocks.resid_post": MixerBlock}
INPUTS = {"blocks.resid_pre": MixerBlock}
AXES = dict.fromkeys((*OUTPUTS, *INPUTS), ("batch", "position", "d_model"))


def run(model: Any, *args: Any, **kwargs: Any) -> Any:
    return model(*args, **kwargs)


def close(a: Any, b: Any) -> None:
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def mixer() -> Mixer:
    return guests.filled(Mixer)


@pytest.fixture(scope="module")
def listed(mixer: Mixer) -> Any:
    return models.tag(mixer, OUTPUTS, inputs=INPUTS, axes=AXES)


@pytest.fixture(scope="module")
def both(mixer: Mixer, listed: Any) -> tuple[Any, Any]:
    """The mixer with its blocks in a list, and scanned."""
    outputs = OUTPUTS | {"blocks.mlp_out": "blocks.mlp"}
    return listed, models.tag(guests.scanned(mixer), outputs, inputs=INPUTS, axes=AXES)


def test_the_catalogue(both: tuple) -> None:
    for tagged in both:
        sites = ij.sites(run, tagged, images())
        assert set(sites) == {*OUTPUTS, *INPUTS}
        assert sites["embed"].layers is None
        assert {sites[name].layers for name in sites if name.startswith("blocks")} == {tuple(range(LAYERS))}
        assert all(info.shape == (2, 5, 8) and info.axes == ("batch", "position", "d_model") for info in sites.values())


def test_the_model_computes_what_it_did(mixer: Mixer, both: tuple) -> None:
    want = by_hand(mixer, images(), {})
    for tagged in both:
        close(jax.jit(jax.vmap(run, (None, 0)))(tagged, images()), want)
        assert isinstance(tagged, Mixer)
    close(both[0](images()), want)


def test_the_users_model_and_classes_stay(mixer: Mixer) -> None:
    before = jax.tree.structure(mixer)
    models.tag(mixer, OUTPUTS)
    assert jax.tree.structure(mixer) == before
    assert not ij.sites(run, mixer, images())
    assert type(mixer.blocks[0].mlp) is Mlp and not ij.sites(run, Mlp(4, 4, nnx.Rngs(0)), jnp.ones(4))


def test_captures_are_what_nnx_itself_records(mixer: Mixer, both: tuple) -> None:
    @jax.jit
    def recorded(mixer: Mixer) -> dict[str, jax.Array]:
        _, sown = nnx.capture(mixer, nnx.Intermediate, method_outputs=nnx.Intermediate)(images())
        blocks = [sown["blocks"][layer] for layer in range(LAYERS)]
        outputs = {"blocks.mlp_out": [block["mlp"] for block in blocks], "blocks.resid_post": blocks}
        return {name: jnp.stack([part["__call__"].get_value()[0] for part in parts]) for name, parts in outputs.items()}

    want = recorded(nnx.clone(mixer))
    for tagged in both:
        _, acts = ij.capture(run, ["embed", "blocks.*", "blocks.1.mlp_out"])(tagged, images())
        close({name: acts[name] for name in want}, want)
        close(acts["embed"], mixer.embed(images()))
        close(acts["blocks.1.mlp_out"], acts["blocks.mlp_out"][1])
        close(acts["blocks.resid_pre"], jnp.stack([acts["embed"], *acts["blocks.resid_post"][:-1]]))


def test_edits_are_edits_of_the_source(mixer: Mixer, both: tuple) -> None:
    vectors = dict(zip((*OUTPUTS, *INPUTS), jnp.arange(32.0).reshape(4, 8) / 8, strict=True))

    def written(name: str, value: jax.Array, here: int | None) -> jax.Array:
        return value.at[:, 2].add(vectors[name]) if here in (None, 1) else value

    want = by_hand(mixer, images(), {name: partial(written, name) for name in vectors})
    for tagged in both:
        edits = {name: at(add(v), layer=None if name == "embed" else 1, position=2) for name, v in vectors.items()}
        close(ij.intervene(run, edits)(tagged, images()), want)


def test_edits_that_read_other_sites(mixer: Mixer, both: tuple) -> None:
    stream = []

    def keep(value: jax.Array, _: int | None) -> jax.Array:
        stream.append(value)
        return value

    hand = {"blocks.resid_pre": keep, "blocks.mlp_out": lambda value, _: value + 2 * stream[-1]}
    want = by_hand(mixer, images(), hand)
    for tagged in both:
        reads = via({"x": "blocks.resid_pre"}, lambda value, x: value + 2 * x)
        close(ij.intervene(run, {"blocks.mlp_out": reads})(tagged, images()), want)


def test_layers_as_data(mixer: Mixer, both: tuple) -> None:
    want = by_hand(mixer, images(), {"blocks.mlp_out": lambda value, here: value if here != 1 else 0 * value})
    for tagged in both:

        @jax.jit
        @jax.vmap
        def ablated(layer: jax.Array, tagged: Any = tagged) -> jax.Array:
            return ij.intervene(run, {"blocks.mlp_out": at(zero(), layer=layer)})(tagged, images())

        close(ablated(jnp.arange(LAYERS))[1], want)


def test_gradients(mixer: Mixer, both: tuple) -> None:
    def loss(deltas: jax.Array) -> jax.Array:
        return (by_hand(mixer, images(), {"blocks.mlp_out": lambda value, layer: value + deltas[layer]}) ** 2).sum()

    want = jax.jit(jax.value_and_grad(loss))(jnp.zeros((LAYERS, 2, 5, 8)))
    for tagged in both:
        value, _, slopes = ij.grads(run, lambda out: (out**2).sum(), "blocks.mlp_out")(tagged, images())
        close((value, slopes["blocks.mlp_out"]), want)


def test_a_frozen_stream(listed: Any) -> None:
    held = jax.jit(jax.grad(lambda model: ij.freeze(run, "blocks.1.resid_pre")(model, images()).sum()))(listed)
    assert not held.embed.kernel[...].any() and not held.blocks[0].mlp.fc1.kernel[...].any()
    assert held.blocks[1].mlp.fc1.kernel[...].any()


def test_gradients_of_the_weights(mixer: Mixer) -> None:
    def loss(model: Any) -> jax.Array:
        return (run(model, images()) ** 2).sum()

    tagged = models.tag(mixer, OUTPUTS)

    @jax.jit
    def slopes(model: Any) -> Any:
        return jax.grad(loss)(model), nnx.to_pure_dict(nnx.grad(loss)(model))

    close(jax.tree.leaves(slopes(tagged)), jax.tree.leaves(slopes(mixer)))


def test_models_tagged_alike_are_one_structure(mixer: Mixer) -> None:
    a, b = models.tag(mixer, OUTPUTS), models.tag(guests.filled(Mixer, 1), OUTPUTS)
    assert jax.tree.structure(a) == jax.tree.structure(b) != jax.tree.structure(models.tag(mixer, {"embed": "embed"}))
    both = jax.tree.map(lambda *x: jnp.stack(x), a, b)
    _, acts = jax.jit(jax.vmap(ij.capture(run, "blocks.mlp_out"), (0, None)))(both, images())
    close(acts["blocks.mlp_out"][1], ij.capture(run, "blocks.mlp_out")(b, images())[1]["blocks.mlp_out"])


def test_the_weights_stay_where_they_are(mixer: Mixer, tmp_path: Path) -> None:
    tagged = models.tag(mixer, OUTPUTS)
    orbax.save(tmp_path / "mixer", _named(mixer), {})
    assert _named(tagged).keys() == _named(mixer).keys()
    arrays, _ = orbax.load(tmp_path / "mixer")
    fresh = models.tag(guests.filled(Mixer, 5), OUTPUTS)
    fresh = jax.tree.unflatten(jax.tree.structure(fresh), [arrays[name] for name in _named(fresh)])
    close(fresh(images()), mixer(images()))
    nnx.update(tagged, nnx.state(guests.filled(Mixer, 5)))
    close(tagged(images()), guests.filled(Mixer, 5)(images()))


def _named(model: Any) -> dict[str, jax.Array]:
    pairs = jax.tree_util.tree_leaves_with_path(model)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in pairs}


def test_tags_add_up(mixer: Mixer) -> None:
    twice = models.tag(
        models.tag(mixer, {"a": "blocks.*.mlp"}), {"b": nnx.LayerNorm, "out": Mixer}, inputs={"c": "blocks.*.mlp"}
    )
    _, acts = ij.capture(run, "*")(twice, images())
    assert set(acts) == {"a", "b", "c", "out"} and acts["b"].shape[0] == 2 * LAYERS + 1  # two in each block
    close(acts["out"], mixer(images()))


def test_layers_are_indices_of_blocks() -> None:
    switch = guests.filled(guests.Switch)
    outputs = {"blocks.x": "blocks.*", "blocks.gate": "blocks.*.gate", "gate": guests.Gate, "linear": "**.linear"}
    outputs |= {"blocks.2.linear": "blocks.2.linear", "last": ".blocks[3]['linear']"}
    tagged = models.tag(switch, outputs, inputs={"blocks.gate_in": guests.Gate})
    layers = {name: info.layers for name, info in ij.sites(run, tagged, jnp.ones(4)).items()}
    assert layers == {
        **{"blocks.x.part0": (0, 1, 2, 3), "blocks.gate.on": (1, 3), "blocks.gate.logits": (1, 3)},
        **{"gate.on": (1, 3), "gate.logits": (1, 3), "blocks.gate_in": (1, 3)},
        **{"linear": (0, 1, 2, 3, 4, 5), "blocks.linear": (2,), "last": None},
    }
    close(tagged(jnp.ones(4)), switch(jnp.ones(4)))
    single = models.tag(
        guests.filled(partial(Mixer, n_layers=1)), {"a": "blocks.*.mlp", "b": MixerBlock, "c": "blocks.0"}
    )
    assert [info.layers for _, info in sorted(ij.sites(run, single, images()).items())] == [(0,), (0,), None]


def test_attributes_with_numbers_are_counted_in_their_order() -> None:
    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            for layer in range(11):
                setattr(self, f"block{layer}", nnx.Linear(2, 2, rngs=rngs))

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in range(11):
                x = getattr(self, f"block{layer}")(x)
            return x

    tagged = models.tag(guests.filled(Net), {"blocks.out": "block*"})
    _, acts = ij.capture(run, ["blocks.10.out", "blocks.9.out"])(tagged, jnp.ones(2))
    close(tagged.block10(acts["blocks.9.out"]), acts["blocks.10.out"])


def test_a_plain_function_has_sites_as_it_is() -> None:
    def net(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        for layer, w in enumerate(params["blocks"]):
            x = x + ij.site(jnp.tanh(x @ w), "blocks.out", layer=layer, axes=("d_model",))
        return x @ params["head"]

    params = {"blocks": jnp.arange(48.0).reshape(3, 4, 4) / 48, "head": jnp.eye(4)}
    _, acts = ij.capture(net, "blocks.out")(params, jnp.ones(4))
    edited = ij.intervene(net, {"blocks.2.out": zero()})(params, jnp.ones(4))
    close(edited, jnp.ones(4) + acts["blocks.out"][:2].sum(0))


def same(mixer: Mixer) -> Mixer:
    return mixer


class Opaque(nnx.Module, pytree=False):
    def __init__(self):
        self.linear = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear(x)


@pytest.mark.parametrize(
    ("model", "args", "error", "words"),
    [
        (
            same,
            [{"a": "blocks.*.mpl"}],
            ValueError,
            r"'a': no submodule is called at 'blocks.\*.mpl'; near.*blocks.\*.mlp",
        ),
        (same, [{"a": "token_mlp"}], ValueError, r"near paths: blocks.\*.token_mlp"),
        (same, [{"a": "blocks"}], ValueError, "no submodule is called at 'blocks'"),
        (same, [{"a": nnx.Conv}], ValueError, "no submodule is a Conv; the model has Mixer, .*MixerBlock"),
        (same, [{"a": 3}], TypeError, "'a' needs a path or a class, not int"),
        (same, [{"blocks.1.a": Mlp}], ValueError, "'blocks.1.a' is one layer, but matches blocks.0.mlp and"),
        (lambda _: jnp.tanh, [{"a": "b"}], TypeError, "expected a flax nnx module or a penzai layer"),
        (lambda _: Opaque(), [{"a": "linear"}], ValueError, "Opaque is no pytree"),
    ],
)
def test_what_does_not_fit_is_one_line(mixer: Mixer, model: Any, args: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        models.tag(model(mixer), *args)
    assert "\n" not in str(raised.value)


def test_axes_count_from_the_right(mixer: Mixer) -> None:
    with pytest.raises(ValueError, match="axes are given for 'b', which is not one of a"):
        models.tag(mixer, {"a": "embed"}, axes={"b": ["position"]})
    tagged = models.tag(mixer, {"a": "embed"}, axes={"a": "abcd"})
    assert ij.sites(run, tagged, images())["a"].axes == ("b", "c", "d")


def test_an_input_must_be_there() -> None:
    class Constant(nnx.Module):
        def __call__(self) -> jax.Array:
            return jnp.ones(3)

    with pytest.raises(ValueError, match="'a' is the input of a submodule that is called without one"):
        models.tag(Constant(), {}, inputs={"a": Constant})()
