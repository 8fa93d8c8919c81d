"""Shifts of heads: one deviation along the direction at the best heads, and nothing elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models, steering
from interp_jax.interventions import add, per_layer

Z = "blocks.attn.z"
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(3, 2, 20, 8)) * RNG.uniform(1, 3, size=(3, 2, 1, 1)), jnp.float32)
DIRECTIONS = jnp.asarray(RNG.normal(size=(3, 2, 8)), jnp.float32)
SCORES = jnp.array([[0.5, 0.9], [0.7, 0.6], [0.8, 0.4]])


def test_deviations_along_unit_directions_at_the_best_heads():
    shifts = np.asarray(steering.head_shifts(X, 7 * DIRECTIONS, SCORES, 2))
    for layer, head in np.ndindex(3, 2):
        unit = np.asarray(DIRECTIONS)[layer, head] / np.linalg.norm(DIRECTIONS[layer, head])
        want = unit * np.std(np.asarray(X)[layer, head] @ unit) if (layer, head) in {(0, 1), (2, 0)} else 0 * unit
        np.testing.assert_allclose(shifts[layer, head], want, atol=1e-5)


def test_the_heads_are_shifted_in_the_model(model, tokens):
    shape = ij.sites(models.forward, model, tokens)[Z].shape
    x = jnp.asarray(RNG.normal(size=(3, shape[2], 5, shape[3])), jnp.float32)
    shifts = steering.head_shifts(x, x[:, :, 0], jnp.arange(3.0 * shape[2]).reshape(3, -1), 1)
    f = ij.intervene(models.forward, {Z: per_layer(add(2 * shifts))})
    (_, before), (_, after) = (ij.capture(g, Z)(model, tokens) for g in (models.forward, f))
    moved = np.abs(np.asarray(after[Z] - before[Z])).sum((1, 2, 4))  # [layer head]
    assert (moved[:2] == 0).all() and (moved[2, :-1] == 0).all()
    np.testing.assert_allclose(after[Z][2, 0, 0, -1] - before[Z][2, 0, 0, -1], 2 * shifts[2, -1], atol=1e-5)
    assert (
        jax.grad(lambda s: ij.intervene(models.forward, {Z: per_layer(add(s * shifts))})(model, tokens).sum())(1.0) != 0
    )


@pytest.mark.parametrize(
    ("x", "directions", "scores", "k", "message"),
    [
        (X, DIRECTIONS[:2], SCORES, 2, "directions [2, 2, 8]"),
        (X, DIRECTIONS, SCORES[:2], 2, "scores [2, 2]"),
        (X, DIRECTIONS, SCORES, 7, "n_heads=7 of 6"),
        (X, DIRECTIONS, SCORES, 0, "n_heads=0"),
    ],
)
def test_bad_input(x, directions, scores, k, message):
    with pytest.raises(ValueError) as caught:
        steering.head_shifts(x, directions, scores, k)
    assert message in str(caught.value)
