"""Logit lens and direct logit attribution, against the model itself."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import lens, models, weights
from tests.models.conftest import CONFIGS, GPT2, LLAMA, random_model

TOKENS = np.random.default_rng(0).integers(0, 37, (2, 7))


def attribution(model, tokens, *answers):
    """Of the first answers' logits, less those of the second ones."""
    w = models.weights(model)
    final = ["ln_final.scale"] if "ln_final_w" in w else []
    sites = [*lens.COMPONENTS, *final, *(["pos_embed"] if "W_pos" in w else [])]
    acts = ij.capture(models.forward, sites, output=False)(model, tokens)
    parts = {name: x[..., -1, :] for name, x in lens.components(w, acts).items()}
    directions, bias = (
        sum(sign * read(w, ids) for sign, ids in zip((1, -1), answers, strict=False))
        for read in (lens.logit_directions, lens.logit_biases)
    )
    scale = acts["ln_final.scale"][:, -1] if final else None
    return lens.direct_attribution(w, parts, scale, directions, bias=bias)


def test_the_lens_at_the_last_layer_is_the_model(model, tokens) -> None:
    logits, acts = ij.capture(models.forward, "blocks.resid_post")(model, tokens)
    read = lens.logit_lens(models.weights(model), acts["blocks.resid_post"])
    assert read.shape == (2, *logits.shape)
    np.testing.assert_allclose(read[-1], logits, atol=1e-4)
    assert np.abs(read[0] - logits).max() > 0.1


def test_contributions_add_up_to_the_logit(model, tokens) -> None:
    answers = jnp.array([3, 30])
    found = attribution(model, tokens, answers)
    logits = model(tokens)[:, -1]
    np.testing.assert_allclose(lens.total(found), logits[jnp.arange(2), answers], atol=1e-4)
    assert found["heads"].shape == (2, 4, 2) and found["mlps"].shape == (2, 2)


def test_contributions_add_up_to_the_difference_on_the_microworld() -> None:
    from interp_jax import data

    model, tokenizer = models.load("microworld", dtype=jnp.float32)
    task = data.tasks.ioi(jax.random.key(0), tokenizer, n=8, order="ABBA", template=0)
    found = attribution(model, task.clean, task.answers, task.distractors)
    logits, rows = model(task.clean)[:, -1], jnp.arange(8)
    np.testing.assert_allclose(
        lens.total(found), logits[rows, task.answers] - logits[rows, task.distractors], atol=1e-4, rtol=1e-5
    )


KINDS = {
    "no norms": replace(GPT2, norm="none", unembed_bias=True, tie_embeddings=False),
    "bias of the unembedding": replace(GPT2, unembed_bias=True, d_mlp=0),
    "capped": replace(LLAMA, logit_softcap=3.0, unembed_bias=True, norm_offset=1.0),
    "gemma": CONFIGS["gemma"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_lens_is_the_model_whatever_it_has(kind) -> None:
    model = random_model(KINDS[kind])
    w, tokens = models.weights(model), TOKENS
    logits, acts = ij.capture(models.forward, ["blocks.resid_post", "unembed.out"])(model, tokens)
    resid = acts["blocks.resid_post"][-1]
    np.testing.assert_allclose(lens.logit_lens(w, resid), acts["unembed.out"], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(lens.logit_lens(w, resid, capped=True), logits, atol=1e-4, rtol=1e-4)
    assert ("logit_softcap" in w) == (np.abs(logits - acts["unembed.out"]).max() > 0.1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "gemma"])
def test_contributions_add_up_whatever_the_model_has(kind) -> None:
    model, answers, others = random_model(KINDS[kind]), jnp.array([3, 30]), jnp.array([4, 5])
    logits = ij.capture(models.forward, "unembed.out", output=False)(model, TOKENS)["unembed.out"][:, -1]
    rows = jnp.arange(2)
    wanted = logits[rows, answers]
    np.testing.assert_allclose(lens.total(attribution(model, TOKENS, answers)), wanted, atol=1e-4, rtol=1e-4)
    found = attribution(model, TOKENS, answers, others)
    np.testing.assert_allclose(lens.total(found), wanted - logits[rows, others], atol=1e-4, rtol=1e-4)
    assert found["bias"].any()


def test_contributions_to_a_model_with_folded_norms(model, tokens) -> None:
    """The last norm's bias is one of the unembedding then."""
    folded = models.with_weights(model, weights.fold_norms(models.weights(model)))
    answers, both = jnp.array([3, 30]), [models.forward(x, tokens)[:, -1] for x in (model, folded)]
    found = attribution(folded, tokens, answers)
    for logits in both:
        np.testing.assert_allclose(lens.total(found), logits[jnp.arange(2), answers], atol=1e-4, rtol=1e-4)


def test_directions_of_tokens_in_any_shape(model) -> None:
    w, ids = models.weights(model), jnp.arange(12).reshape(2, 3, 2)
    directions = lens.logit_directions(w, ids)
    assert directions.shape == (2, 3, 2, 16) and lens.logit_biases(w, ids).shape == (2, 3, 2)
    np.testing.assert_array_equal(directions[1, 2, 0], w["W_U"][:, 10])


def test_an_encoder_is_refused() -> None:
    bert = models.weights(random_model(CONFIGS["bert"]))
    x = jnp.zeros((2, 16))
    calls = {
        "logit_lens": lambda: lens.logit_lens(bert, x),
        "components": lambda: lens.components(bert, {}),
        "direct_attribution": lambda: lens.direct_attribution(bert, {"x": x}, jnp.ones((2, 1)), x),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name}: these are an encoder's weights") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_bad_input(model, tokens) -> None:
    w = models.weights(model)
    with pytest.raises(ValueError, match=r"shape \[3, 5\] does not end in d_model, 16"):
        lens.logit_lens(w, jnp.zeros((3, 5)))
    with pytest.raises(ValueError, match="capture 'embed' too"):
        lens.components(w, {})
    with pytest.raises(ValueError, match="norms after its blocks"):
        lens.components(w | {"ln1_post_w": jnp.ones((2, 16))}, {})
    x, scale = jnp.zeros((2, 16)), jnp.ones((2, 1))
    with pytest.raises(ValueError, match="has a final norm: give its scale, captured at 'ln_final.scale'"):
        lens.direct_attribution(w, {"x": x}, None, x)
    bare = {name: value for name, value in w.items() if not name.startswith("ln")}
    with pytest.raises(ValueError, match="has no final norm .* give None"):
        lens.direct_attribution(bare, {"x": x}, scale, x)
    with pytest.raises(ValueError, match="centred=True: these weights have no final norm"):
        lens.logit_lens(bare, x, centred=True)
    with pytest.raises(ValueError, match=r"has a bias: give bias=lens.logit_biases\(weights, tokens\)"):
        lens.direct_attribution(w | {"b_U": jnp.ones(37)}, {"x": x}, scale, x)
    headless = {name: value for name, value in w.items() if name != "W_U"}
    for call in (lambda: lens.logit_lens(headless, x), lambda: lens.logit_directions(headless, jnp.array([1]))):
        with pytest.raises(ValueError, match="these weights have no W_U: a headless model has no logits"):
            call()
