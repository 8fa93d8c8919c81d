"""The functions that the laws are about: one that nests every control flow, its Python-loop twin, one edited by hand.

`tap(value, name, layer, axes)` stands at every site. With `ij.site` as the tap the function has sites; with edits as
the tap it is the same function edited by hand, which is what the transforms are compared with.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij

LAYERS, BATCH, POSITIONS, D_MODEL = 5, 8, 3, 4
STREAM = ("batch", "position", "d_model")
SITES = ("embed", "blocks.resid_pre", "blocks.rule", "blocks.gate", "blocks.turn", "blocks.resid_post", "final")


def site(value: Any, name: str, layer: int | None, axes: Any) -> Any:
    return ij.site(value, name, layer=layer, axes=axes)


def params(dtype: Any = jnp.float32) -> Any:
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "blocks": (0.4 * jax.random.normal(keys[0], (LAYERS, D_MODEL, D_MODEL))).astype(dtype),
        "final": (0.4 * jax.random.normal(keys[1], (D_MODEL, D_MODEL))).astype(dtype),
    }


def inputs(dtype: Any = jnp.float32, seed: int = 1) -> Any:
    return jax.random.normal(jax.random.key(seed), (BATCH, POSITIONS, D_MODEL)).astype(dtype)


def block(x: Any, w: Any, layer: int | None, tap: Callable[..., Any]) -> Any:
    """One layer: custom_jvp, custom_vjp, cond and while, each with a site inside, the stream tagged around them."""
    x = tap(x, "blocks.resid_pre", layer, STREAM)

    @jax.custom_jvp
    def squash(h: Any) -> Any:
        return jnp.tanh(tap(h, "blocks.rule", layer, STREAM))

    squash.defjvp(lambda p, t: (squash(p[0]), t[0] * (1 - jnp.tanh(p[0]) ** 2)))

    @jax.custom_vjp
    def halve(h: Any) -> Any:
        return h / 2

    halve.defvjp(lambda h: (h / 2, None), lambda _, g: (g / 2,))

    def branch(h: Any, sign: float) -> Any:
        return tap(h * jnp.asarray(sign, h.dtype), "blocks.gate", layer, STREAM)

    h = halve(squash(jax.jit(jnp.matmul)(x, w)))
    h = jax.lax.cond(w.sum() > 0, partial(branch, sign=1.0), partial(branch, sign=-1.0), h)
    # jax has no reverse mode of a while loop: the gradient goes around it
    spun = jax.lax.fori_loop(0, jnp.int32(2), lambda _, c: turn(c, layer, tap), jax.lax.stop_gradient(h))
    h = h + jax.lax.stop_gradient(spun)
    return tap(x + h, "blocks.resid_post", layer, STREAM)


def turn(h: Any, layer: int | None, tap: Callable[..., Any]) -> Any:
    return tap(jnp.roll(h, 1, -1), "blocks.turn", layer, STREAM)


def head(w: Any, x: Any, tap: Callable[..., Any]) -> Any:
    """Each row on its own device, under shard_map over the batch."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spec = jax.sharding.PartitionSpec
    x = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(spec("data"), spec()), out_specs=spec("data"), check_vma=False
    )(x, w)
    return tap(x, "final", None, STREAM).sum((1, 2))


def scanned(params: Any, x: Any) -> Any:
    """jit(scan(remat(jit(block)))). [batch position d_model] -> [batch]."""
    x = site(x, "embed", None, STREAM)
    layer = jax.checkpoint(lambda c, w: (jax.jit(partial(block, layer=None, tap=site))(c, w), None))
    x, _ = jax.jit(lambda x, w: jax.lax.scan(layer, x, w))(x, params["blocks"])
    return head(params["final"], x, site)


def looped(params: Any, x: Any, tap: Callable[..., Any] = site) -> Any:
    """The same with a Python loop over layers."""
    x = tap(x, "embed", None, STREAM)
    for i in range(LAYERS):
        x = block(x, params["blocks"][i], i, tap)
    return head(params["final"], x, tap)


def by_hand(edits: dict[str, Callable[[Any, int | None], Any]]) -> Callable[..., Any]:
    """`looped` with `edits[name](value, layer)` written into it."""

    def tap(value: Any, name: str, layer: int | None, axes: Any) -> Any:
        return edits[name](value, layer) if name in edits else value

    return lambda params, x: looped(params, x, tap)


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            np.asarray(x, np.float32), np.asarray(y, np.float32), rtol=rtol, atol=atol
        ),
        a,
        b,
    )
