"""One small dictionary of every kind, and what it takes."""

from dataclasses import fields, replace
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries

OURS = [kind for kind in dictionaries.known_kinds() if kind.__module__.startswith("interp_jax.")]
ARCHITECTURES = {kind.architecture: kind for kind in OURS}
D_IN, D_OUT, D_SAE, N = 8, 6, 24, 32
POINTS = jax.random.normal(jax.random.key(5), (30, D_IN))
FITTED = jax.random.exponential(jax.random.key(6), (200, D_IN))
KEYWORDS = {
    "archetypal": {"k": 3, "points": POINTS, "delta": 0.5},
    "batchtopk": {"k": 3},
    "clt": {"n_layers": 2, "d_out": D_OUT, "threshold": 0.3},
    "crosscoder": {"n_sites": 2},
    "gated": {},
    "ica": {"k": 3, "x": FITTED},
    "jumprelu": {"threshold": 0.3, "bandwidth": 0.3},
    "lorsa": {"k": 3, "n_groups": 4, "d_qk": 2, "d_out": D_OUT, "rope_theta": 100.0},
    "matryoshka": {"k": 3},
    "neuron_basis": {"k": 3},
    "nmf": {"k": 3, "x": FITTED, "n_steps": 50},
    "panneal": {},
    "pca": {"k": 3, "x": FITTED},
    "random_directions": {"k": 3},
    "relu": {"form": "towards"},
    "skip_transcoder": {"d_out": D_OUT},
    "tied": {},
    "topk": {"k": 3},
    "topk_transcoder": {"k": 3, "d_out": D_OUT},
    "transcoder": {"d_out": D_OUT},
}
PAIRS = {"clt", "lorsa", "skip_transcoder", "topk_transcoder", "transcoder"}  # what maps inputs to targets
SEQUENCES = {"lorsa"}  # what reads whole sequences
LAYERED = {"clt", "crosscoder"}  # what reads several sites at once
SIGNED = {"ica", "neuron_basis", "pca", "random_directions"}
WIDTHS = dict.fromkeys(KEYWORDS, D_SAE) | {"ica": 6, "neuron_basis": D_IN, "nmf": 6, "pca": 6}  # a basis has no more
kinds = pytest.mark.parametrize("kind", sorted(KEYWORDS))
DEAD = jnp.arange(D_SAE) < 4


def create(kind, seed=0, d_sae=None):
    d_sae = WIDTHS[kind] if d_sae is None else d_sae
    return ARCHITECTURES[kind].create(jax.random.key(seed), D_IN, d_sae, **KEYWORDS[kind])


@functools.cache
def noisy(kind, seed=0):
    """A dictionary with every trained array moved off its start."""
    made = create(kind, seed)
    fixed = {"threshold", "bandwidth", "points", "limit", "mean_norm", "folded_norms"}
    names = [f.name for f in fields(made) if not f.metadata.get("static") and f.name not in fixed]
    rng = np.random.default_rng(seed)
    return replace(made, **{n: getattr(made, n) + 0.1 * rng.normal(size=getattr(made, n).shape) for n in names})


def inputs(kind, n=N, d=D_IN, seed=9):
    shape = (n, 2, d) if kind in LAYERED else (n, d)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) + 0.3, jnp.float32)


def batch(kind):
    """What the loss of a kind takes."""
    x, y = inputs(kind), inputs(kind, d=D_OUT)
    if kind in SEQUENCES:
        x, y = (part.reshape(4, N // 4, -1) for part in (x, y))
    return (x, y) if kind in PAIRS else x
