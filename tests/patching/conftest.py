"""The microworld with aligned IOI pairs, and a tiny random model with padded prompts."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import data, metrics, models


class Setting(NamedTuple):
    f: Any
    metric: Any
    model: Any
    clean: Any
    corrupted: Any


@pytest.fixture(scope="session")
def microworld() -> Setting:
    model, tokenizer = models.load("microworld", dtype=jnp.float32)
    task = data.tasks.ioi(jax.random.key(0), tokenizer, n=16, order="ABBA", template=0)
    f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
    return Setting(f, metrics.logit_diff(task.answers, task.distractors), model, task.clean, task.corrupted)


def tiny_model(seed: int = 0) -> Any:
    config = models.Config(n_layers=2, n_heads=2, d_model=8, d_mlp=12, d_vocab=37, n_ctx=32)
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.3 * rng.normal(size=leaf.shape), leaf.dtype),
        models.Decoder.create(jax.random.key(seed), config),
    )


@pytest.fixture(scope="session")
def tiny() -> Setting:
    """Three pairs of at most six tokens, padded on the left."""
    rng = np.random.default_rng(1)
    clean, corrupted = (jnp.asarray(rng.integers(0, 37, (3, 6)), jnp.int32) for _ in range(2))
    mask = jnp.arange(6) >= jnp.array([[2], [0], [1]])
    f = partial(models.forward, attention_mask=mask, logits_at=jnp.array([5, 5, 5]))
    metric = metrics.logit_diff(jnp.array([1, 2, 3]), jnp.array([4, 5, 6]))
    return Setting(f, metric, tiny_model(), clean, corrupted)
