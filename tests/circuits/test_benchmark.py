"""MIB's areas: against scikit-learn's trapezoid rule, the identities, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import auc

from interp_jax import circuits, patching


def test_areas() -> None:
    share = np.random.default_rng(0).normal(0.7, 0.5, (2, 3, 10)).astype(np.float32)
    found = jax.jit(circuits.areas)(jnp.asarray(share))
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(found.cpr[index], auc(circuits.FRACTIONS, share[index]), rtol=1e-5)
        np.testing.assert_allclose(found.cmd[index], auc(circuits.FRACTIONS, np.abs(1 - share[index])), rtol=1e-5)
    whole = circuits.areas(jnp.ones(10))
    np.testing.assert_allclose([whole.cpr, whole.cmd], [0.999, 0], atol=1e-6)


@pytest.mark.parametrize(("n_layers", "n_heads", "total"), [(12, 12, 32_491), (26, 8, 74_218), (24, 14, 179_749)])
def test_edges_are_counted_as_in_mib(n_layers: int, n_heads: int, total: int) -> None:
    """The counts of edges that MIB's code states for GPT-2, Gemma 2 2B and Qwen2.5 0.5B."""
    heads = [f"{layer}.{head}" for layer in range(n_layers) for head in range(n_heads)]
    mlps = [f"mlp {layer}" for layer in range(n_layers)]
    senders = ("embed", *(f"head {name}" for name in heads), *mlps)
    receivers = (*(f"{kind} {name}" for kind in "qkv" for name in heads), *mlps, "logits")
    edges = patching.Edges(jnp.zeros((len(senders), len(receivers))), senders, receivers)
    assert circuits.EdgeCircuit.top(edges, edges.scores.size).size == total


def test_bad_input_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"areas: share is \[2, 9\] of 10 fractions: give one circuit for each"):
        circuits.areas(jnp.ones((2, 9)))
    with pytest.raises(ValueError, match=r"areas: fractions \[0.5, 0.1\] do not grow"):
        circuits.areas(jnp.ones(2), (0.5, 0.1))
