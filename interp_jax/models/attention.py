"""Attention: which keys a query may see, and the mixture of values, all at once or a block of queries at a time.

    z = softmax(mask(cap(q k^T scale))) v

The scores of a long text do not fit in memory, nor in a cache: there each block of queries meets one block of keys
after another, those that it may see, and keeps of each the sums alone (Rabe and Staats 2021, arXiv:2112.05682). A
derivative computes the scores again.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from interp_jax.models import ops

Array = jax.Array
LONG = 512  # from so many queries on, a block at a time
QUERIES, KEYS = 256, 512  # in a block: its scores stay in a processor's cache


@partial(
    jax.tree_util.register_dataclass, data_fields=["real", "start", "window"], meta_fields=["causal", "first", "span"]
)
@dataclass(frozen=True)
class Sight:
    """Which keys a query may see. Keys and queries go by their places; those of queries begin at `start`.

    Attributes:
      real: bool `[*batch key]`, false at padding; None: every key is real.
      start: int32 `[]`, the place of the first query among the keys; None: `first`.
      window: int32 `[]`, how many keys a query sees, itself included; None: `span`.
      causal: whether a query sees only keys up to its own place.
      first: the place of the first query, where it is known.
      span: the window, where it is known; 0: no window.
    """

    real: Array | None = None
    start: Array | None = None
    window: Array | None = None
    causal: bool = True
    first: int = 0
    span: int = 0

    @property
    def _begin(self) -> Array | int:
        return self.first if self.start is None else self.start

    @property
    def _reach(self) -> Array | int | None:
        return (self.span or None) if self.window is None else self.window

    def mask(self, queries: Array, keys: Array) -> Array:
        """Whether each query sees each key, bool `[*batch 1 query key]`, given their places (queries without start)."""
        queries = queries[:, None] + self._begin
        seen = queries >= keys if self.causal else jnp.ones((len(queries), len(keys)), bool)
        if self._reach is not None:
            seen = seen & (queries - keys < self._reach)
        seen = seen[None]
        return seen if self.real is None else seen & self.real[..., None, None, keys]

    def meets(self, queries: Array, keys: Array) -> Array:
        """Whether any of some queries may see any of some keys, bool `[]`, given their places in order."""
        met = queries[-1] + self._begin >= keys[0] if self.causal else jnp.ones((), bool)
        if self._reach is not None:
            met = met & (queries[0] + self._begin - keys[-1] < self._reach)
        return met

    def near(self, span: int) -> "Sight":
        """What a query of a local layer may see: the last `span` keys."""
        return dataclasses.replace(self, span=span)

    def choose(self, is_near: Array, span: int) -> "Sight":
        """Chooses `near(span)` where `is_near`, bool `[]`, is true, since a scan over layers has both kinds."""
        return dataclasses.replace(self, window=jnp.where(is_near, span, jnp.iinfo(jnp.int32).max))


def attend(q: Array, k: Array, v: Array, sight: Sight, scale: float, cap: float) -> Array:
    """Attention without its whole pattern where the text is long.

    Args:
      q: queries, `[*batch query head d_head]`.
      k, v: keys and values, `[*batch key kv_head d_head]`.
      sight: which keys each query may see.
      scale, cap: of the scores; 0 is no cap.

    Returns:
      `[*batch query head d_head]`.
    """
    if q.shape[-3] < LONG:
        return attend_at_once(q, k, v, sight, scale, cap)
    return _attend_by_blocks(q, k, v, sight, scale, cap)


def attend_at_once(
    q: Array, k: Array, v: Array, sight: Sight, scale: float, cap: float, site: Any = lambda x, name: x
) -> Array:
    """Attention with its whole pattern; `site(x, name)` declares scores and pattern, `[*batch head query key]`."""
    n_query, n_key = q.shape[-3], k.shape[-3]
    mask = sight.mask(jnp.arange(n_query, dtype=jnp.int32), jnp.arange(n_key, dtype=jnp.int32))
    scores = site(ops.scores(q, k, mask, scale, cap), "attn_scores")
    pattern = site(ops.softmax(scores), "pattern")
    return ops.mix(pattern, v)


@partial(jax.jit, static_argnums=(4, 5))
def _attend_by_blocks(q: Array, k: Array, v: Array, sight: Sight, scale: float, cap: float) -> Array:
    n_query, n_key = q.shape[-3], k.shape[-3]
    queries, keys, values = _blocks(q, QUERIES), _blocks(k, KEYS), _blocks(v, KEYS)
    each = jnp.arange(len(keys), dtype=jnp.int32)

    def places(number: Array | int, size: int) -> Array:
        return number * size + jnp.arange(size, dtype=jnp.int32)

    @jax.checkpoint
    def met(number: Array, q: Array, j: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
        """What a block of queries gets from a block of keys: the largest score, the sum of exponentials, the values."""
        at, of = places(number, QUERIES), places(j, KEYS)
        mask = sight.mask(at, of) & (of < n_key) if n_key % KEYS else sight.mask(at, of)
        top, weights, total = ops.exponentials(ops.scores(q, k, mask, scale, cap))
        return _by_query(top), _by_query(total), ops.mix(weights.astype(q.dtype), v).astype(jnp.float32)

    @jax.checkpoint
    def block(number: Array, q: Array) -> Array:
        def more(sums: Any, scanned: tuple[Array, Array, Array]) -> tuple[Any, None]:
            seen = sight.meets(places(number, QUERIES), places(scanned[0], KEYS))
            return lax.cond(seen, lambda sums: _together(sums, met(number, q, *scanned)), lambda sums: sums, sums), None

        (_, total, z), _ = lax.scan(more, met(number, q, each[0], keys[0], values[0]), (each[1:], keys[1:], values[1:]))
        return ops.over(z, total).astype(q.dtype)

    _, z = lax.scan(lambda _, x: (None, block(*x)), None, (jnp.arange(len(queries), dtype=jnp.int32), queries))
    z = jnp.moveaxis(z, 0, -4)
    return z.reshape(*z.shape[:-4], -1, *z.shape[-2:])[..., :n_query, :, :]


def _blocks(x: Array, size: int) -> Array:
    """`[*batch place head d_head]` -> `[block *batch size head d_head]`, zeros after the last place."""
    n = -(-x.shape[-3] // size)
    x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 3), (0, n * size - x.shape[-3]), (0, 0), (0, 0)])
    return jnp.moveaxis(x.reshape(*x.shape[:-3], n, size, *x.shape[-2:]), -4, 0)


def _by_query(x: Array) -> Array:
    """`[*batch head query 1]` -> `[*batch query head 1]`."""
    return jnp.swapaxes(x, -2, -3)


def _together(a: tuple[Array, Array, Array], b: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Exponentials and values of two blocks of keys, each relative to its own largest score, relative to the larger."""
    top = jnp.maximum(a[0], b[0])
    of_a, of_b = jnp.exp(a[0] - top), jnp.exp(b[0] - top)
    return top, a[1] * of_a + b[1] * of_b, a[2] * of_a + b[2] * of_b
