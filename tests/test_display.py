"""What one sees: in a notebook under treescope, and printed."""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import pytest
import treescope

import interp_jax as ij
from interp_jax import circuits, dictionaries, models, patching
from interp_jax import interventions as iv

CONFIG = models.Config(n_layers=2, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
TOKENS = jnp.zeros((2, 4), jnp.int32)


def shown(x: Any) -> str:
    """What treescope shows, which it shows as a page too."""
    with treescope.active_autovisualizer.set_scoped(None):
        page = treescope.render_to_html(x, compressed=False)
        text = treescope.render_to_text(x)
    assert "Error" not in page and "Error" not in text
    return " ".join(text.split()).replace("( ", "(").replace(", )", ")")


@pytest.fixture(scope="module")
def model() -> models.Decoder:
    return models.Decoder.create(jax.random.key(0), CONFIG)


def test_a_model_and_its_captures(model: models.Decoder) -> None:
    text = shown(model)
    assert "Decoder(" in text and "w_e=<jax.Array float32(20, 8)" in text and "n_layers=2" in text
    captured = {"blocks.resid_pre": jnp.arange(128.0).reshape(2, 2, 4, 8)}
    assert "'blocks.resid_pre': <jax.Array float32(2, 2, 4, 8)" in shown(captured)


def test_the_catalogue_is_a_table(model: models.Decoder) -> None:
    sites = ij.sites(models.forward, model, TOKENS)
    text = shown({"sites": sites})
    for line in repr(sites).splitlines():
        assert " ".join(line.split()) in text
    assert "<td>blocks.attn.z</td><td>0-1</td><td>2 4 2 4</td>" in sites._repr_html_()


def test_circuits_and_edges() -> None:
    nodes = circuits.Circuit(heads=jnp.eye(2, dtype=bool), mlps=jnp.array([False, True]))
    edges = patching.Edges(jnp.ones((2, 2)), ("embed", "mlp 0"), ("mlp 0", "logits"))
    text = shown({"nodes": nodes, "edges": edges, "best": circuits.EdgeCircuit.top(edges, 1)})
    assert "Circuit(heads=# jax.Array bool(2, 2) true:2 false:2" in text
    assert "Edges(scores=" in text
    assert "EdgeCircuit(kept=<jax.Array bool(2, 2) true:1 false:3" in text and "'logits'" in text


def shift(value: jax.Array, x: jax.Array) -> jax.Array:
    return value + x


@pytest.mark.parametrize(
    ("edit", "printed"),
    [
        (iv.add(jnp.ones(8)), "add(vector=float32[8])"),
        (iv.zero(), "zero()"),
        (iv.clamp(high=2.0), "clamp(high=2.0)"),
        (iv.mean_ablate(), "mean_ablate()"),
        (iv.noise(jax.random.key(0), 3.0), "noise(key=key<fry>[], scale=3.0)"),
        (iv.chain(iv.scale(2.0), iv.zero()), "chain(edits=(scale(factor=2.0), zero()))"),
        (iv.at(iv.scale(2.0), layer=1, position=-1), "at(edit=scale(factor=2.0), layer=1, position=-1)"),
        (iv.at(iv.zero(), layer=jnp.int32(1)), "at(edit=zero(), layer=1)"),
        (iv.at(iv.zero(), axis=-1, index=3), "at(edit=zero(), axis=-1, index=3)"),
        (iv.at(iv.zero(), position="generated"), "at(edit=zero(), position='generated')"),
        (iv.at(iv.zero(), mask=jnp.ones((2, 4), bool)), "at(edit=zero(), mask=bool[2,4])"),
        (iv.per_layer(iv.project_out(jnp.ones((2, 8)))), "per_layer(edit=project_out(direction=float32[2,8]))"),
        (iv.via({"x": "blocks.mlp_in"}, shift), f"via(sources={{'x': 'blocks.mlp_in'}}, fn={shift!r})"),
    ],
    ids=range(13),  # a function prints its address, which differs between processes
)
def test_an_intervention_is_the_call_that_makes_it(edit: Any, printed: str) -> None:
    assert repr(edit) == printed
    assert shown(edit).startswith(printed.split("(")[0] + "(") and "None" not in shown(edit)


def test_what_treescope_shows_of_an_intervention() -> None:
    text = shown({"blocks.resid_pre": iv.at(iv.replace(jnp.arange(200.0).reshape(20, 10)), layer=1)})
    assert "replace(value=<jax.Array float32(20, 10)" in text and "layer=1" in text


def test_an_intervention_under_jit_prints_its_shapes() -> None:
    seen = []
    jax.jit(lambda edit: seen.append(repr(edit)))(iv.at(iv.scale(2.0), head=1))
    assert seen == ["at(edit=scale(factor=float32[]), head=int32[])"]


def test_a_dictionary_and_its_splice() -> None:
    dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=16, k=4)
    spliced = dictionaries.splice(dictionary, edit=iv.at(iv.scale(0.0), feature=3))
    for text in (shown(dictionary), shown(spliced)):
        assert "TopK(" in text and "W_enc=<jax.Array float32(8, 16)" in text and "k=4" in text
    assert "edit=at(edit=scale(" in shown(spliced) and "feature=" in shown(spliced)


def test_a_guest_shows_its_sites() -> None:
    tagged = models.tag(nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0))), {"hidden": "layers.0"})
    text = shown(tagged)
    assert "Sequential(" in text and "Tag(name='hidden', layer=None" in text
