"""Shifts of heads beside numpy, as an edit beside heads shifted one by one, and in a text that is generated."""

import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models, steering
from interp_jax.interventions import add, at, chain, per_layer

Z = "blocks.attn.z"


@pytest.fixture
def parts(model):
    rng, d_head = np.random.default_rng(0), model.config.d_head
    made = rng.normal(size=(3, 4, 20, d_head)), rng.normal(size=(3, 4, d_head)), rng.random((3, 4))
    return [jnp.asarray(x, jnp.float32) for x in made]


def test_the_best_heads_are_shifted_by_a_deviation(parts):
    shifts = np.asarray(steering.head_shifts(*parts, 2))
    x, directions, scores = map(np.asarray, parts)
    best = {divmod(int(i), 4) for i in np.argsort(-scores.ravel())[:2]}
    for i, j in np.ndindex(3, 4):
        unit = directions[i, j] / np.linalg.norm(directions[i, j])
        wanted = unit * np.std(x[i, j] @ unit) if (i, j) in best else np.zeros(len(unit))
        np.testing.assert_allclose(shifts[i, j], wanted, atol=1e-5)


def test_the_edit_is_that_of_each_head(model, tokens, parts):
    shifts = 3 * steering.head_shifts(*parts, 2)
    logits = ij.intervene(models.forward, {Z: per_layer(add(shifts))})(model, tokens)
    one_by_one = chain(*(at(add(shifts[i, j]), layer=i, head=j) for i, j in np.ndindex(3, 4)))
    np.testing.assert_allclose(logits, ij.intervene(models.forward, {Z: one_by_one})(model, tokens), atol=1e-5)
    edits = {Z: at(per_layer(add(shifts)), position="generated")}
    assert models.generate(model, tokens, 3, edits=edits).shape == (2, 8)
