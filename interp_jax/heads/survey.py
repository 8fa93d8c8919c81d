"""What every head does over a corpus: six scores, and examples of where it looks, of which no pattern is ever stored.

With A[q, k] the attention of a query to a key, the first token left out of both, and m[q] = sum_k A[q, k]:

    self, previous, induction:  mean of A at the query itself, the token before, places after earlier equal tokens
    entropy:                    sum_q m[q] H(A[q] / m[q]) / sum_q m[q], in nats
    distance, its variance:     mean and variance of |q - k| under A / sum A

Luger et al. 2026, "HeadVis", https://transformer-circuits.pub/2026/headvis. An example is a token of a text, and its
peak the most that it gives to one key; there are the texts with the highest peaks, and some by chance from each fifth
of the peaks. The first token is where heads look that have nothing to do, so that it would hide what they do.
Caveat: a corpus has few induction places beside texts that are made for it (`induction_scores`), and a head that gives
all to the first token has an entropy and a distance of the little that is left: see how much, `share`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jax.scipy.special import xlogy
import numpy as np

from interp_jax.core import capture, transform
from interp_jax.heads.scores import mass, number_of_queries, places
from interp_jax.runs import check_counts

PATTERN = "blocks.attn.pattern"
KINDS = ("self", "previous", "induction")
N_INTERVALS = 5
LEAST = 0.005  # attention below this is not kept


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["peak", "sequence", "position", "keys", "weights"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Examples:
    """Tokens of texts, and where heads look from there.

    Attributes:
      peak: float32 `[layer head ... example]`, the most that goes to one key, the first token left out.
      sequence, position: int32 `[layer head ... example]`, which token; -1 where there is no further example.
      keys: int32 `[layer head ... example key]`, the positions that most is given to, the most first.
      weights: float32 `[layer head ... example key]`, what is given to them; 0 below 0.005.
    """

    peak: Any
    sequence: Any
    position: Any
    keys: Any
    weights: Any


@dataclass(frozen=True)
class Survey:
    """What `survey` finds.

    Attributes:
      scores: name -> float64 `[layer head]`: self, previous, induction, entropy, distance, distance_variance; nan where
        no query has such a place, or nothing is looked at but the first token.
      share: float64 `[layer head]`, how much of all attention does not go to the first token.
      top: `Examples` `[layer head n_top]`, the highest peaks, each of another text.
      sampled: `Examples` `[layer head 5 n_sampled]`, by chance from each fifth of the peaks, the lowest first.
      n_sequences, n_queries: how many texts and tokens were read.
    """

    scores: dict[str, np.ndarray]
    share: np.ndarray
    top: Examples
    sampled: Examples
    n_sequences: int
    n_queries: int

    def first(self, name: str) -> tuple[int, int]:
        """The layer and number of the head that comes first by a score."""
        scores = self.scores[name]
        layer, head = np.unravel_index(np.nanargmax(scores), scores.shape)
        return int(layer), int(head)

    def places(self, layer: int, head: int) -> np.ndarray:
        """The tokens that are examples of a head, once each: int `[example 2]`, sequences and positions."""
        pairs = [
            np.stack([np.ravel(examples.sequence[layer, head]), np.ravel(examples.position[layer, head])], -1)
            for examples in (self.top, self.sampled)
        ]
        found = np.unique(np.concatenate(pairs), axis=0)
        return found[found[:, 0] >= 0]


def survey(
    f: Callable[..., Any], *, n_top: int = 10, n_sampled: int = 3, n_keys: int = 8, seed: int = 0
) -> Callable[..., Survey]:
    """Reads a corpus once and gathers the six scores of every head, and examples of where it looks.

    Args:
      f: `(model, tokens)` with the site `blocks.attn.pattern`; where there is a mask it is given as the keyword
        `attention_mask`, as `models.forward` takes it.
      n_top: examples with the highest peaks.
      n_sampled: examples from each fifth of the peaks.
      n_keys: keys that are kept of an example.
      seed: of what is drawn by chance.

    Returns:
      `g(model, batches) -> Survey`, where batches are int tokens `[batch position]`, or pairs of them and a mask, False
      at padding. What is kept is as large for a long corpus as for a short one. Each shape is compiled once.

    Raises:
      ValueError: a number below 1, no batch, a mask of another shape than its tokens, a model without the site.

    Example:
      >>> import jax
      >>> from interp_jax import heads, models
      >>> model, _ = models.load("microworld")
      >>> texts = jax.random.randint(jax.random.key(0), (2, 8, 12), 3, 641)
      >>> found = heads.survey(models.forward)(model, texts)
      >>> sorted(found.scores), found.scores["self"].shape, found.top.keys.shape
      (['distance', 'distance_variance', 'entropy', 'induction', 'previous', 'self'], (4, 4), (4, 4, 10, 8))
    """
    check_counts(n_top=n_top, n_sampled=n_sampled, n_keys=n_keys)
    read = transform(_read, (n_keys,), f)

    def gather(model: Any, batches: Iterable[Any]) -> Survey:
        totals: dict[str, np.ndarray] = {}
        kept: list[Any] = []
        n_sequences = 0
        for number, batch in enumerate(batches):
            tokens, mask = batch if isinstance(batch, tuple) else (batch, None)
            tokens = jnp.asarray(tokens)
            real = jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask, bool)
            if real.shape != tokens.shape:
                raise ValueError(
                    f"survey: tokens of shape {list(tokens.shape)} and a mask of {list(real.shape)}; they must be one"
                )
            told = {} if mask is None else {"attention_mask": real}
            chance = jax.random.fold_in(jax.random.key(seed), number)
            sums, found = read(model, tokens, real, jnp.int32(n_sequences), chance, **told)
            for name, value in sums.items():
                totals[name] = totals.get(name, 0) + np.asarray(value, np.float64)
            parts = zip(found, kept, strict=True) if kept else zip(found, strict=True)
            kept = [_best(n, *some) for n, some in zip((n_top, n_sampled), parts, strict=True)]
            n_sequences += len(tokens)
        if not n_sequences:
            raise ValueError("survey: there is no batch; give tokens [batch position]")
        top, sampled = (jax.tree.map(np.asarray, examples) for _, examples in kept)
        return Survey(*_scores(totals), top, sampled, n_sequences, int(totals["queries"]))

    return gather


def _read(
    options: tuple[int], f: Any, model: Any, tokens: Array, real: Array, first: Array, chance: Array, **told: Any
) -> Any:
    """Sums over one batch, and its candidates for examples, `(priority, Examples)` of both sorts."""
    (n_keys,) = options
    counted = real & (jnp.cumsum(real, axis=1, dtype=jnp.int32) > 1)
    there = {kind: places(kind, tokens, counted) for kind in KINDS}
    luck = jax.random.uniform(chance, tokens.shape)
    away = jnp.abs(jnp.arange(tokens.shape[1])[:, None] - jnp.arange(tokens.shape[1])).astype(jnp.float32)

    def of_layer(pattern: Array) -> Any:
        inside = counted[:, None, :, None] & counted[:, None, None, :]
        seen = jnp.where(inside, pattern.astype(jnp.float32), 0)  # [batch head query key]
        given, each = seen.sum(-1), (0, 2, 3)
        sums = {kind: mass(seen, there[kind]) for kind in KINDS} | {
            "mass": given.sum((0, 2)),
            "entropy": xlogy(given, given).sum((0, 2)) - xlogy(seen, seen).sum(each),
            "distance": (seen * away).sum(each),
            "square": (seen * away**2).sum(each),
        }
        return sums, _candidates(jnp.swapaxes(seen, 0, 1), luck, first, n_keys)

    sums, found = capture(f, {PATTERN: of_layer}, output=False)(model, tokens, **told)[PATTERN]
    queries = {f"queries of {kind}": number_of_queries(there[kind]) for kind in KINDS}
    return sums | queries | {"queries": counted.sum(dtype=jnp.int32)}, found


def _candidates(seen: Array, luck: Array, first: Array, n_keys: int) -> tuple[Any, Any]:
    """Of each text `[head batch query key]` the token with the highest peak, and one by chance of each fifth."""
    peak = seen.max(-1)
    fifth = jnp.clip(jnp.ceil(N_INTERVALS * peak).astype(jnp.int32) - 1, 0, N_INTERVALS - 1)
    among = fifth[:, None] == jnp.arange(N_INTERVALS)[:, None, None]  # [head 5 batch query]

    def chosen(priority: Array, seen: Array, peak: Array) -> tuple[Array, Examples]:
        """The best by priority `[... batch query]`, of which those below `LEAST` have none."""
        priority = jnp.where(peak > LEAST, priority, -jnp.inf)
        query = priority.argmax(-1).astype(jnp.int32)
        row = jnp.take_along_axis(seen, query[..., None, None], axis=-2)[..., 0, :]
        weights, keys = lax.top_k(row, min(n_keys, row.shape[-1]))
        filled = [(0, 0)] * (row.ndim - 1) + [(0, n_keys - weights.shape[-1])]
        weights, keys = jnp.pad(jnp.where(weights > LEAST, weights, 0), filled), jnp.pad(keys, filled)
        sequence = jnp.broadcast_to(first + jnp.arange(query.shape[-1], dtype=jnp.int32), query.shape)
        return priority.max(-1), Examples(row.max(-1), sequence, query, keys, weights)

    return chosen(peak, seen, peak), chosen(jnp.where(among, luck, -jnp.inf), seen[:, None], peak[:, None])


@partial(jax.jit, static_argnums=0)
def _best(n: int, *parts: Any) -> Any:
    """The `n` of the highest priority among several `(priority, Examples)`; where there are fewer, some without one."""
    axis = parts[0][0].ndim - 1

    def joined(none: Any, *xs: Array) -> Array:
        absent = jnp.full((*xs[0].shape[:axis], n, *xs[0].shape[axis + 1 :]), none, xs[0].dtype)
        return jnp.concatenate([*xs, absent], axis)

    priority = joined(-jnp.inf, *(priority for priority, _ in parts))
    priority, order = lax.top_k(priority, n)

    def picked(none: Any, *xs: Array) -> Array:
        x = joined(none, *xs)
        there = order.reshape(*order.shape, *(1,) * (x.ndim - order.ndim))
        return jnp.where(jnp.isfinite(priority).reshape(there.shape), jnp.take_along_axis(x, there, axis), none)

    none = Examples(0.0, -1, -1, 0, 0.0)
    return priority, jax.tree.map(picked, none, *(examples for _, examples in parts))


def _scores(totals: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = {kind: totals[kind] / totals[f"queries of {kind}"] for kind in KINDS}
        entropy, distance, square = (totals[name] / totals["mass"] for name in ("entropy", "distance", "square"))
        scores |= {"entropy": entropy, "distance": distance, "distance_variance": np.maximum(square - distance**2, 0)}
        return scores, totals["mass"] / totals["queries"]
