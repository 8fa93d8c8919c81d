"""Attention: which keys a query may see, and the mixture of values, all at once or a block of queries at a time.

    z = softmax(mask(cap(q k^T scale))) v

The scores of a long text do not fit in memory, nor in a cache: there each block of queries meets the keys before it,
and its scores are forgotten (Rabe and Staats 2021, arXiv:2112.05682). A derivative computes them again.
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
BLOCK = 128  # queries at a time: their scores stay in a processor's cache
SEGMENTS = 8  # in each, all blocks meet as many keys: those up to its end


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

    def mask(self, queries: Array, keys: Array) -> Array:
        """Whether each query sees each key, bool `[*batch 1 query key]`, given their places (queries without start)."""
        queries = queries[:, None] + (self.first if self.start is None else self.start)
        seen = queries >= keys if self.causal else jnp.ones((len(queries), len(keys)), bool)
        if self.window is not None or self.span:
            seen = seen & (queries - keys < (self.span if self.window is None else self.window))
        seen = seen[None]
        return seen if self.real is None else seen & self.real[..., None, None, keys]

    def near(self, span: int) -> "Sight":
        """The same, of a layer that sees the last `span` keys."""
        return dataclasses.replace(self, span=span)

    def choose(self, is_near: Array, span: int) -> "Sight":
        """`near(span)` where `is_near`, bool `[]`, as a scan over layers has it."""
        return dataclasses.replace(self, window=jnp.where(is_near, span, jnp.iinfo(jnp.int32).max))


def attend(q: Array, k: Array, v: Array, sight: Sight, scale: float, cap: float) -> Array:
    """`[*batch query head d_head]`, `[*batch key kv_head d_head]` twice -> `[*batch query head d_head]`."""
    if q.shape[-3] < LONG:
        return attend_at_once(q, k, v, sight, scale, cap)
    return _attend_by_blocks(q, k, v, sight, scale, cap)


def attend_at_once(
    q: Array, k: Array, v: Array, sight: Sight, scale: float, cap: float, site: Any = lambda x, name: x
) -> Array:
    """The same; `site(x, name)` declares scores and pattern, `[*batch head query key]`."""
    n_query, n_key = q.shape[-3], k.shape[-3]
    mask = sight.mask(jnp.arange(n_query, dtype=jnp.int32), jnp.arange(n_key, dtype=jnp.int32))
    scores = site(ops.scores(q, k, mask, scale, cap), "attn_scores")
    pattern = site(ops.softmax(scores), "pattern")
    return ops.mix(pattern, v)


@partial(jax.jit, static_argnums=(4, 5))
def _attend_by_blocks(q: Array, k: Array, v: Array, sight: Sight, scale: float, cap: float) -> Array:
    n_query, n_key = q.shape[-3], k.shape[-3]
    ends_known = sight.causal and sight.start is None
    length = -(-n_query // (SEGMENTS * BLOCK)) * BLOCK if ends_known else -(-n_query // BLOCK) * BLOCK
    parts = []
    for start in range(0, n_query, length):
        stop = min(start + length, n_query)
        last = min(stop + sight.first, n_key) if ends_known else n_key
        first = max(0, start + sight.first - sight.span + 1) if ends_known and sight.span else 0
        here = slice(first, last)
        part = _segment(
            q[..., start:stop, :, :], k[..., here, :, :], v[..., here, :, :], sight, start, first, scale, cap
        )
        parts.append(part)
    return jnp.concatenate(parts, axis=-3)


def _segment(q: Array, k: Array, v: Array, sight: Sight, start: int, first: int, scale: float, cap: float) -> Array:
    """Some of the queries, from `start` on, with all the keys that any of them sees, from `first` on."""
    n_query, n_key = q.shape[-3], k.shape[-3]
    n_blocks = -(-n_query // BLOCK)
    q = jnp.pad(q, [*[(0, 0)] * (q.ndim - 3), (0, n_blocks * BLOCK - n_query), (0, 0), (0, 0)])
    blocks = jnp.moveaxis(q.reshape(*q.shape[:-3], n_blocks, BLOCK, *q.shape[-2:]), -4, 0)
    keys = first + jnp.arange(n_key, dtype=jnp.int32)

    @jax.checkpoint
    def block(places: Array, q: Array) -> Array:
        return ops.mix(ops.softmax(ops.scores(q, k, sight.mask(places, keys), scale, cap)), v)

    def step(_: None, scanned: tuple[Array, Array]) -> tuple[None, Array]:
        number, q = scanned
        return None, block(start + number * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32), q)

    _, z = lax.scan(step, None, (jnp.arange(n_blocks, dtype=jnp.int32), blocks))
    z = jnp.moveaxis(z, 0, -4)
    return z.reshape(*z.shape[:-4], n_blocks * BLOCK, *z.shape[-2:])[..., :n_query, :, :]
