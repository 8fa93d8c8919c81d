"""A replacement model is the original where nothing is changed, and linear in its features where all else is held."""

import jax
import jax.numpy as jnp
import pytest

import interp_jax as ij
from interp_jax import dictionaries, graphs, models
from interp_jax.interventions import add, at, replace, scale
from tests.graphs.conftest import KEYS, SETS, TOKENS, D, N, model

FEATURES = "blocks.mlp_out.features"


def test_original_output(name: str, scanned: bool) -> None:
    f, transcoders = model(scanned=scanned), SETS[name]()
    want = models.forward(f, TOKENS)
    held = graphs.hold(models.forward, transcoders)(f, TOKENS)
    for g in (
        graphs.replace_mlps(models.forward, transcoders),
        graphs.replace_mlps(models.forward, transcoders, held),
    ):
        assert jnp.allclose(g(f, TOKENS), want, atol=1e-4)
        assert jnp.allclose(jax.jit(g)(f, TOKENS), want, atol=1e-4)
    batch, mask = jnp.stack([TOKENS, TOKENS[::-1]]), jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    g = graphs.replace_mlps(models.forward, transcoders)
    real = mask[..., None] > 0
    want = models.forward(f, batch, attention_mask=mask)
    assert jnp.allclose(jnp.where(real, g(f, batch, attention_mask=mask) - want, 0), 0, atol=1e-4)


def test_autoencoders_of_the_stream(scanned: bool) -> None:
    f = model(scanned=scanned)
    saes = {f"blocks.{i}.resid_post": dictionaries.TopK.create(KEYS[i], D, N, 4) for i in range(3)}
    g = graphs.replace_mlps(models.forward, saes)
    assert jnp.allclose(g(f, TOKENS), models.forward(f, TOKENS), atol=1e-4)
    _, acts = ij.capture(g, "blocks.resid_post.features")(f, TOKENS)
    assert acts["blocks.resid_post.features"].shape == (3, 5, N)


def test_linear_between_nonlinearities(name: str) -> None:
    """Held, and later features too, the logits before the last norm are an affine function of a layer's features."""
    f, transcoders = model(scanned=False), SETS[name]()
    held = graphs.hold(models.forward, transcoders)(f, TOKENS)
    g = graphs.replace_mlps(models.forward, transcoders, held)
    _, acts = ij.capture(g, FEATURES)(f, TOKENS) if name != "two of three" else (None, {})
    later = {} if not acts else {"blocks.2.mlp_out.features": replace(acts[FEATURES][2])}
    first = "blocks.0.mlp_out.features"
    change = jax.random.normal(jax.random.key(5), ij.sites(g, f, TOKENS)[FEATURES].shape if acts else (5, N))

    def end(size: float) -> jax.Array:
        edits = {**later, first: add(size * change)}
        if name == "two of three":
            held_there = ij.capture(g, "blocks.2.mlp_out.features", output=False)(f, TOKENS)
            edits["blocks.2.mlp_out.features"] = replace(held_there["blocks.2.mlp_out.features"])
        else:
            edits["blocks.1.mlp_out.features"] = replace(acts[FEATURES][1])
        return ij.intervene(g, edits)(f, TOKENS)

    base = end(0.0)
    assert jnp.allclose(end(2.0) - base, 2 * (end(1.0) - base), atol=1e-4)
    assert not jnp.allclose(end(1.0), base, atol=1e-3)


def test_features_are_edited_like_any_site(scanned: bool) -> None:
    """Without an edit of features the error stays, so that an ablated feature takes away what it writes."""
    f, transcoders = model(scanned=scanned), SETS["per layer"]()
    g = graphs.replace_mlps(models.forward, transcoders)
    _, acts = ij.capture(g, FEATURES)(f, TOKENS)
    index = int(acts[FEATURES][2, 3].argmax())
    off = ij.intervene(g, {"blocks.2.mlp_out.features": at(scale(0.0), feature=index, position=3)})
    _, there = ij.capture(off, "blocks.mlp_out")(f, TOKENS)
    _, before = ij.capture(models.forward, "blocks.mlp_out")(f, TOKENS)
    lost = acts[FEATURES][2, 3, index] * transcoders[2].W_dec[index]
    change = there["blocks.mlp_out"] - before["blocks.mlp_out"]
    assert jnp.allclose(change[2, 3], -lost, atol=1e-4) and jnp.allclose(change[:2], 0, atol=1e-4)
    spliced = dictionaries.splice(transcoders[2], edit=at(scale(0.0), feature=index, position=3), sites=_PAIR)
    want = ij.intervene(models.forward, {"blocks.2.mlp_out": spliced})(f, TOKENS)
    assert jnp.allclose(off(f, TOKENS), want, atol=1e-4)


_PAIR = ("blocks.2.mlp_in", "blocks.2.mlp_out")


@pytest.mark.parametrize(
    ("transcoders", "message"),
    [
        (lambda some: some[:2], "2 for a model of 3 layers: give one for each"),
        (lambda some: {7: some[0]}, "one of layer 7, and the model has 3 layers"),
        (lambda some: [dictionaries.Transcoder.create(KEYS[0], 8, 4)] * 3, "it belongs to another model"),
        (lambda some: [dictionaries.TopK.create(KEYS[0], D, N, 2)] * 3, "unknown site: give a mapping from addresses"),
        (lambda some: dictionaries.CrossLayerTranscoder.create(KEYS[0], D, N, n_layers=5), "5 layers for a model of 3"),
        (lambda some: [], "0 for a model of 3 layers"),
        (lambda some: {}, "none is given"),
    ],
)
def test_transcoders_of_another_model(transcoders, message: str) -> None:
    some = transcoders(SETS["per layer"]())
    with pytest.raises(ValueError, match=message):
        graphs.replace_mlps(models.forward, some)(model(scanned=False), TOKENS)


def test_no_dictionaries() -> None:
    with pytest.raises(TypeError, match="a str is no dictionary"):
        graphs.replace_mlps(models.forward, ["a", "b", "c"])(model(scanned=False), TOKENS)
    f = lambda m, x: ij.site(ij.site(m * x, "blocks.mlp_in", layer=0), "blocks.mlp_out", layer=0)  # noqa: E731
    with pytest.raises(ValueError, match="no site 'blocks.attn.pattern'"):
        graphs.hold(f, SETS["per layer"]()[:1])(jnp.ones(()), jnp.ones((3, D)))
