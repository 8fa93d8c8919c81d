"""Sites in penzai's own transformers, with and without its layer stack, which have the same weights here."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz
from penzai.models.transformer import model_parts, sampling_mode
from penzai.models.transformer.variants import gpt_neox, llamalike_common
from penzai.toolshed.save_intermediates import SaveIntermediate
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import add, at, per_layer, replace, scale

LAYERS, D_MODEL, HEADS = 3, 8, 4
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
SIZES = dict(embedding_dim=D_MODEL, projection_dim=4, mlp_hidden_dim=12, num_decoder_blocks=LAYERS, vocab_size=11)

pytestmark = pytest.mark.filterwarnings("default")


def build(family: str, *, stack: bool) -> Any:
    key = jax.random.key(0)
    if family == "llama":
        heads = dict(num_kv_heads=2, query_head_multiplier=HEADS // 2, mlp_variant="swiglu")
        config = llamalike_common.LlamalikeTransformerConfig(
            **SIZES, **heads, tie_embedder_and_logits=True, use_layer_stack=stack
        )
        return llamalike_common.build_llamalike_transformer(config, key)
    config = gpt_neox.GPTNeoXTransformerConfig(
        **SIZES,
        num_attention_heads=HEADS,
        activation_fn="gelu_exact",
        rope_subset_size=2,
        rope_wavelength=1e4,
        layernorm_epsilon=1e-5,
        parameter_dtype=jnp.float32,
        activation_dtype=jnp.float32,
        use_layer_stack=stack,
    )
    return gpt_neox.build_gpt_neox_transformer(config, key)


@cache
def pair(family: str) -> tuple[Any, Any]:
    """penzai's model with its blocks in a row, and in a stack."""
    row = build(family, stack=False)
    values = {p.label: p.value for p in pz.unbind_params(row)[1]}
    slots, stacked = pz.unbind_params(build(family, stack=True))
    for p in stacked:
        if "/blocks/" in p.label:
            each = [values[p.label.replace("/blocks/", f"/block_{layer}/")] for layer in range(LAYERS)]
            p.value = pz.nx.stack(each, "blocks").order_like(p.value)
        else:
            p.value = values[p.label]
    return row, pz.bind_variables(slots, stacked)


@pytest.fixture(scope="module", params=["llama", "neox"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=["row", "stack"])
def guest(request: pytest.FixtureRequest, family: str) -> tuple[Any, Any]:
    """penzai's model in a row, and the tagged one, of either kind."""
    row, stack = pair(family)
    return row, models.tag(row if request.param == "row" else stack, OUTPUTS, inputs=INPUTS)


def run(model: Any, *args: Any, **kwargs: Any) -> Any:
    return model(*args, **kwargs)


def named(tokens: Any) -> Any:
    return pz.nx.wrap(jnp.asarray(tokens)).tag("batch", "seq")


def plain(logits: Any) -> Any:
    return logits.unwrap("batch", "seq", "vocabulary")


def close(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=2e-5, atol=2e-5), a, b)


def test_the_catalogue(guest: tuple) -> None:
    sites = ij.sites(run, guest[1], TOKENS)
    layers = tuple(range(LAYERS))
    assert {name for name, info in sites.items() if info.layers == layers} == {n for n in sites if n[:7] == "blocks."}
    assert sites["blocks.resid_post"].axes == sites["embed"].axes == ("batch", "position", "d_model")
    assert sites["blocks.attn.q"].axes == ("batch", "position", "head", "d_head")
    assert sites["blocks.attn.q"].shape == (2, 5, HEADS, 4)
    assert sites["blocks.attn.pattern"].axes == ("batch", "head", "query", "key")
    assert sites["blocks.attn.pattern"].shape == (2, HEADS, 5, 5)
    assert sites["logits"].axes == ("batch", "position", "d_vocab")


def test_the_model_computes_what_it_did(guest: tuple) -> None:
    row, tagged = guest
    want = row(named(TOKENS))
    close(plain(tagged(named(TOKENS))), plain(want))
    close(tagged(TOKENS), plain(want))
    close(jax.jit(run)(tagged, TOKENS), plain(want))
    close(tagged(TOKENS[0]), plain(want)[0])
    close(jax.vmap(run, (None, 0))(tagged, TOKENS), plain(want))
    close(tagged(TOKENS, logits_at=np.array([1, -1])), plain(want)[np.arange(2), np.array([1, 4])])
    assert not ij.sites(run, row, named(TOKENS))
    assert isinstance(tagged, model_parts.TransformerLM) and tagged.metadata == row.metadata


@pytest.mark.parametrize(
    ("site", "kind", "axes"),
    [
        ("blocks.mlp_out", model_parts.TransformerFeedForward, ("batch", "seq", "embedding")),
        ("blocks.attn_out", pz.nn.Attention, ("batch", "seq", "embedding")),
        ("blocks.resid_post", model_parts.TransformerBlock, ("batch", "seq", "embedding")),
        ("blocks.attn.pattern", pz.nn.Softmax, None),
    ],
)
def test_captures_are_what_penzai_itself_saves(guest: tuple, site: str, kind: type, axes: Any) -> None:
    row, tagged = guest
    saving = pz.select(row).at_instances_of(kind).apply(lambda layer: pz.nn.Sequential([layer, SaveIntermediate()]))
    saving(named(TOKENS))
    saved = [layer.saved.value for layer in pz.select(saving).at_instances_of(SaveIntermediate).get_sequence()]
    if axes is None:
        heads = [n for n in ("head_groups", "query_heads", "heads") if n in saved[0].named_shape]
        saved = [x.unwrap("batch", *heads, "seq", "kv_seq").reshape(2, HEADS, 5, 5) for x in saved]
    else:
        saved = [x.unwrap(*axes) for x in saved]
    _, acts = ij.capture(run, [site, site.replace("blocks.", "blocks.2.")])(tagged, TOKENS)
    close(acts[site], jnp.stack(saved))
    close(acts[site.replace("blocks.", "blocks.2.")], saved[2])


