"""Why a head looks where it looks: the score of a query and a key as a sum over pairs of what made them.

    score = scale q . k = sum over s, t of scale q_s . k_t,    q = sum of q_s, k = sum of k_t

Query and key are linear in the residual stream where norm denominators are held, and this is, in a replacement model, a
sum of what features, embeddings, errors and the constants put there; so that the score is a form in pairs of them.
Kamath et al. 2025, Tracing attention computation through feature interactions, transformer-circuits.pub.
Of sparse heads in the place of attention the same is asked, and no pattern of the model's own is held then.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from interp_jax.core import SiteInfo, capture, intervene, sites
from interp_jax.graphs import rows
from interp_jax.graphs.effects import constants
from interp_jax.graphs.format import ERRORS, FEATURES, node_id
from interp_jax.graphs.placing import Placed, placed
from interp_jax.interventions import at, scale

SMALL = 1e-3  # of the query, so that a soft cap does nothing
SCORES = "blocks.attn.attn_scores"


@dataclass(frozen=True)
class Looking:
    """The score of one query and one key of a head, and what made it.

    Attributes:
      layer, head, query, key: which it is; the head is counted as queries are, or is a sparse one.
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
    lorsas: Any = None,
    n_first: int = 1,
) -> Looking:
    """Which pairs of features make a head look from one position at another.

    Args:
      f, model, transcoders, tokens, n_first: as in `attribution_graph`.
      layer, head: the head, counted as queries are; with `lorsas` the number of a sparse head, whose group looks.
      query, key: positions from 0; the key is not after the query.
      lorsas: as in `attribution_graph`.

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
    run = rows.held(f, transcoders, model, tokens, n_first, lorsas=lorsas)
    heads = {} if lorsas is None else {one.layer: one for one in placed(lorsas, known)}
    n_heads = known[_names(known)[0]].size("head") if not heads else next(iter(heads.values())).dictionary.d_sae
    for what, value, n in (("layer", layer, len(run.layers)), ("head", head, n_heads), ("query", query, len(tokens))):
        if not 0 <= value < n:
            raise ValueError(f"trace_attention: {what}={value}: there are {n}")
    if not 0 <= key <= query:
        raise ValueError(f"trace_attention: key={key}: query {query} looks at positions 0 to {query}")
    if heads and layer not in heads:
        raise ValueError(f"trace_attention: layer={layer} has no sparse heads: give a layer of lorsas")
    if heads:
        score, factor, sides = _of_sparse_head(run, heads[layer], head, query, key)
    else:
        score, factor, sides = _of_head(run, known, layer, head, query, key)
    parts, place = [], run.layers.index(layer)
    for (wide, name, vectors, biases), position in zip(sides, (query, key), strict=True):
        n = len(vectors)
        where = np.full(n, place), rows.at_positions(run, np.full(n, position))
        parts.append(rows.rows_of(wide, name, *where, vectors, biases, n).effects.toarray().T)
    used = np.flatnonzero(np.abs(parts[0]).sum(1) + np.abs(parts[1]).sum(1))
    ids = _ids(run, np.asarray(tokens))
    used = np.union1d(used, [len(ids) - 1])
    picked = tuple(ids[i] for i in used)
    return Looking(layer, head, query, key, score, picked, factor * parts[0][used], parts[1][used])


def _names(known: Mapping[str, SiteInfo]) -> list[str]:
    """The sites of queries and keys as they meet."""
    if missing := [name for name in ("blocks.attn.q", "blocks.attn.k", SCORES) if name not in known]:
        raise ValueError(f"trace_attention: the model has no site {missing[0]!r}; name it")
    return [f"blocks.attn.rot_{x}" if f"blocks.attn.rot_{x}" in known else f"blocks.attn.{x}" for x in "qk"]


def _of_head(
    run: rows.Held, known: Mapping[str, SiteInfo], layer: int, head: int, query: int, key: int
) -> tuple[float, float, list[Any]]:
    """The score, its scale, and of query and key the run, the site, vectors `[d_head *site]` and biases `[d_head]`."""
    names, place = _names(known), run.layers.index(layer)
    n_heads, n_keys = (known[name].size("head") for name in names)
    there = constants(run.f, run.sites, tuple(names))(run.sources, *run.args)
    small = intervene(run.f, {names[0]: at(scale(SMALL), layer=layer)})
    acts = capture(run.f, names, output=False)(*run.args)
    scores = capture(small, SCORES, output=False)(*run.args)[SCORES][place, head, query, : query + 1] / SMALL
    own = (head, head * n_keys // n_heads)
    q, keys = acts[names[0]][place, query, own[0]], acts[names[1]][place, : query + 1, own[1]]
    products = keys @ q
    factor = float((scores * products).sum() / (products**2).sum())
    sides = []
    for name, number in zip(names, own, strict=True):
        d_head, each = there[name].shape[-1], jnp.arange(there[name].shape[-1])
        vectors = jnp.zeros((d_head, *there[name].shape[2:])).at[each, number, each].set(1)
        sides.append((rows.with_constant(run, name, there[name]), name, vectors, jnp.zeros(d_head)))
    return float(scores[key]), factor, sides


def _of_sparse_head(run: rows.Held, one: Placed, head: int, query: int, key: int) -> tuple[float, float, list[Any]]:
    """The same of the group of a sparse head, whose queries and keys are affine in what it reads."""
    x = capture(run.f, one.read, output=False)(*run.args)[one.read][run.layers.index(one.layer)].astype(jnp.float32)
    lorsa, group = one.dictionary.cast(jnp.float32), one.dictionary.group[head]
    parts = [_affine(lorsa, x, group, at, number) for number, at in enumerate((query, key))]
    factor = lorsa.d_qk**-0.5
    sides = [(run, one.read, vectors, biases) for _, vectors, biases in parts]
    return factor * float(parts[0][0] @ parts[1][0]), factor, sides


@partial(jax.jit, static_argnums=4)
def _affine(lorsa: Any, x: Array, group: Array, position: Array, side: int) -> tuple[Array, Array, Array]:
    """The query (side 0) or the key of a position, `[d_qk]`, its slopes `[d_qk d_in]` and what it is of nothing."""

    def read(here: Array) -> Array:
        return lorsa.queries_and_keys(x.at[position].set(here))[side][group, position]

    return read(x[position]), jax.jacrev(read)(x[position]), read(jnp.zeros_like(x[position]))


def _ids(run: rows.Held, tokens: np.ndarray) -> list[str]:
    """The names of all sources, in the order of a row."""
    active, (n_places, n_positions), names = run.active, run.shape, []
    features = active.place, active.index, active.position
    place, position = (x.ravel() for x in np.indices((n_places, n_positions)))
    for kinds, (places, index, where) in ((FEATURES, features), (ERRORS, (place, np.full(len(place), -1), position))):
        each = zip(*run.where(places), index, where, strict=True)
        names += [node_id(kinds[int(is_head)], int(layer), int(i), int(p)) for layer, is_head, i, p in each]
    names += [node_id("embedding", -1, int(token), p) for p, token in enumerate(tokens)]
    return [*names, node_id("constant", -1, -1, -1)]
