"""Sites in penzai's own transformers, with and without its layer stack, which have the same weights here."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
from penzai.models.transformer import model_parts, sampling_mode
from penzai.toolshed.save_intermediates import SaveIntermediate
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import add, at, per_layer, scale
from tests.models.conftest import random_model
from tests.models.penzai_guests import D_MODEL, HEADS, LAYERS, build, edited, pair, parameters

TOKENS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], np.int32)
MASK = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]], bool)
OUTPUTS = {
    "embed": pz.nn.EmbeddingLookup,
    "blocks.attn.q": "**.input_to_query",
    "blocks.attn.k": "**.input_to_key",
    "blocks.attn.pattern": "**.query_key_to_attn",
    "blocks.attn_out": pz.nn.Attention,
    "blocks.mlp_out": model_parts.TransformerFeedForward,
    "blocks.resid_post": model_parts.TransformerBlock,
    "logits": model_parts.TransformerLM,
}
INPUTS = {"blocks.resid_pre": model_parts.TransformerBlock}

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def penzais_own_promotion() -> Any:
    with jax.numpy_dtype_promotion("standard"):
        yield


class Guest(NamedTuple):
    row: Any  # penzai's own model, untagged, with its blocks in a row
    tagged: tuple[Any, Any]  # with its blocks in a row, and in a stack


@pytest.fixture(scope="module", params=["llama", "neox"])
def guest(request: pytest.FixtureRequest) -> Guest:
    row, stack = pair(request.param)
    return Guest(row, tuple(models.tag(model, OUTPUTS, inputs=INPUTS) for model in (row, stack)))


@pytest.fixture(scope="module")
def llama() -> Guest:
    row, stack = pair("llama")
    return Guest(row, tuple(models.tag(model, OUTPUTS, inputs=INPUTS) for model in (row, stack)))


def run(model: Any, *args: Any, **kwargs: Any) -> Any:
    return model(*args, **kwargs)


def named(tokens: Any) -> Any:
    return pz.nx.wrap(jnp.asarray(tokens)).tag("batch", "seq")


@jax.jit
def plain(model: Any) -> Any:
    """What penzai's own model makes of the tokens."""
    return model(named(TOKENS)).unwrap("batch", "seq", "vocabulary")


def close(a: Any, b: Any) -> None:
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_catalogue(guest: Guest) -> None:
    for tagged in guest.tagged:
        sites = ij.sites(run, tagged, TOKENS)
        layered = {name for name, info in sites.items() if info.layers == tuple(range(LAYERS))}
        assert layered == {name for name in sites if name.startswith("blocks.")}
        assert sites["blocks.resid_post"].axes == sites["embed"].axes == ("batch", "position", "d_model")
        assert sites["blocks.attn.q"].axes == ("batch", "position", "head", "d_head")
        assert sites["blocks.attn.q"].shape == (2, 5, HEADS, 4)
        assert sites["blocks.attn.pattern"].axes == ("batch", "head", "query", "key")
        assert sites["blocks.attn.pattern"].shape == (2, HEADS, 5, 5)
        assert sites["logits"].axes == ("batch", "position", "d_vocab")
        assert isinstance(tagged, model_parts.TransformerLM) and tagged.metadata == guest.row.metadata
    assert not ij.sites(run, guest.row, named(TOKENS))


def test_captures_are_what_penzai_itself_saves(guest: Guest) -> None:
    saving = guest.row
    for kind in (model_parts.TransformerFeedForward, pz.nn.Attention, model_parts.TransformerBlock, pz.nn.Softmax):
        chosen = pz.select(saving).at_instances_of(kind)
        saving = chosen.apply(lambda layer: pz.nn.Sequential([layer, SaveIntermediate()]))
    slots, state = pz.unbind_state_vars(saving, freeze=True)
    logits, state = jax.jit(lambda slots, state: slots.stateless_call(state, named(TOKENS)))(slots, state)
    layers = pz.select(pz.bind_variables(slots, state)).at_instances_of(SaveIntermediate).get_sequence()
    saved = [layer.saved.value for layer in layers]

    def stacked(*names: str) -> np.ndarray:
        return np.stack([np.asarray(x.unwrap(*names)) for x in saved if set(x.named_shape) == set(names)])

    residual = stacked("batch", "seq", "embedding").reshape(LAYERS, 3, 2, 5, D_MODEL)
    heads = [name for name in ("head_groups", "query_heads", "heads") if name in saved[0].named_shape]
    pattern = stacked("batch", *heads, "seq", "kv_seq").reshape(LAYERS, 2, HEADS, 5, 5)
    for tagged in guest.tagged:
        out, acts = ij.capture(models.forward, "*")(tagged, TOKENS)
        close((out, acts["logits"]), (logits.unwrap("batch", "seq", "vocabulary"),) * 2)
        close(acts["blocks.attn_out"], residual[:, 0])
        close(acts["blocks.mlp_out"], residual[:, 1])
        close(acts["blocks.resid_post"], residual[:, 2])
        close(acts["blocks.resid_pre"][1:], residual[:-1, 2])
        close(acts["blocks.attn.pattern"], pattern)


