"""Probes on a real model's activations: beside scikit-learn on SST-2, and what its layers know of sentiment."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import interp_jax as ij
from interp_jax import data, models, probes
from tests.real.conftest import Real

pytestmark = pytest.mark.real


def test_sentiment_of_reviews(smollm: Real, real_data: Path) -> None:
    """240 sentences of the treebank, at the last word of every tenth layer, probed as scikit-learn does."""
    reviews = data.sst2.read(real_data / "sst2" / "dev.tsv", least=6, most=10)
    reviews = reviews.rows(np.random.default_rng(0).permutation(len(reviews))[:240])
    tokens, mask, _ = models.tokenize(smollm.tokenizer, list(reviews.sentences))
    read = jax.jit(ij.capture(models.forward, {"blocks.resid_post": lambda x: x[:, -1]}, output=False))
    parts = [
        read(smollm.model, tokens[i : i + 24], attention_mask=mask[i : i + 24])["blocks.resid_post"]
        for i in range(0, 240, 24)
    ]
    x = jnp.concatenate(parts, 1).astype(jnp.float32)[::10]  # [layer example d_model]
    assert x.shape == (3, 240, 576)
    x = x / jnp.sqrt((x**2).mean((1, 2), keepdims=True))
    train = np.arange(240) < 160
    probe = probes.logistic(x, reviews.labels, l2=100.0, weights=train)
    for layer in range(3):
        wide = np.asarray(x[layer], np.float64)
        peer = LogisticRegression(C=0.01, solver="newton-cholesky", tol=1e-10).fit(wide[train], reviews.labels[train])
        ours = jax.nn.softmax(probe(x))[layer]
        np.testing.assert_allclose(ours, peer.predict_proba(wide), atol=1e-3)
    accuracy = probes.scores(probe, x, reviews.labels, weights=~train).accuracy
    assert accuracy[1] > 0.65, accuracy  # chance is 0.5 ± 0.06
