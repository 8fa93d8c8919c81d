"""Every architecture lowers its loss and finds planted features, with its own published loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries
from tests.dictionaries.kinds import ARCHITECTURES

pytestmark = pytest.mark.long

D_IN, D_SAE, K, N_FEATURES, N_STEPS = 12, 24, 2, 16, 600
rng = np.random.default_rng(77)
DIRECTIONS = jnp.asarray(rng.normal(size=(N_FEATURES, D_IN)), jnp.float32)
DIRECTIONS = DIRECTIONS / jnp.linalg.norm(DIRECTIONS, axis=-1, keepdims=True)


def planted(key, n=256):
    """Sums of K of the directions."""
    keys = jax.random.split(key, 2)
    chosen = jax.random.uniform(keys[0], (n, N_FEATURES)).argsort(-1)[:, :K]
    weights = jax.random.uniform(keys[1], (n, K), minval=1.0, maxval=2.0)
    return jnp.einsum("nk,nkd->nd", weights, DIRECTIONS[chosen])


# Settings of `create`, and the weight of the sparsity term for inputs of this size.
KINDS = {
    "archetypal": ({"k": K, "points": planted(jax.random.key(1)), "delta": 0.3}, 0.0),
    "batchtopk": ({"k": K}, 0.0),
    "clt": ({"n_layers": 2, "threshold": 0.3, "bandwidth": 0.3}, 0.3),
    "crosscoder": ({"n_sites": 2}, 1.0),
    "gated": ({}, 1.0),
    "jumprelu": ({"threshold": 0.3, "bandwidth": 0.3}, 0.3),
    "matryoshka": ({"k": K}, 0.0),
    "panneal": ({}, 0.3),
    "relu": ({"form": "towards"}, 1.0),
    "skip_transcoder": ({}, 1.0),
    "tied": ({}, 1.0),
    "topk": ({"k": K}, 0.0),
    "transcoder": ({}, 1.0),
}


def batch(kind, key):
    x = planted(key)
    if kind == "crosscoder":
        return jnp.stack([x, -x], axis=1)
    if kind == "clt":  # the second layer is to write what the first has read
        zeros = jnp.zeros_like(x)
        return jnp.stack([x, zeros], axis=1), jnp.stack([zeros, x], axis=1)
    return (x, x) if "transcoder" in kind else x


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_planted_features_are_recovered(kind):
    settings, sparsity = KINDS[kind]
    d = ARCHITECTURES[kind].create(jax.random.key(0), D_IN, D_SAE, **settings)
    state = dictionaries.TrainState.create(d, N_STEPS, learning_rate=1e-2, dead_after=30, sparsity_coefficient=sparsity)

    @jax.jit
    def run(state):
        def step(state, i):
            return dictionaries.train_step(state, batch(kind, jax.random.fold_in(jax.random.key(0), i)))

        return jax.lax.scan(step, state, jnp.arange(N_STEPS))

    state, info = run(state)
    assert float(info.fvu[-20:].mean()) < 0.5
    if kind == "skip_transcoder":
        return  # the task is linear, so that the skip takes it all and the features have nothing to find
    rows = np.asarray(state.dictionary.W_dec)
    rows = {"crosscoder": rows[0], "clt": rows[0, -1]}.get(kind, rows) if rows.ndim > 2 else rows
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    cosine = float((np.asarray(DIRECTIONS) @ rows.T).max(-1).mean())
    assert cosine > 0.9, f"mean max cosine {cosine:.3f} at l0 {info.l0[-1]:.2f}, fvu {info.fvu[-1]:.3f}"
