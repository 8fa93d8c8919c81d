"""Why a head looks where it looks: the score of a query and a key as a sum over pairs of what made them.

    score = scale q . k = sum over s, t of scale q_s . k_t,    q = sum of q_s, k = sum of k_t

Query and key are linear in the residual stream where norm denominators are held, and this is, in a replacement model, a
sum of what features, embeddings, errors and the constants put there; so that the score is a form in pairs of them.
Kamath et al. 2025, Tracing attention computation through feature interactions, transformer-circuits.pub.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from interp_jax.core import capture, intervene, sites
from interp_jax.graphs import rows
from interp_jax.graphs.effects import constants
from interp_jax.graphs.format import node_id
from interp_jax.interventions import at, scale

SMALL = 1e-3  # of the query, so that a soft cap does nothing
SCORES = "blocks.attn.attn_scores"


@dataclass(frozen=True)
class Looking:
    """The score of one query and one key of a head, and what made it.

    Attributes:
      layer, head, query, key: which it is; the head is counted as queries are.
      score: before a soft cap and the softmax.
      ids: names of what query and key are made of, as a graph has them; the last is that of the constants.
      q, k: float32 `[source d_head]`, what each put into the query and the key; `q` holds the scale of scores.
    """

    layer: int
    head: int
    query: int
    key: int
    score: float
    ids: tuple[str, ...]
    q: np.ndarray
    k: np.ndarray

    def pairs(self) -> np.ndarray:
        """The part of each pair, float32 `[query's source, key's source]`; they add up to the score."""
        return self.q @ self.k.T

    def by_query(self) -> np.ndarray:
        """The part of each source of the query, with the whole key, float32 `[source]`."""
        return self.q @ self.k.sum(0)

    def by_key(self) -> np.ndarray:
        """The part of each source of the key, with the whole query, float32 `[source]`."""
        return self.k @ self.q.sum(0)

    def top(self, n: int = 10, *, fraction: float = 0.6) -> list[tuple[str, str, float]]:
        """The largest pairs, as names and part: at most `n`, and no more than have this share of all parts' sizes."""
        return [(self.ids[i], self.ids[j], part) for (i, j), part in _largest(self.pairs(), n, fraction)]

    def results(self, n: int = 10, *, fraction: float = 0.6) -> dict[str, list[list[Any]]]:
        """What the graph format has for it, `qk_tracing_results`: pairs, and either side alone."""
        sides = {"top_q_marginal_contributors": self.by_query(), "top_k_marginal_contributors": self.by_key()}
        alone = {
            name: [[self.ids[i], part] for (i,), part in _largest(parts, n, fraction)] for name, parts in sides.items()
        }
        return {"pair_wise_contributors": [list(one) for one in self.top(n, fraction=fraction)], **alone}


def _largest(parts: np.ndarray, n: int, fraction: float) -> list[tuple[tuple[int, ...], float]]:
    sizes = np.abs(parts).ravel()
    order = np.argsort(-sizes)[:n]
    reached = sizes[order].cumsum() >= fraction * sizes.sum()
    kept = order[: int(reached.argmax()) + 1] if reached.any() else order
    places = zip(*np.unravel_index(kept, parts.shape), strict=True)
    return [(tuple(map(int, place)), float(parts[place])) for place in places]


def trace_attention(
    f: Callable[..., Any],
    model: Any,
    transcoders: Any,
    tokens: Any,
    layer: int,
    head: int,
    query: int,
    key: int,
    *,
    n_first: int = 1,
) -> Looking:
    """Which pairs of features make a head look from one position at another.

    Args:
      f, model, transcoders, tokens, n_first: as in `attribution_graph`.
      layer, head: the head, counted as queries are.
      query, key: positions from 0; the key is not after the query.

    Returns:
      The `Looking`, whose pairs add up to the score.

    Raises:
      TypeError, ValueError: as `attribution_graph`; a layer, head or position that is not there, a key after the query.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import dictionaries, graphs, models
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> transcoders = [dictionaries.Transcoder.create(key, model.config.d_model, 32) for key in keys]
      >>> tokens = jnp.array(tokenizer.encode("Mary gave a ring to"))
      >>> found = graphs.trace_attention(models.forward, model, transcoders, tokens, 2, 1, query=5, key=1)
      >>> bool(abs(found.pairs().sum() - found.score) < 1e-3)
      True
    """
    tokens = rows.one_prompt(tokens)
    known = sites(f, model, tokens)
    run = rows.held(f, transcoders, model, tokens, n_first)
    if missing := [name for name in ("blocks.attn.q", "blocks.attn.k", SCORES) if name not in known]:
        raise ValueError(f"trace_attention: the model has no site {missing[0]!r}; name it")
    names = [f"blocks.attn.rot_{x}" if f"blocks.attn.rot_{x}" in known else f"blocks.attn.{x}" for x in "qk"]
    n_heads, n_keys = (known[name].size("head") for name in names)
    for what, value, n in (("layer", layer, len(run.layers)), ("head", head, n_heads), ("query", query, len(tokens))):
        if not 0 <= value < n:
            raise ValueError(f"trace_attention: {what}={value}: there are {n}")
    if not 0 <= key <= query:
        raise ValueError(f"trace_attention: key={key}: query {query} looks at positions 0 to {query}")
    place = run.layers.index(layer)
    there = constants(f, run.sites, tuple(names))(run.sources, model, tokens)
    small = intervene(f, {names[0]: at(scale(SMALL), layer=layer)})
    acts = capture(f, names, output=False)(model, tokens)
    scores = capture(small, SCORES, output=False)(model, tokens)[SCORES][place, head, query, : query + 1] / SMALL
    own = (head, head * n_keys // n_heads)
    q, keys = acts[names[0]][place, query, own[0]], acts[names[1]][place, : query + 1, own[1]]
    products = keys @ q
    factor = float((scores * products).sum() / (products**2).sum())
    parts = []
    for name, number, position in zip(names, own, (query, key), strict=True):
        d_head = there[name].shape[-1]
        vectors = jnp.zeros((d_head, *there[name].shape[2:])).at[jnp.arange(d_head), number, jnp.arange(d_head)].set(1)
        where = np.full(d_head, place), rows.at_positions(run, np.full(d_head, position))
        wide = rows.with_constant(run, name, there[name])
        block = rows.rows_of(wide, name, *where, vectors, jnp.zeros(d_head), d_head)
        parts.append(block.effects.toarray().T)
    used = np.flatnonzero(np.abs(parts[0]).sum(1) + np.abs(parts[1]).sum(1))
    ids = _ids(run, np.asarray(tokens))
    used = np.union1d(used, [len(ids) - 1])
    picked = tuple(ids[i] for i in used)
    return Looking(layer, head, query, key, float(scores[key]), picked, factor * parts[0][used], parts[1][used])


def _ids(run: rows.Held, tokens: np.ndarray) -> list[str]:
    """The names of all sources, in the order of a row."""
    active, layers = run.active, run.layers
    each = zip(active.place, active.index, active.position, strict=True)
    features = [node_id("feature", layers[layer], int(index), int(p)) for layer, index, p in each]
    errors = [node_id("error", layer, -1, p) for layer in layers for p in range(len(tokens))]
    embeddings = [node_id("embedding", -1, int(token), p) for p, token in enumerate(tokens)]
    return [*features, *errors, *embeddings, node_id("constant", -1, -1, -1)]
