"""Attribution graphs: which features, embeddings and errors make a model say what it says, and through which others.

Logits come first, then features, ever those that bear most on the logits by what is known so far; of each the effects
of all that stands before it are one row of the graph (see `effects`).
Ameisen et al. 2025, Circuit tracing, https://transformer-circuits.pub/2025/attribution-graphs/methods.html; order and
defaults: Hanna et al. 2025, https://github.com/safety-research/circuit-tracer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from interp_jax.graphs import rows
from interp_jax.graphs.effects import bucket
from interp_jax.graphs.format import ERRORS, FEATURES, KINDS
from interp_jax.graphs.graph import Graph
from interp_jax.graphs.targets import Target, chosen
from interp_jax.progress import Progress
from interp_jax.runs import check_counts

BATCHES = 4  # of features, from one ranking of those that are left to the next
AT_ONCE, MEMORY = 256, 2**28  # targets that go back together at most, and bytes of their slopes and rows


def attribution_graph(
    f: Callable[..., Any],
    model: Any,
    transcoders: Any,
    tokens: Any,
    *,
    lorsas: Any = None,
    targets: Any = None,
    position: int = -1,
    tokenizer: Any = None,
    n_features: int | None = 7500,
    n_first: int = 1,
    n_edges: int | None = 100_000,
    chunk: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Graph:
    """The graph of direct effects, through features, on what a model says at one position of a prompt.

    Args:
      f: a function `(model, tokens)` with sites, such as `models.forward`.
      model: the model; compute in float32, since graphs of bfloat16 differ between backends.
      transcoders: as `replace_mlps` takes them; all read one site and write one.
      tokens: int `[position]` or `[1 position]`, without padding.
      lorsas: as `replace_attention` takes them: sparse heads in the place of attention, whose own patterns are held in
        place of the model's; None: attention stays, its patterns held.
      targets: what is explained. None: the likeliest tokens, at most 10 and up to 95 % of the probability; a number:
        so many at most. Else a sequence of tokens by number or, with a tokenizer, as text (each weighs its
        probability), `graphs.difference(a, b)`, `graphs.feature(layer, position, index)`, and directions `(name,
        weight, [d_model])` in what the unembedding reads. A logit is that without the mean of all, and a soft cap is
        left out.
      position: where it is explained, from 0 or, negative, from the end.
      tokenizer: names tokens, and reads those that are given as text.
      n_features: how many features become nodes, those with most influence; None: all that are active.
      n_first: positions from the first on whose features and errors are no nodes and count as constant, since models
        keep other things there: 1 for a beginning-of-sequence token, as the peers have it, 4 for Gemma 3's chat.
      n_edges: how many edges into a node are kept, the largest; only long prompts have more, and would take more memory
        than there is. What the others bring is in `Graph.rest`. None: all.
      chunk: targets that go back together; by default as many as 256 MB hold, at 6,000 tokens one.
      mesh: devices over which the targets of a chunk are spread.

    Returns:
      The `Graph`: features by layer, position and number, errors, embeddings, the node of constants, targets; sparse
      heads and their errors. What enters a feature, a head or a target adds up, with `Graph.rest`, to its
      pre-activation or its value.

    Raises:
      TypeError: `transcoders` or `targets` of no known form.
      ValueError: tokens that are not one prompt, counts below 1, transcoders that do not fit the model, a model that
        does not say what is held, targets that are not there, no active feature.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import dictionaries, graphs, models
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> transcoders = [dictionaries.Transcoder.create(key, model.config.d_model, 32) for key in keys]
      >>> tokens = jnp.array(tokenizer.encode("Mary gave a ring to"))
      >>> graph = graphs.attribution_graph(models.forward, model, transcoders, tokens, tokenizer=tokenizer)
      >>> graph.prune().scores().completeness > 0
      True
    """
    tokens = rows.one_prompt(tokens)
    check_counts(n_features=n_features, n_edges=n_edges, chunk=chunk)
    if not -len(tokens) <= position < len(tokens):
        raise ValueError(f"position={position}: the prompt has {len(tokens)} tokens")
    at = position % len(tokens)
    run = rows.held(f, transcoders, model, tokens, n_first, at, lorsas)
    active = run.active
    goals = chosen(targets, run.logits, tokenizer, run.end.shape[-1])
    own = _own(goals, run)
    n = len(active) if n_features is None else max(min(n_features, len(active)), len(own))
    of_target = run.sources.errors.nbytes + run.blocks.activation.nbytes  # its slopes, and its row
    size = chunk or max(1, min(AT_ONCE, bucket(n), MEMORY // of_target))
    options = {"mesh": mesh, "n_edges": n_edges}
    ends = [goal for goal in goals if goal.feature is None]
    found = [rows.of_ends(run, at, *_directions(run, ends, at), size, **options)] if ends else []
    start, done = np.zeros(len(active)), np.zeros(0, int)
    np.add.at(start, own, [goal.weight for goal in goals if goal.feature is not None])
    with Progress("features of the graph", n) as progress:
        while len(done) < n:
            progress.update(len(done))
            n_next = min(size * BATCHES, n - len(done))
            left = np.setdiff1d(np.arange(len(active)), done)
            if n < len(active):
                influence = _influence(found, [goal.weight for goal in ends], start, done)
                left = left[np.argsort(-influence[left], kind="stable")]
                # Heads are one step of a way each: what is further from the end has no influence that is known yet.
                n_next = min(n_next, int((influence[left] > 0).sum()) or n_next)
            some = np.sort(left[:n_next])  # by layer, so that what goes back together begins at about the same one
            found.append(rows.of_features(run, some, size, **options))
            done = np.concatenate([done, some])
    return _assembled(run, goals, own, done, found, tokens, tokenizer, at)


def _own(goals: Sequence[Target], run: rows.Held) -> np.ndarray:
    """The active features that are explained, int `[goal]`."""
    active, found = run.active, []
    layers, are_heads = run.where(active.place)
    for goal in goals:
        if goal.feature is not None:
            layer, position, index = goal.feature
            here = (layers == layer) & (active.position == position) & (active.index == index) & ~are_heads
            if not here.any():
                raise ValueError(f"targets: feature {index} of layer {layer} is not active at position {position}")
            found.append(int(np.flatnonzero(here)[0]))
    return np.array(found, int)


def _directions(run: rows.Held, ends: Sequence[Target], at: int) -> tuple[jax.Array, jax.Array]:
    """What each logit, difference or direction is of what the unembedding reads, `[goal d_model]`, and its bias."""
    combinations = np.zeros((len(ends), run.logits.shape[-1]), np.float32)
    for row, goal in zip(combinations, ends, strict=True):
        for token, factor in goal.logits:
            row[token] += factor
        row -= row.mean()
    vectors, biases = rows.directions(run, at, combinations)
    given = [np.zeros(vectors.shape[1]) if goal.direction is None else goal.direction for goal in ends]
    return vectors + jnp.asarray(np.stack(given), jnp.float32), biases


def _influence(
    found: Sequence[rows.Block], weights: Sequence[float], start: np.ndarray, done: np.ndarray
) -> np.ndarray:
    """What is known so far of each feature's influence, `[feature]`; what is explained itself comes first.

    Args:
      found: the rows of ends, if there are any, and of the features that are done.
      weights: of the ends.
      start: of features that are explained, `[feature]`, 0 elsewhere.
      done: the features that have rows, in their order.
    """
    first = np.where(start > 0, np.inf, 0.0)
    if not found:
        return first
    A = abs(sparse.csr_array(sparse.vstack([block.effects[:, :-1] for block in found])))
    total = np.asarray(A.sum(1)).ravel()
    shares = sparse.csr_array(sparse.diags_array(1 / np.where(total > 0, total, 1)) @ A)
    back = sparse.csr_array(shares[:, : len(start)].T)
    n_ends, current, all_of_it = len(weights), start.astype(np.float64), np.zeros(len(start))
    flowing = np.concatenate([np.asarray(weights, float), current[done]])
    while True:
        current = np.asarray(back @ flowing)
        all_of_it += current
        if current.max(initial=0.0) <= 1e-6 * max(all_of_it.max(initial=0.0), 1e-300):
            break
        flowing = np.concatenate([np.zeros(n_ends), current[done]])
    first[done] = 0
    return first + all_of_it


def _assembled(
    run: rows.Held,
    goals: Sequence[Target],
    own: np.ndarray,
    done: np.ndarray,
    found: Sequence[rows.Block],
    tokens: jax.Array,
    tokenizer: Any,
    at: int,
) -> Graph:
    """The graph of the features that have rows, in their order, of all errors, embeddings, the constants, and ends."""
    active, (n_places, n_positions) = run.active, run.shape
    order = np.sort(done)
    ends = [goal for goal in goals if goal.feature is None]
    effects = sparse.csr_array(sparse.vstack([block.effects for block in found]))
    rest = np.concatenate([block.rest for block in found])
    n_fixed = n_places * n_positions + n_positions + 1
    n_sources = len(order) + n_fixed
    by_row = np.concatenate([len(ends) + np.argsort(done), np.arange(len(ends))])  # of features, then of ends
    columns = np.concatenate([order, len(active) + np.arange(n_fixed)])
    kept = sparse.csr_array(effects[by_row][:, columns])
    rest = rest[by_row] + np.asarray(effects[by_row].sum(1)).ravel() - np.asarray(kept.sum(1)).ravel()
    n = n_sources + len(ends)
    of_features, of_ends = kept[: len(order)], kept[len(order) :]
    middle = sparse.csr_array((n_fixed, n_sources), dtype=np.float32)
    edges = sparse.hstack(
        [sparse.vstack([of_features, middle, of_ends]), sparse.csr_array((n, len(ends)))], format="csr"
    )

    place, position = (x.ravel() for x in np.indices((n_places, n_positions)))
    layer, are_heads = run.where(np.concatenate([active.place[order], place]))
    where, none = np.arange(n_positions), np.full(1, -1)
    logits = [goal.logits[0][0] if len(goal.logits) == 1 else -1 for goal in ends]
    kinds = [(FEATURES if i < len(order) else ERRORS)[is_head] for i, is_head in enumerate(are_heads.astype(int))]
    kinds += ["embedding"] * n_positions + ["constant"]
    kinds += ["logit" if token >= 0 else "direction" for token in logits]
    ids = np.asarray(tokens)
    unplaced = np.full(n_positions, -1)
    words = [str(i) for i in ids] if tokenizer is None else tokenizer.to_str_tokens(ids)
    value = np.concatenate(
        [active.value[order], np.zeros(n_fixed), np.asarray(of_ends.sum(1)).ravel() + rest[len(order) :]]
    )
    weight = np.zeros(n, np.float32)
    weight[n_sources:] = [goal.weight for goal in ends]
    np.add.at(weight, np.searchsorted(order, own), [goal.weight for goal in goals if goal.feature is not None])
    layers = [layer, unplaced, none, np.full(len(ends), -1)]
    positions = [active.position[order], position, where, none, np.full(len(ends), at)]
    indices = [active.index[order], np.full(len(place), -1), ids, none, np.array(logits, int)]
    int32 = lambda parts: np.concatenate(parts).astype(np.int32)  # noqa: E731
    return Graph(
        kind=np.array([KINDS.index(kind) for kind in kinds], np.int8),
        layer=int32(layers),
        position=int32(positions),
        index=int32(indices),
        activation=value.astype(np.float32),
        weight=weight,
        edges=sparse.csr_array(edges, dtype=np.float32),
        rest=np.concatenate([rest[: len(order)], np.zeros(n_fixed), rest[len(order) :]]).astype(np.float32),
        tokens=tuple(words),
        n_layers=len(run.layers),
        names={n_sources + i: goal.name for i, goal in enumerate(ends)},
    )
