"""Steering on a real model: a vector between praise and blame moves what a review says next, more than chance does."""

from functools import partial

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import metrics, models, steering
from tests.real.conftest import Real

pytestmark = pytest.mark.real
SITE = "blocks.resid_post"
THINGS = ["film", "book", "meal", "hotel", "concert", "trip", "show", "teacher"]
PRAISE, BLAME = ("wonderful and I loved it", "terrible and I hated it")
UNSEEN = ["The weather today was", "My new phone is", "Honestly, the game felt"]


def test_praise_and_blame(smollm: Real, tmp_path) -> None:
    """Each way in order of the strengths at the middle layers, and farther than random vectors of the same norm."""
    model, tokenizer, _ = smollm

    def tokens(texts):
        return models.tokenize(tokenizer, texts)

    sides = [tokens([f"The {thing} was {said}" for thing in THINGS]) for said in (PRAISE, BLAME)]
    (positive, positive_mask, _), (negative, negative_mask, _) = sides
    g = steering.vectors(models.forward, SITE, position="mean", model="SmolLM2-135M-Instruct")
    vector = g(model, positive, negative, positive_mask, negative_mask).at_layers(*range(1, 30))

    prompts, mask, last = tokens(UNSEEN)
    f = partial(models.forward, attention_mask=mask, logits_at=last)
    good, bad = (jnp.full(3, tokenizer.token_id(word)) for word in (" good", " bad"))
    strengths = [-4.0, 0.0, 4.0]
    run = partial(steering.sweep, f, metrics.logit_diff(good, bad), strengths=strengths)
    effects = np.asarray(run(vector.at_layers(8, 12, 16))(model, prompts))
    assert (np.diff(effects, axis=1) > 0).all(), effects

    # Ten random vectors at layer 12.
    drawn = jax.vmap(steering.random, (0, None))(jax.random.split(jax.random.key(0), 10), vector.vectors[11:12])
    chance = np.array(
        [
            run(steering.SteeringVector.create(vectors, SITE, layers=[12]))(model, prompts)[0] @ np.array([-1, 0, 1.0])
            for vectors in drawn
        ]
    )
    assert effects[1, 2] - effects[1, 0] > np.abs(chance).max(), (effects, chance)

    steering.save(tmp_path / "praise.gguf", vector, "gguf")
    names = [tensor.name for tensor in gguf.GGUFReader(tmp_path / "praise.gguf").tensors]
    assert names == [f"direction.{layer}" for layer in range(1, 30)]
    again = steering.load(tmp_path / "praise.gguf", model="SmolLM2-135M-Instruct")
    np.testing.assert_array_equal(again.vectors, vector.vectors)


def test_a_direction_out_of_weights_is_out_of_activations(smollm: Real) -> None:
    """Tied embeddings, 30 layers: the model whose weights cannot write along praise gives the edited model's logits."""
    model, tokenizer, _ = smollm
    sides = [models.tokenize(tokenizer, [f"The film was {said}"]) for said in (PRAISE, BLAME)]
    (positive, mask, _), (negative, others, _) = sides
    vector = steering.vectors(models.forward, SITE)(model, positive, negative, mask, others).vectors[12]
    new = models.with_weights(models.untie(model), steering.orthogonalize(models.weights(model), vector))
    edited = ij.intervene(models.forward, steering.ablation(vector))(model, positive)
    np.testing.assert_allclose(models.forward(new, positive), edited, atol=1e-4)
    assert np.abs(edited - models.forward(model, positive)).max() > 1
