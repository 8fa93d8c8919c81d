"""Tiny random decoders whose every weight shows, untied so that the unembedding may be rewritten."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models

GPT2 = models.Config(n_layers=2, n_heads=4, d_model=16, d_mlp=24, d_vocab=37, n_ctx=16, tie_embeddings=False)
CONFIGS = {
    "gpt2": GPT2,
    "llama": replace(
        GPT2, family="llama", n_kv_heads=2, act="silu", gated=True, norm="rmsnorm", positions="rotary",
        attn_bias=False, mlp_bias=False,
    ),
    "neox": replace(GPT2, family="gpt_neox", act="gelu", positions="rotary", rotary_dim=2, parallel=True),
}  # fmt: skip


@pytest.fixture(scope="session", params=["gpt2", "llama", pytest.param("neox", marks=pytest.mark.long)])
def model(request: pytest.FixtureRequest) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.3 * rng.normal(size=leaf.shape), leaf.dtype),
        models.Decoder.create(jax.random.key(0), CONFIGS[request.param]),
    )


@pytest.fixture(scope="session")
def tokens() -> jax.Array:
    return jax.random.randint(jax.random.key(1), (2, 7), 0, 37)
