"""Edits of weights by penzai's selectors: any part of a model by its place or its class, the rest as it was."""

import chex
import jax
import jax.numpy as jnp
from penzai import pz
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.models.params import MLP, Attention
from tests.models.conftest import CONFIGS, GPT2, random_model

TOKENS = jnp.array([[1, 5, 9]])


@pytest.mark.parametrize("scanned", [False, True])
def test_by_class_as_by_the_names_of_weights(scanned: bool) -> None:
    model = random_model(GPT2)
    model = models.stack_layers(model) if scanned else model
    selected = pz.select(model).at_instances_of(MLP).at(lambda mlp: (mlp.w_out, mlp.b_out), multiple=True)
    silent = selected.apply(jnp.zeros_like)
    weights = models.weights(model)
    chex.assert_trees_all_equal(
        silent, models.with_weights(model, {name: 0 * weights[name] for name in ("W_out", "b_out")})
    )
    written = ij.capture(models.forward, "blocks.mlp_out", output=False)(silent, TOKENS)["blocks.mlp_out"]
    assert not written.any() and weights["W_out"].any()  # the model that was given stays


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_by_place_as_a_function_of_the_value(kind: str) -> None:
    model = random_model(CONFIGS[kind])
    place = pz.select(model).at(lambda model: model.blocks[1].attn.w_v)
    value = model.blocks[1].attn.w_v
    chex.assert_trees_all_equal(place.get(), value)

    @jax.jit
    def score(value: jax.Array) -> jax.Array:
        return models.forward(place.set(value), TOKENS)[0, -1, 7]

    whole = jax.grad(lambda model: models.forward(model, TOKENS)[0, -1, 7])(model)
    chex.assert_trees_all_close(jax.grad(score)(value), whole.blocks[1].attn.w_v, rtol=1e-4, atol=1e-5)


def test_one_head_of_every_layer() -> None:
    model = random_model(GPT2)
    without = pz.select(model).at_instances_of(Attention).at(lambda attn: attn.w_o).apply(lambda w: w.at[1].set(0.0))
    expected = ij.intervene(models.forward, {"blocks.attn.z": ij.interventions.at(lambda z: 0 * z, head=1)})
    chex.assert_trees_all_close(models.forward(without, TOKENS), expected(model, TOKENS), rtol=1e-4, atol=1e-5)
