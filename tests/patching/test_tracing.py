"""Causal tracing, noise sample by noise sample."""

import jax
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import patching
from interp_jax.interventions import at, noise, replace

SUBJECT = np.zeros((3, 6), bool)
SUBJECT[:, 3:5] = True


@pytest.mark.long
def test_each_restoration_is_one_run(tiny) -> None:
    f, metric, model, tokens, _ = tiny
    trace = patching.causal_trace(f, metric, "blocks.mlp_out", ("layer",), n_samples=2, window=2)
    found = trace(jax.random.key(0), SUBJECT, 2.0, model, tokens)
    clean = ij.capture(f, "blocks.mlp_out", output=False)(model, tokens)["blocks.mlp_out"]
    corrupted, restored = [], []
    for key in jax.random.split(jax.random.key(0), 2):
        noisy = {"embed": at(noise(key, 2.0), mask=SUBJECT)}
        back = {f"blocks.{k}.mlp_out": replace(clean[k]) for k in (0, 1)}
        corrupted.append(metric(ij.intervene(f, noisy)(model, tokens)).mean())
        restored.append(metric(ij.intervene(f, noisy | back)(model, tokens)).mean())
    np.testing.assert_allclose(found.clean, metric(f(model, tokens)).mean(), atol=1e-5)
    np.testing.assert_allclose(found.corrupted, np.mean(corrupted), atol=1e-5)
    np.testing.assert_allclose(found.restored[1], np.mean(restored), atol=1e-5)


def test_no_samples() -> None:
    with pytest.raises(ValueError, match="n_samples=0: it must be at least 1"):
        patching.causal_trace(len, len, "blocks.resid_post", n_samples=0)
