"""Function vectors beside runs by hand: on looped and scanned layers, padded, in one program and in chunks."""

from functools import partial
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import metrics, models, steering
from interp_jax.interventions import at, replace

Z = "blocks.attn.z"
MASK = np.arange(5) >= np.array([[0], [2]])
LAST = jnp.array([4, 2])
ONES = jnp.ones((2, 2, 1)), jnp.ones((2, 2, 1, 3))
METRIC = metrics.prob(jnp.array([1, 2]))
F = partial(models.forward, attention_mask=MASK, logits_at=jnp.array([4, 4]))


def means(model, tokens):
    return steering.head_means(models.forward, LAST)(model, tokens, attention_mask=MASK)


def test_means_are_those_of_each_prompt_alone(model, tokens):
    alone = [
        ij.capture(models.forward, Z, output=False)(model, row[real])[Z][:, -1]
        for row, real in zip(tokens, MASK, strict=True)
    ]
    np.testing.assert_allclose(means(model, tokens), np.mean(alone, axis=0), atol=1e-5)


@pytest.mark.parametrize(("deep", "chunk"), [(16, None), (1, 2)])
def test_effects_are_those_of_one_head_after_the_other(model, tokens, monkeypatch, deep, chunk):
    monkeypatch.setattr(sys.modules["interp_jax.steering.function_vectors"], "DEEP", deep)
    put = means(model, tokens) + 1
    found = steering.head_effects(F, METRIC, put, LAST, chunk=chunk)(model, tokens)

    def score(edits):
        return float(METRIC(ij.intervene(F, edits)(model, tokens)).mean())

    by_hand = [
        [score({Z: at(replace(put[i, j]), layer=i, head=j, position=LAST)}) - score({}) for j in range(put.shape[1])]
        for i in range(put.shape[0])
    ]
    np.testing.assert_allclose(found, by_hand, atol=1e-6)


def test_the_vector_is_what_the_chosen_heads_write(model, tokens):
    """Put back at their places, the heads add what the vector adds to a stream without them."""
    put, W_O = means(model, tokens), models.weights(model)["W_O"]
    effects = jnp.asarray(np.random.default_rng(0).normal(size=put.shape[:2]), jnp.float32)
    chosen = np.argsort(-effects.ravel())[:3]
    vector = steering.function_vector(put, effects, W_O, 3)
    written = [
        np.asarray(put).reshape(-1, put.shape[-1])[i] @ np.asarray(W_O).reshape(-1, *W_O.shape[2:])[i] for i in chosen
    ]
    np.testing.assert_allclose(vector, np.sum(written, axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, t: steering.head_means(models.forward, LAST, "blocks.resid_post")(m, t), "is not one site"),
        (lambda m, t: steering.head_means(models.forward, LAST, "blocks.attn.[qz]")(m, t), "attn.[qz]"),
        (lambda m, t: steering.head_effects(F, METRIC, jnp.ones((3, 1, 4)), LAST)(m, t), "take those of head_means"),
        (lambda m, t: steering.head_effects(F, jnp.mean, means(m, t), LAST)(m, t), "one number per example"),
        (lambda m, t: steering.head_effects(F, METRIC, means(m, t), LAST, chunk=0), "chunk=0"),
        (lambda m, t: steering.function_vector(ONES[0], jnp.ones((2, 2)), ONES[1], 5), "n_heads=5 of 4"),
        (lambda m, t: steering.function_vector(ONES[0], jnp.ones((2, 3)), ONES[1], 1), "effects [2, 3]"),
    ],
)  # fmt: skip
def test_bad_input(model, tokens, call, message):
    with pytest.raises(ValueError) as caught:
        call(model, tokens)
    assert message in str(caught.value)
