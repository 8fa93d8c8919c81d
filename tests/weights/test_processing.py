"""Processed weights run by the model that they were, on every kind of decoder; what would change it is refused."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models, weights
from interp_jax.models import Config
from tests.models.conftest import CONFIGS, GPT2, LLAMA, random_model

NEITHER = {"attn_bias": False, "mlp_bias": False}
KINDS = {
    **{name: config for name, config in CONFIGS.items() if name != "bert"},
    "no biases": replace(GPT2, **NEITHER),
    "no output bias": replace(LLAMA, attn_bias=True, out_bias=False),
    "biases, grouped": replace(GPT2, n_kv_heads=2, unembed_bias=True, tie_embeddings=False),
    "gated": replace(GPT2, gated=True, **NEITHER),
    "attention only": replace(GPT2, d_mlp=0),
    "attention only, no biases": replace(LLAMA, d_mlp=0),
    "no norms": replace(GPT2, norm="none", unembed_bias=True),
    "LayerNorm before and after": replace(GPT2, norms="both", qk_norm="head"),
    "LayerNorm after": replace(GPT2, norms="post", qk_norm="all"),
    "parallel": replace(GPT2, parallel=True, causal=False),
    "headless": replace(GPT2, headless=True, attn_bias=False),
}
SHORT = ("gpt2", "gemma", "no biases", "biases, grouped", "attention only, no biases", "no norms", "headless")
TOKENS = np.random.default_rng(0).integers(0, 37, (3, 7))
MASK = np.arange(7) >= np.array([[0], [3], [1]])


@pytest.fixture(params=[k if k in SHORT else pytest.param(k, marks=pytest.mark.long) for k in KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def out(model: Any) -> np.ndarray:
    f = models.hidden if model.config.headless else models.forward
    return np.asarray(f(model, TOKENS, attention_mask=MASK))[MASK]


def same(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


def model_of(config: Config, *, scan: bool = True) -> Any:
    """Its weights, and an unembedding of its own, into which the last norm can be folded."""
    model = random_model(config)
    model = model if config.headless else models.untie(model)
    return models.stack_layers(model) if scan else model


def test_folded_norms_give_the_same_logits(kind: str) -> None:
    model = model_of(KINDS[kind])
    before = models.weights(model)
    folded = weights.fold_norms(before)
    new = models.with_weights(model, folded)
    same(out(new), out(model))
    assert new.scanned and models.weights(new).keys() >= folded.keys()
    for norm in ("ln1", "ln2", "ln_final"):
        if f"{norm}_w" in before and not (norm == "ln_final" and model.config.headless):
            assert (folded[f"{norm}_w"] == 1).all()
            assert f"{norm}_b" not in before or not folded[f"{norm}_b"].any()
    for name, value in before.items():
        if "post" in name or "norm_" in name or name in ("W_E", "W_pos", "W_O", "W_out", "b_O", "b_out"):
            np.testing.assert_array_equal(folded[name], value)
    read = [name for name in ("W_Q", "W_K", "W_V", "W_in", "W_gate") if name in before]
    centred = "ln1_b" in before
    assert all(np.allclose(folded[name].mean(-2), 0, atol=1e-6) for name in read) == centred
    if "ln1_w" not in before:  # norms after alone, or none: what reads the stream stays
        assert all((folded[name] == before[name]).all() for name in read)


def test_folded_value_biases_give_the_same_logits(kind: str) -> None:
    model = model_of(KINDS[kind], scan=False)
    folded = weights.fold_value_biases(models.weights(model))
    new = models.with_weights(model, folded)
    same(out(new), out(model))
    assert "b_V" not in folded or not folded["b_V"].any()
    assert (folded.keys() ^ models.weights(model).keys()) <= {"b_O"}


def test_all_of_it_gives_the_same_predictions(kind: str) -> None:
    model = model_of(KINDS[kind])
    new = weights.fold_value_biases(weights.fold_norms(models.weights(model)))
    config = model.config
    if config.norm == "layernorm" and config.norms == "pre":
        new = weights.centre_writing_weights(new)
        for name in ("W_E", "W_O", "b_O", "W_out", *(["W_pos"] if "W_pos" in new else [])):
            np.testing.assert_allclose(new[name].mean(-1), 0, atol=1e-6)
    else:
        with pytest.raises(ValueError, match="do not subtract the mean|passes a norm first"):
            weights.centre_writing_weights(new)
    if config.logit_softcap or config.headless:
        with pytest.raises(ValueError, match="caps its logits|no W_U: a headless model"):
            weights.centre_unembed(new)
        same(out(models.with_weights(model, new)), out(model))
    else:
        new = weights.centre_unembed(new)
        logits = out(models.with_weights(model, new))
        np.testing.assert_allclose(logits.mean(-1), 0, atol=1e-4)
        same(jax.nn.log_softmax(logits), jax.nn.log_softmax(out(model)))


def test_a_gain_of_zero_is_folded_too() -> None:
    before = models.weights(model_of(GPT2))
    before |= {name: before[name].at[..., ::2].set(0.0) for name in ("ln1_w", "ln2_w", "ln_final_w")}
    model = models.with_weights(model_of(GPT2), before)
    folded = weights.fold_norms(before)
    assert all(np.isfinite(value).all() for value in folded.values())
    same(out(models.with_weights(model, folded)), out(model))


@pytest.mark.parametrize("name", ["gpt2", pytest.param("gemma", marks=pytest.mark.long)])
def test_a_tied_model_must_be_untied_first(name: str) -> None:
    model = random_model(CONFIGS[name])
    folded = weights.fold_norms(models.weights(model))
    with pytest.raises(ValueError, match=r"leave W_U out, .* or give models.untie\(model\)$"):
        models.with_weights(model, folded)
    same(out(models.with_weights(models.untie(model), folded)), out(model))


def test_they_trace(kind: str) -> None:
    model = model_of(KINDS[kind])

    @jax.jit
    def run(model: Any) -> Any:
        return models.with_weights(model, weights.fold_value_biases(weights.fold_norms(models.weights(model))))

    same(out(run(model)), out(model))


def test_what_would_change_the_model_is_refused() -> None:
    bert = models.weights(random_model(CONFIGS["bert"]))
    for process in (weights.fold_norms, weights.centre_writing_weights):
        with pytest.raises(ValueError, match=f"^{process.__name__}: these are an encoder's weights") as caught:
            process(bert)
        assert "\n" not in str(caught.value)
    for kind, says in (("llama", "no ln1_b"), ("no norms", "no ln1_b"), ("LayerNorm after", "no ln1_b")):
        with pytest.raises(ValueError, match=f"do not subtract the mean of the residual stream .* {says}"):
            weights.centre_writing_weights(models.weights(model_of(KINDS[kind])))
    with pytest.raises(ValueError, match="passes a norm first"):
        weights.centre_writing_weights(models.weights(model_of(KINDS["LayerNorm before and after"])))
    with pytest.raises(ValueError, match="centre_unembed: this model caps its logits"):
        weights.centre_unembed(models.weights(model_of(KINDS["gemma"])))
    with pytest.raises(ValueError, match="centre_unembed: these weights have no W_U"):
        weights.centre_unembed(models.weights(model_of(KINDS["headless"])))


@pytest.mark.long
def test_an_encoders_value_biases() -> None:
    model = random_model(CONFIGS["bert"])
    same(out(models.with_weights(model, weights.fold_value_biases(models.weights(model)))), out(model))


def test_in_float32_from_bfloat16() -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model_of(GPT2))
    for name in ("fold_norms", "fold_value_biases", "centre_writing_weights", "centre_unembed"):
        new = getattr(weights, name)(models.weights(half))
        assert {value.dtype for value in new.values()} == {jnp.dtype(jnp.float32)}
        assert models.with_weights(half, new).dtype == jnp.bfloat16