def test_named_arrays_and_vmap(llama: Guest) -> None:
    want = plain(llama.row)
    close(plain(llama.tagged[0]), want)
    close(jax.jit(jax.vmap(run, (None, 0)))(llama.tagged[1], TOKENS), want)


def test_an_edit_of_one_layer(llama: Guest) -> None:
    """Heads of a group, and groups, are counted through, as in Hugging Face's layout."""
    names = ("batch", "seq", "head_groups", "query_heads", "projection")

    def silence(x: Any) -> Any:
        value = x.unwrap(*names)
        flat = value.reshape(2, 5, HEADS, 4).at[:, :, 2].set(0).reshape(value.shape)
        return pz.nx.wrap(flat).tag(*names).order_like(x)

    want = edited(llama.row, pz.nn.Attention, silence, lambda attention: attention.input_to_query)
    want = plain(edited(want, model_parts.TransformerFeedForward, lambda x: 3 * x))
    for tagged in llama.tagged:
        edits = {"blocks.1.attn.q": at(scale(0.0), head=2), "blocks.mlp_out": at(scale(3.0), layer=1)}
        close(ij.intervene(run, edits)(tagged, TOKENS), want)


def test_layers_as_data(llama: Guest) -> None:
    want = plain(edited(llama.row, model_parts.TransformerFeedForward, lambda x: 3 * x))
    for tagged in llama.tagged:

        @jax.jit
        @partial(jax.vmap, in_axes=(None, 0, 0))
        def swept(tagged: Any, layer: jax.Array, factor: jax.Array) -> jax.Array:
            edits = {"blocks.mlp_out": at(scale(3.0), layer=layer), "blocks.resid_post": per_layer(scale(factor))}
            return ij.intervene(run, edits)(tagged, TOKENS)

        close(swept(tagged, jnp.array([1, 0]), jnp.array([[1.0, 1.0], [1.0, 2.0]]))[0], want)


def test_gradients(llama: Guest) -> None:
    def loss(row: Any, delta: jax.Array) -> jax.Array:
        moved = pz.nx.wrap(delta).tag("batch", "seq", "embedding")
        model = edited(row, model_parts.TransformerFeedForward, lambda x: x + moved)
        return (model(named(TOKENS)).unwrap("batch", "seq", "vocabulary") ** 2).sum()

    want = jax.jit(jax.value_and_grad(loss, argnums=1))(llama.row, jnp.zeros((2, 5, D_MODEL)))
    for tagged in llama.tagged:
        value, _, slopes = ij.grads(run, lambda out: (out**2).sum(), "blocks.1.mlp_out")(tagged, TOKENS)
        close((value, slopes["blocks.1.mlp_out"]), want)


@pytest.mark.long
def test_gradients_of_the_weights() -> None:
    """Also of a matrix that embeds and unembeds, which is two leaves of the pytree."""
    row, _ = pair("tied")

    @jax.jit
    def slopes(model: Any) -> list[jax.Array]:
        return jax.tree.leaves(jax.grad(lambda model: (plain(model) ** 2).sum())(model))

    close(slopes(models.tag(row, OUTPUTS)), slopes(row))


