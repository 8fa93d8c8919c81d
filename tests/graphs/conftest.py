"""A tiny model of three layers with random transcoders, looped and scanned, and the graphs of one prompt."""

from collections.abc import Callable
from dataclasses import replace
import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from interp_jax import dictionaries, graphs, models

TOKENS = jnp.array([1, 5, 3, 9, 5])
D, N = 16, 24
LONG = pytest.mark.long  # what is the same computation with other dictionaries, or a loop in the place of a scan
KEYS = jax.random.split(jax.random.key(3), 6)


def _transcoder(key: Any, n: int = N, *, skip: bool = False) -> Any:
    kind = dictionaries.SkipTranscoder if skip else dictionaries.Transcoder
    made = kind.create(key, D, n)
    noise = lambda x, size: x + size * jax.random.normal(jax.random.fold_in(key, x.size), x.shape)  # noqa: E731
    made = replace(made, b_enc=noise(made.b_enc, 0.1), b_dec=noise(made.b_dec, 0.1), W_dec=4 * made.W_dec)
    return replace(made, W_skip=noise(made.W_skip, 0.1)) if skip else made


def _cross() -> Any:
    made = dictionaries.CrossLayerTranscoder.create(KEYS[0], D, N, n_layers=3)
    return replace(made, b_enc=made.b_enc + 0.1, b_dec=made.b_dec + 0.2)


SETS: dict[str, Callable[[], Any]] = {
    "per layer": lambda: [_transcoder(key) for key in KEYS[:3]],
    "skip": lambda: [_transcoder(key, skip=True) for key in KEYS[:3]],
    "cross": _cross,
    "two of three": lambda: {0: _transcoder(KEYS[0]), 2: _transcoder(KEYS[2], 40)},
}


@functools.cache
def model(*, scanned: bool, norm: str = "rmsnorm") -> Any:
    config = models.Config(
        n_layers=3, n_heads=2, d_model=D, d_mlp=32, d_vocab=11, n_ctx=8, norm=norm, attn_bias=norm != "rmsnorm"
    )
    made = models.Decoder.create(jax.random.key(0), config, scan_layers=False)
    noise = lambda x: x + 0.3 * jax.random.normal(jax.random.fold_in(jax.random.key(1), x.size), x.shape, x.dtype)  # noqa: E731
    made = jax.tree.map(noise, made)
    return models.stack_layers(made) if scanned else made


@functools.cache
def graph(name: str, *, scanned: bool = False) -> graphs.Graph:
    return graphs.attribution_graph(models.forward, model(scanned=scanned), SETS[name](), TOKENS)


@pytest.fixture(params=[pytest.param("looped", marks=LONG), "scanned"])
def scanned(request: pytest.FixtureRequest) -> bool:
    return request.param == "scanned"


@pytest.fixture(params=[pytest.param(name, marks=() if name == "per layer" else LONG) for name in SETS])
def name(request: pytest.FixtureRequest) -> str:
    return request.param