def test_replacing_each_site_by_itself_changes_nothing(guest: tuple) -> None:
    out, acts = ij.capture(run, "*")(guest[1], TOKENS)
    close(acts["blocks.resid_pre"][1:], acts["blocks.resid_post"][:-1])
    close(ij.intervene(run, {name: replace(value) for name, value in acts.items()})(guest[1], TOKENS), out)


@pz.pytree_dataclass
class Through(pz.nn.Layer):
    """A user's layer that edits what passes."""

    fn: Any = dataclasses.field(metadata={"pytree_node": False})

    def __call__(self, x: Any, **_: Any) -> Any:
        return self.fn(x)


def edited(row: Any, kind: type, fn: Any, part: Any = lambda layer: layer) -> Any:
    """The untagged model with an edit put in at layer 1, as one does in penzai."""
    chosen = pz.select(row).at_instances_of(kind).pick_nth_selected(1).at(part)
    return chosen.apply(lambda inner: pz.nn.Sequential([inner, Through(fn)]))


def test_an_edit_of_one_layer(guest: tuple) -> None:
    row, tagged = guest
    want = edited(row, model_parts.TransformerFeedForward, lambda x: 3 * x)(named(TOKENS))
    got = ij.intervene(run, {"blocks.mlp_out": at(scale(3.0), layer=1)})(tagged, TOKENS)
    close(got, plain(want))
    close(ij.intervene(run, {"blocks.1.mlp_out": lambda x: 3 * x})(tagged, TOKENS), plain(want))
    by_number = jax.jit(lambda n: ij.intervene(run, {"blocks.mlp_out": at(scale(3.0), layer=n)})(tagged, TOKENS))
    close(jax.vmap(by_number)(jnp.arange(LAYERS))[1], plain(want))
    each = per_layer(scale(jnp.array([1.0, 3.0, 1.0])))
    close(ij.intervene(run, {"blocks.mlp_out": each})(tagged, TOKENS), plain(want))


def test_a_head_is_a_head(guest: tuple) -> None:
    """Heads of a group, and groups, are counted through, as in Hugging Face's layout."""
    row, tagged = guest

    def edit(x: Any) -> Any:
        heads = [name for name in ("head_groups", "query_heads", "heads") if name in x.named_shape]
        value = x.unwrap("batch", "seq", *heads, "projection")
        flat = value.reshape(2, 5, HEADS, 4).at[:, :, 2].set(0).reshape(value.shape)
        return pz.nx.wrap(flat).tag("batch", "seq", *heads, "projection").order_like(x)

    want = edited(row, pz.nn.Attention, edit, lambda attention: attention.input_to_query)(named(TOKENS))
    got = ij.intervene(run, {"blocks.1.attn.q": at(scale(0.0), head=2)})(tagged, TOKENS)
    close(got, plain(want))


def test_gradients(guest: tuple) -> None:
    row, tagged = guest
    value, _, slopes = ij.grads(run, "blocks.1.mlp_out", lambda out: (out**2).sum())(tagged, TOKENS)

    def loss(delta: jax.Array) -> jax.Array:
        moved = pz.nx.wrap(delta).tag("batch", "seq", "embedding")
        model = edited(pz.freeze_params(row), model_parts.TransformerFeedForward, lambda x: x + moved)
        return (plain(model(named(TOKENS))) ** 2).sum()

    want = jax.value_and_grad(loss)(jnp.zeros((2, 5, D_MODEL)))
    close((value, slopes["blocks.1.mlp_out"]), want)
    of_weights = jax.grad(lambda model: (model(TOKENS) ** 2).sum())(tagged)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(of_weights))


def test_a_batch_gives_what_each_sequence_gives_alone(guest: tuple) -> None:
    tagged = guest[1]
    edits = {"blocks.1.resid_pre": at(add(jnp.arange(8.0)), position=1), "blocks.attn.pattern": at(scale(0.0), key=0)}
    f = ij.intervene(run, edits)
    together = f(tagged, TOKENS, attention_mask=MASK)
    for row, real, got in zip(TOKENS, MASK, together, strict=True):
        close(got[real], f(tagged, row[real]))
    last = f(tagged, TOKENS, attention_mask=MASK, logits_at=np.array([4, 3]))
    close(last, together[np.arange(2), np.array([4, 3])])


def test_layers_outside_and_inside_of_a_stack_are_not_one_site() -> None:
    row, stack = pair("llama")
    norms = {"norm": pz.nn.RMSLayerNorm}
    assert ij.sites(run, models.tag(row, norms), TOKENS)["norm"].layers == tuple(range(2 * LAYERS + 1))
    with pytest.raises(ValueError, match="some of its submodules stand in a layer stack"):
        models.tag(stack, norms)
    inside = models.tag(stack, {"blocks.norm": "body.sublayers.*.stacked_sublayers.**.delta.sublayers.0"})
    info = ij.sites(run, inside, TOKENS)["blocks.norm"]
    assert (info.loops, info.layers) == ((LAYERS,), (0, 1))


def test_state_is_refused() -> None:
    caching = sampling_mode.KVCachingTransformerLM.from_uncached(pair("llama")[0], 8, {"batch": 2})[0]
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
