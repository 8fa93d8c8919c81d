"""Which axes go together, place by place, against functions that are run at each place by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax.core.axes import follow

X = jax.random.normal(jax.random.key(0), (2, 6, 8))
W = jax.random.normal(jax.random.key(1), (8, 5))
FEW = jnp.array([1, 2])


def top(x: Any) -> Any:
    values, index = jax.lax.top_k(x, 3)
    return jnp.zeros_like(x).at[index].set(values)


def scattered(x: Any) -> Any:
    """The same of all rows at once, each by its number."""
    values, index = jax.lax.top_k(x, 3)
    rows = jnp.arange(x.shape[0])[:, None, None], jnp.arange(x.shape[1])[None, :, None]
    return jnp.zeros_like(x).at[*rows, index].set(values)


# Each sees [batch position d]; whether it does the same at each position, by that position alone.
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "matmul": (lambda x: (x @ W) @ W.T, True),
    "einsum": (lambda x: jnp.einsum("bpd,df->bpf", x, W) @ W.T, True),
    "merged": (lambda x: (x.reshape(-1, 8) @ W @ W.T).reshape(x.shape), True),
    "all merged": (lambda x: (x.reshape(-1) * 2).reshape(x.shape), True),
    "heads": (lambda x: (x.reshape(*x.shape[:2], 2, 4).swapaxes(2, 3) * 2).swapaxes(2, 3).reshape(x.shape), True),
    "norm": (lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5), True),
    "softmax": (lambda x: jax.nn.softmax(x, -1), True),
    "activations": (lambda x: jax.nn.relu(x) + jax.nn.gelu(x) + jax.nn.silu(x), True),
    "a feature": (lambda x: x.at[..., 5].add(3.0), True),
    "some features": (lambda x: x.at[:, :, FEW].set(0.0), True),
    "taken features": (lambda x: x[..., FEW] @ jnp.ones((2, 8)), True),
    "threshold": (lambda x: jnp.where(x >= jax.lax.top_k(x, 3)[0][..., -1:], x, 0), True),
    "top k": (lambda x: jax.vmap(jax.vmap(top))(x), True),
    "sorted": (lambda x: jnp.sort(x, -1), True),
    "rolled features": (lambda x: jnp.roll(x, 1, -1), True),
    "halves": (lambda x: jnp.concatenate([x[..., :4], x[..., 4:] * 0], -1), True),
    "transposed": (lambda x: (2 * x.transpose(1, 0, 2)).transpose(1, 0, 2), True),
    "mapped": (lambda x: jax.vmap(jax.vmap(lambda r: r @ W @ W.T))(x), True),
    "loop": (lambda x: jax.lax.fori_loop(0, 3, lambda _, c: jnp.tanh(c), x), True),
    "scan of layers": (lambda x: jax.lax.scan(lambda c, _: (jnp.tanh(c), None), x, None, length=3)[0], True),
    "scan of positions": (lambda x: jnp.moveaxis(jax.lax.map(jnp.sin, jnp.moveaxis(x, 1, 0)), 0, 1), True),
    "cond": (lambda x: jax.lax.cond(W.sum() > 0, jnp.sin, jnp.cos, x), True),
    "jitted and checkpointed": (lambda x: jax.jit(jax.checkpoint(jnp.tanh))(x), True),
    "ones": (jnp.ones_like, True),
    "stack": (lambda x: jnp.stack([x, x * 2], -1).sum(-1), True),
    "unstack": (lambda x: jnp.stack(jnp.unstack(x, axis=-1)[::-1], -1), True),
    "tile": (lambda x: jnp.tile(x, (1, 1, 2))[..., :8], True),
    "top k, scattered": (scattered, True),
    "put along": (lambda x: jnp.put_along_axis(x, x.argmax(-1, keepdims=True), 0.0, -1, inplace=False), True),
    "argsort": (lambda x: jnp.take_along_axis(x, jnp.argsort(x, -1), -1), True),
    "approximate top k": (lambda x: jnp.where(x >= jax.lax.approx_max_k(x, 3)[0][..., -1:], x, 0), True),
    "interp": (lambda x: jnp.interp(x, jnp.linspace(-2, 2, 9), jnp.linspace(-1, 1, 9) ** 3), True),
    "searchsorted": (lambda x: x * jnp.searchsorted(jnp.linspace(-2, 2, 9), x).astype(x.dtype), True),
    "fft": (lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * 2), True),
    "convolve": (lambda x: jax.vmap(jax.vmap(lambda r: jnp.convolve(r, W[0, :3], "same")))(x), True),
    "reduce": (lambda x: x - jax.lax.reduce(x, 0.0, lambda a, b: a + b * 1.0, (2,))[..., None], True),
    "window": (lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 3), (1, 1, 1), "SAME"), True),
    "solve": (lambda x: jnp.linalg.solve(W @ W.T + jnp.eye(8), x[..., None])[..., 0], True),
    "special": (lambda x: jnp.sinc(x) + jax.scipy.special.i0(x) + jax.scipy.special.gammainc(1.0 + x**2, 2.0), True),
    "ldexp": (lambda x: jnp.ldexp(*jnp.frexp(x)) * 2, True),
    "a site": (lambda x: ij.site(x * 2, "inside"), True),
    "a position": (lambda x: x.at[:, 3].add(1.0), False),
    "the last": (lambda x: x.at[:, -1].set(0.0), False),
    "position and feature": (lambda x: x.at[:, 3, 2].add(1.0), False),
    "gathered positions": (lambda x: x[:, jnp.array([0, 1, 2, 3, 4, 4])], False),
    "sorted positions": (lambda x: jnp.sort(x, 1), False),
    "softmax over positions": (lambda x: jax.nn.softmax(x, 1), False),
    "less the mean": (lambda x: x - x.mean(1, keepdims=True), False),
    "less the first": (lambda x: x - x[:, :1], False),
    "shifted": (lambda x: jnp.roll(x, 1, 1), False),
    "reversed": (lambda x: x[:, ::-1], False),
    "sums": (lambda x: jnp.cumsum(x, 1), False),
    "by number": (lambda x: x + jnp.arange(1.0 * x.shape[1])[:, None], False),
    "one chosen": (lambda x: jnp.where((jnp.arange(x.shape[1]) == 2)[:, None], 0, x), False),
    "by number, reshaped": (lambda x: x + jnp.arange(1.0 * x.shape[0] * x.shape[1]).reshape(*x.shape[:2], 1), False),
    "by number, merged": (
        lambda x: (x.reshape(-1, 8) + jnp.arange(1.0 * x.shape[0] * x.shape[1])[:, None]).reshape(x.shape),
        False,
    ),
    "by number, sliced": (lambda x: x + jnp.arange(100.0)[3 : 3 + x.shape[1], None], False),
    "top of positions": (lambda x: x + jnp.sort(jax.lax.top_k(x.swapaxes(1, 2), 1)[0].swapaxes(1, 2), 1), False),
    "window of positions": (
        lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 1), (1, 1, 1), "SAME"),
        False,
    ),
    "fft of positions": (lambda x: jnp.fft.fft(x, axis=1).real, False),
    "put at positions": (lambda x: jnp.put_along_axis(x, x.argmax(1, keepdims=True), 0.0, 1, inplace=False), False),
    "noise": (lambda x: x + jax.random.normal(jax.random.key(0), x.shape), False),
    "attention": (lambda x: jax.nn.softmax(x @ x.swapaxes(1, 2)) @ x, False),
    "its own sum": (lambda x: x * jnp.einsum("bpd,bqd->bp", x, x)[..., None], False),
    "swapped": (lambda x: x.reshape(2, 3, 2, 8).swapaxes(1, 2).reshape(x.shape), False),
    "scan over positions": (
        lambda x: jnp.moveaxis(jax.lax.scan(lambda c, r: (c + r,) * 2, 0 * x[:, 0], jnp.moveaxis(x, 1, 0))[1], 0, 1),
        False,
    ),
    "counted": (
        lambda x: jnp.moveaxis(jax.lax.scan(lambda i, r: (i + 1, r * i), 0.0, jnp.moveaxis(x, 1, 0))[1], 0, 1),
        False,
    ),
    "cond on all": (lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), False),
    "while on all": (lambda x: jax.lax.while_loop(lambda c: c.sum() > 1, lambda c: c / 2, x**2), False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_at_each_place(name: str) -> None:
    f, expected = FUNCTIONS[name]
    if name not in ("swapped", "gathered positions"):  # they need all six
        places = [np.asarray(f(X[:, i : i + 1])) for i in range(6)]
        assert np.allclose(np.concatenate(places, 1), f(X), atol=1e-5) == expected
    assert follow(f, X).is_uniform(-2, {0: -2}) == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_said_to_be_local_is(name: str) -> None:
    f, _ = FUNCTIONS[name]
    fn = follow(f, X)
    np.testing.assert_allclose(fn(X), f(X), rtol=1e-5)
    slopes = np.asarray(jax.jacfwd(f)(X))  # [batch position d, batch position d]
    for axis in range(3):
        if fn.is_local([axis - 3]):
            crossed = np.moveaxis(np.abs(slopes), (axis, axis + 3), (0, 1)).sum((2, 3, 4, 5))
            np.testing.assert_array_equal(crossed * (1 - np.eye(len(crossed))), 0)
