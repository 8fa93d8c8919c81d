"""Logit lens and direct logit attribution, against the model itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import lens, models


def attribution(model, tokens, directions):
    w = models.weights(model)
    sites = [*lens.COMPONENTS, "ln_final.scale", *(["pos_embed"] if "W_pos" in w else [])]
    acts = ij.capture(models.forward, sites, output=False)(model, tokens)
    parts = {name: x[..., -1, :] for name, x in lens.components(w, acts).items()}
    return lens.direct_attribution(w, parts, acts["ln_final.scale"][:, -1], directions)


def test_the_lens_at_the_last_layer_is_the_model(model, tokens) -> None:
    logits, acts = ij.capture(models.forward, "blocks.resid_post")(model, tokens)
    read = lens.logit_lens(models.weights(model), acts["blocks.resid_post"])
    assert read.shape == (2, *logits.shape)
    np.testing.assert_allclose(read[-1], logits, atol=1e-4)
    assert np.abs(read[0] - logits).max() > 0.1


def test_contributions_add_up_to_the_logit(model, tokens) -> None:
    w, answers = models.weights(model), jnp.array([3, 30])
    found = attribution(model, tokens, lens.logit_directions(w, answers))
    logits = model(tokens)[:, -1]
    np.testing.assert_allclose(lens.total(found), logits[jnp.arange(2), answers], atol=1e-4)
    assert found["heads"].shape == (2, 4, 2) and found["mlps"].shape == (2, 2)


def test_contributions_add_up_to_the_difference_on_the_microworld() -> None:
    from interp_jax import data

    model, tokenizer = models.load("microworld", dtype=jnp.float32)
    task = data.tasks.ioi(jax.random.key(0), tokenizer, n=8, order="ABBA", template=0)
    w = models.weights(model)
    directions = lens.logit_directions(w, task.answers) - lens.logit_directions(w, task.distractors)
    found = attribution(model, task.clean, directions)
    logits, rows = model(task.clean)[:, -1], jnp.arange(8)
    np.testing.assert_allclose(
        lens.total(found), logits[rows, task.answers] - logits[rows, task.distractors], atol=1e-4, rtol=1e-5
    )


def test_bad_input(model, tokens) -> None:
    w = models.weights(model)
    with pytest.raises(ValueError, match=r"shape \[3, 5\] does not end in d_model, 16"):
        lens.logit_lens(w, jnp.zeros((3, 5)))
    with pytest.raises(ValueError, match="capture 'embed' too"):
        lens.components(w, {})
    with pytest.raises(ValueError, match="norms after its blocks"):
        lens.components(w | {"ln1_post_w": jnp.ones((2, 16))}, {})
