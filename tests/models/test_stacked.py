"""Stacked weights in TransformerLens's layout, and models that get weights which they did not have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.models import Decoder, Encoder
from tests.models.conftest import CONFIGS, GPT2, LLAMA, random_model

TOKENS = np.random.default_rng(0).integers(0, 37, (3, 7))
BERT = CONFIGS["bert"]
KINDS = {
    **CONFIGS,
    "rounded scale": replace(CONFIGS["gemma"], d_model=24),  # whose root is no power of 2
    "norms of queries": replace(GPT2, qk_norm="head", unembed_bias=True, tie_embeddings=False),
    "no norms": replace(GPT2, norm="none", norms="both", qk_norm="all", d_mlp=0),
    "headless": replace(GPT2, headless=True),
    "headless encoder": replace(BERT, headless=True, attn_bias=False, mlp_bias=False),
}


def test_round_trip_is_exact(model: Decoder) -> None:
    again = models.with_weights(model, models.weights(model))
    assert jax.tree.structure(again) == jax.tree.structure(model)
    assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_there(kind: str) -> None:
    model = random_model(KINDS[kind])
    found = models.weights(model)
    config = model.config
    assert ("W_U" in found) == (not config.headless)
    assert found.pop("logit_softcap", 0.0) == config.logit_softcap
    if getattr(model, "w_u", None) is None and not config.headless:
        assert np.array_equal(found.pop("W_U"), model.w_e.T)
    assert sum(w.size for w in found.values()) == sum(w.size for w in jax.tree.leaves(model))


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_of_every_kind(kind: str) -> None:
    for model in (random_model(KINDS[kind]), models.stack_layers(random_model(KINDS[kind]))):
        again = models.with_weights(model, models.weights(model))
        assert jax.tree.structure(again) == jax.tree.structure(model)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), again, model)


@pytest.mark.parametrize("n_layers", [16, 17])
def test_many_layers_are_scanned_where_nothing_is_said(n_layers: int, tmp_path: Path) -> None:
    config = replace(GPT2, n_layers=n_layers)
    made = {said: Decoder.create(jax.random.key(0), config, scan_layers=said) for said in (None, False, True)}
    models.save(tmp_path / "model", made[None])
    read = {said: models.load(tmp_path / "model", scan_layers=said)[0] for said in made}
    for said in made:
        expected = n_layers > 16 if said is None else said
        assert (made[said].scanned, read[said].scanned) == (expected, expected)
        jax.tree.map(np.testing.assert_array_equal, models.unstack_layers(read[said]), made[False])


def test_an_encoders_weights() -> None:
    model = random_model(BERT)
    w = models.weights(model)
    assert (w["W_type"].shape, w["W_head"].shape, w["b_head"].shape) == ((2, 16), (16, 16), (16,))
    assert (w["ln_embed_w"].shape, w["ln_final_b"].shape, w["b_U"].shape) == ((16,), (16,), (37,))
    new = models.with_weights(model, {"b_U": w["b_U"] + 1, "W_head": 0 * w["W_head"], "b_head": 0 * w["b_head"]})
    np.testing.assert_allclose(new(TOKENS)[0, 0], w["ln_final_b"] @ w["W_U"] + w["b_U"] + 1, atol=1e-4)


def test_layout(model: Decoder) -> None:
    w, c = models.weights(model), model.config
    assert w["W_Q"].shape == (3, c.n_heads, c.d_model, c.d_head)
    assert w["W_K"].shape == w["W_V"].shape == (3, c.n_kv_heads, c.d_model, c.d_head)
    assert w["W_O"].shape == (3, c.n_heads, c.d_head, c.d_model)
    assert w["W_in"].shape == (3, c.d_model, c.d_mlp)
    assert w["W_out"].shape == (3, c.d_mlp, c.d_model)
    assert w["W_E"].shape == w["W_U"].T.shape == (c.d_vocab, c.d_model)
    assert ("W_gate" in w, "W_pos" in w) == (c.gated, c.positions == "learned")
    assert ("b_Q" in w, "b_out" in w, "ln1_b" in w) == (c.attn_bias, c.mlp_bias, c.norm == "layernorm")


def test_replaced_weights_act(model: Decoder, prompts: tuple) -> None:
    changed = models.with_weights(model, {"W_O": models.weights(model)["W_O"].at[1].set(0.0)})
    assert float(jnp.abs(changed.blocks[1].attn.w_o).max()) == 0
    assert np.array_equal(changed.blocks[0].attn.w_o, model.blocks[0].attn.w_o)
    assert not np.allclose(changed(prompts[0]), model(prompts[0]))


def test_under_grad(model: Decoder, prompts: tuple) -> None:
    def loss(w_in: jax.Array) -> jax.Array:
        return models.with_weights(model, {"W_in": w_in})(prompts[0])[..., 0].sum()

    assert float(jnp.abs(jax.grad(loss)(models.weights(model)["W_in"])).max()) > 0


def test_a_tied_unembedding_cannot_go_its_own_way(model: Decoder) -> None:
    w_u = models.weights(model)["W_U"]
    if model.w_u is None:
        with pytest.raises(ValueError, match=r"W_E transposed; .* or give models.untie\(model\)"):
            models.with_weights(model, {"W_U": 2 * w_u})
    else:
        assert np.array_equal(models.with_weights(model, {"W_U": 2 * w_u}).w_u, 2 * w_u)


def test_bad_input_is_one_line(model: Decoder) -> None:
    for other in ({"W_E": 0}, lambda x: x):
        for call in (models.weights, lambda other: models.with_weights(other, {})):
            with pytest.raises(TypeError, match="Decoder|Transformer"):  # checked shapes say it in their own words
                call(other)
    with pytest.raises(ValueError, match="this model has no 'W_q'; it has W_E, W_K"):
        models.with_weights(model, {"W_q": 0})
    with pytest.raises(ValueError, match=r"W_O must have shape \(3, 4, .*, 16\), not \(2,\)"):
        models.with_weights(model, {"W_O": np.zeros(2)})


ALL = ("b_Q", "b_K", "b_V", "b_O", "b_in", "b_gate", "b_out", "b_U")


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (("b_Q",), {"attn_bias": True, "out_bias": False}),
        (("b_O",), {"out_bias": True}),
        (("b_K", "b_O"), {"attn_bias": True, "out_bias": True}),
        (("b_gate",), {"mlp_bias": True}),
        (("b_U",), {"unembed_bias": True}),
        (ALL, {"attn_bias": True, "out_bias": True, "mlp_bias": True, "unembed_bias": True}),
    ],
)
@pytest.mark.parametrize("scan", [False, True])
def test_biases_that_the_model_did_not_have(given: tuple[str, ...], options: dict, scan: bool) -> None:
    bare = random_model(LLAMA)
    config = replace(LLAMA, **options)
    whole = random_model(config)
    model, wanted = (models.stack_layers(x) if scan else x for x in (bare, whole))
    biases = {name: models.weights(wanted)[name] for name in given}
    zeros = {name: 0 * w for name, w in models.weights(wanted).items() if name in ALL and name not in given}
    new = models.with_weights(model, biases)
    assert new.config == config and new.scanned == scan and new.dtype == model.dtype
    wanted = models.with_weights(wanted, models.weights(model) | biases | zeros)
    jax.tree.map(np.testing.assert_array_equal, new, wanted)
    if not scan:
        np.testing.assert_allclose(new(TOKENS), wanted(TOKENS), atol=1e-5)
        assert model.config == LLAMA and "b_Q" not in models.weights(model)


def test_biases_keep_the_dtype() -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_model(LLAMA))
    new = models.with_weights(half, {"b_V": np.ones((3, 2, 6), np.float32)})
    assert {x.dtype for x in jax.tree.leaves(new)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("kind", ["gpt2", "gemma", "llama"])
@pytest.mark.parametrize("scan", [False, True])
def test_untied(kind: str, scan: bool) -> None:
    tied = random_model(CONFIGS[kind])
    model = models.untie(models.stack_layers(tied) if scan else tied)
    assert model.config == replace(tied.config, tie_embeddings=False) and model.scanned == scan
    np.testing.assert_allclose(model(TOKENS), tied(TOKENS), atol=1e-5)
    assert (models.untie(model) is model) and (kind != "llama" or scan or model is tied)
    w_u = models.weights(model)["W_U"]
    new = models.with_weights(model, {"W_U": w_u[:, ::-1], "b_U": jnp.arange(37.0)})
    logits = ij.capture(models.forward, "unembed.in")(tied, TOKENS)[1]["unembed.in"] @ w_u[:, ::-1] + jnp.arange(37.0)
    got = ij.capture(models.forward, "unembed.out", output=False)(new, TOKENS)["unembed.out"]
    np.testing.assert_allclose(got, logits, atol=1e-4)


def test_what_cannot_be_had_is_one_line() -> None:
    gpt2, bert, capped = (random_model(CONFIGS[kind]) for kind in ("gpt2", "bert", "gemma"))
    headless = random_model(KINDS["headless"])
    cases: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "has no 'W_gate'", lambda: models.with_weights(gpt2, {"W_gate": np.zeros((3, 16, 24))})),
        (ValueError, "has no 'b_gate'", lambda: models.with_weights(gpt2, {"b_gate": np.zeros((3, 24))})),
        (ValueError, "has no 'b_U'", lambda: models.with_weights(headless, {"b_U": np.zeros(37)})),
        (ValueError, "has no 'W_U'", lambda: models.with_weights(headless, {"W_U": np.zeros((16, 37))})),
        (ValueError, "has no 'ln1_b'", lambda: models.with_weights(capped, {"ln1_b": np.zeros((3, 16))})),
        (ValueError, "has no 'W_pos'", lambda: models.with_weights(capped, {"W_pos": np.zeros((32, 16))})),
        (ValueError, "b_U must have shape", lambda: models.with_weights(gpt2, {"b_U": np.zeros(3)})),
        (ValueError, "logit_softcap is 3.0 in", lambda: models.with_weights(capped, {"logit_softcap": 2.0})),
        (ValueError, "has no 'logit_softcap'", lambda: models.with_weights(gpt2, {"logit_softcap": 2.0})),
        (ValueError, "or change W_E alike$", lambda: models.with_weights(bert, {"W_U": np.zeros((16, 37))})),
        (ValueError, "untie: this model is headless", lambda: models.untie(headless)),
    ]
    for error, says, call in cases:
        with pytest.raises(error, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="Decoder"):
        models.untie(bert)
    assert isinstance(bert, Encoder)


def test_under_jit_what_cannot_be_compared_is_left_out(prompts: tuple) -> None:
    tied, capped = random_model(GPT2), random_model(replace(LLAMA, logit_softcap=3.0))
    for model, name in ((tied, "W_U"), (capped, "logit_softcap")):
        w = models.weights(model)
        with pytest.raises(ValueError, match=f"^with_weights: .*{name} is .* leave "):
            jax.eval_shape(lambda w, model=model: models.with_weights(model, w), w)
        del w[name]
        again = jax.jit(lambda w, model=model: models.with_weights(model, w))(w)
        np.testing.assert_allclose(again(prompts[0]), model(prompts[0]), atol=1e-5)