def test_it_agrees_with_our_own_decoder() -> None:
    """The same weights in a `Decoder`, whose own tests compare it with transformers."""
    sizes = dict(n_layers=LAYERS, n_heads=HEADS, n_kv_heads=2, d_model=D_MODEL, d_head=4, d_mlp=12, d_vocab=11, n_ctx=8)
    kind = dict(act="silu", gated=True, norm="rmsnorm", norm_eps=1e-6, positions="rotary")
    bare = dict(attn_bias=False, mlp_bias=False, tie_embeddings=False)
    decoder = random_model(models.Config(family="llama", **sizes, **kind, **bare))
    w = {name: np.asarray(value) for name, value in models.weights(decoder).items()}

    def wrapped(value: np.ndarray, *axes: str) -> Any:
        return pz.nx.wrap(jnp.asarray(value)).tag(*axes)

    def heads(w: np.ndarray) -> Any:
        return wrapped(w.reshape(D_MODEL, 2, 2, 4), "embedding", "head_groups", "query_heads", "projection")

    values = {
        "embedder.embeddings": wrapped(w["W_E"], "vocabulary", "embedding"),
        "lm_head.weights": wrapped(w["W_U"], "embedding", "vocabulary"),
        "final_norm/scale.weights": wrapped(w["ln_final_w"], "embedding"),
    }
    for i in range(LAYERS):
        values |= {
            f"block_{i}/{name}.weights": value
            for name, value in {
                "pre_attention_norm/scale": wrapped(w["ln1_w"][i], "embedding"),
                "pre_ffw_norm/scale": wrapped(w["ln2_w"][i], "embedding"),
                "attention/query": heads(np.moveaxis(w["W_Q"][i], 0, 1)),
                "attention/output": heads(np.moveaxis(w["W_O"][i], 2, 0)),
                "attention/key": wrapped(w["W_K"][i], "head_groups", "embedding", "projection"),
                "attention/value": wrapped(w["W_V"][i], "head_groups", "embedding", "projection"),
                "mlp/gating_linear": wrapped(w["W_gate"][i], "embedding", "neurons"),
                "mlp/value_linear": wrapped(w["W_in"][i], "embedding", "neurons"),
                "mlp/out_linear": wrapped(w["W_out"][i], "neurons", "embedding"),
            }.items()
        }
    parts = [
        dataclasses.replace(p, value=values[label.removeprefix("transformer/")].order_like(p.value))
        for label, p in parameters("llama", stack=False).items()
    ]
    guest = models.tag(pz.bind_variables(build("llama", None, stack=False), parts), OUTPUTS, inputs=INPUTS)
    out, acts = ij.capture(run, [name for name in (*OUTPUTS, *INPUTS) if name[-2:] not in (".q", ".k")])(guest, TOKENS)
    want, own = ij.capture(models.forward, list(acts))(decoder, TOKENS)
    close((out, acts), (want, own))
    masked = partial(run, attention_mask=MASK, logits_at=np.array([4, 3]))
    close(jax.jit(masked)(guest, TOKENS), masked(decoder, TOKENS))


def test_padding_on_the_left(llama: Guest) -> None:
    edits = {"blocks.1.resid_pre": at(add(jnp.arange(8.0)), position=1), "blocks.attn.pattern": at(scale(0.5), key=0)}
    f = ij.intervene(run, edits)
    alone = f(llama.tagged[0], TOKENS[0, 2:])
    for tagged in llama.tagged:
        close(f(tagged, TOKENS, attention_mask=MASK, logits_at=np.array([-2, 3]))[0], alone[-2])


def test_layers_outside_and_inside_of_a_stack_are_not_one_site() -> None:
    row, stack = pair("llama")
    norms = {"norm": pz.nn.RMSLayerNorm}
    assert ij.sites(run, models.tag(row, norms), TOKENS)["norm"].layers == tuple(range(2 * LAYERS + 1))
    with pytest.raises(ValueError, match="some of its submodules stand in a layer stack"):
        models.tag(stack, norms)
    inside = models.tag(stack, {"blocks.norm": ".body.sublayers[*].stacked_sublayers.**.delta.sublayers[0]"})
    info = ij.sites(run, inside, TOKENS)["blocks.norm"]
    assert (info.loops, info.layers) == ((LAYERS,), (0, 1))


def test_state_is_refused() -> None:
    caching = sampling_mode.KVCachingTransformerLM.from_uncached(pair("llama")[0], 8, {"batch": 2})
    with pytest.raises(ValueError, match="the model has the state variable .* keeps no state"):
        models.tag(caching, {"a": pz.nn.Attention})


def test_what_does_not_fit_is_one_line() -> None:
    row, _ = pair("llama")
    with pytest.raises(ValueError, match=r"near paths: .*delta.sublayers.\*.input_to_query"):
        models.tag(row, {"a": "*.input_to_query"})
    with pytest.raises(ValueError, match="no submodule is a StochasticDropout; the model has TransformerLM"):
        models.tag(row, {"a": pz.nn.StochasticDropout})
    with pytest.raises(ValueError, match="name their own axes"):
        models.tag(row, {"a": "body"}, axes={"a": ["d_model"]})
    tagged = models.tag(row, {})
    for tokens, mask, words in [
        (TOKENS / 2, None, r"tokens must be integers \[position\] or \[batch position\], .* not float32"),
        (TOKENS + 7, None, "tokens: 16 is out of range"),
        (TOKENS, MASK[0], r"attention_mask has shape \(5,\), but tokens have \(2, 5\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            tagged(tokens, attention_mask=mask)
