"""Methods say the same compiled or not, and on each of several devices: chex runs them in every way."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import circuits, metrics, models, patching
from tests.patching.conftest import tiny_model

CLEAN, CORRUPTED = (jnp.asarray(np.random.default_rng(seed).integers(0, 37, (2, 5)), jnp.int32) for seed in (1, 2))
METRIC = metrics.logit_diff(jnp.array([1, 2]), jnp.array([4, 5]))


def last(model, tokens):
    return models.forward(model, tokens)[:, -1]


class Variants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_a_sweep(self) -> None:
        args, g = (tiny_model(), CLEAN, CORRUPTED), patching.activation_patch(last, METRIC, "blocks.1.attn.z", "head")
        chex.assert_trees_all_close(self.variant(g)(*args), g(*args), atol=1e-5)

    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_faithfulness(self) -> None:
        circuit = circuits.Circuit.top(jax.random.normal(jax.random.key(0), (2, 2)), jnp.ones(2), jnp.array([2, 4]))
        args, g = (tiny_model(), CLEAN, CORRUPTED, circuit), circuits.faithfulness(last, METRIC)
        chex.assert_trees_all_close(self.variant(g)(*args), g(*args), atol=1e-5)
