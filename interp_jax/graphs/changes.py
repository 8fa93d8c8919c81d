"""Changes of features: which ones of a graph are suppressed, injected or swapped, and what the graph says of it.

Ameisen et al. 2025, Circuit tracing; Lindsey et al. 2025, On the biology of a large language model. What changes do in
the model is in `changing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from interp_jax.graphs.format import FEATURES
from interp_jax.graphs.graph import Graph
from interp_jax.graphs.placing import unchecked


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["layer", "position", "index", "value"],
    meta_fields=["is_added"],
)
@dataclass(frozen=True)
class Changes:
    """Which features are changed, and to what. As many others are no other compilation.

    Attributes:
      layer: int32 `[feature]`.
      position: int32 `[feature]`; None: at every position, of what is generated too.
      index: int32 `[feature]`.
      value: float32 `[feature]`, the new activation, or what is added to it.
      is_added: whether it is added.
    """

    layer: Array
    position: Array | None
    index: Array
    value: Array
    is_added: bool = False


def change(graph: Graph, nodes: Sequence[int], factor: float = 0.0, *, everywhere: bool = False) -> Changes:
    """Sets features of a graph to a multiple of their activations: 0 suppresses them, -1 turns them round, 2 doubles.

    Args:
      graph: the graph.
      nodes: numbers of its features.
      factor: the multiple.
      everywhere: whether they are set at all positions, and not at their own alone.

    Raises:
      ValueError: a node that is no feature.
    """
    chosen = _features(graph, nodes)
    return Changes(
        jnp.asarray(graph.layer[chosen]),
        None if everywhere else jnp.asarray(graph.position[chosen]),
        jnp.asarray(graph.index[chosen]),
        jnp.asarray(factor * graph.activation[chosen], jnp.float32),
    )


def swap(graph: Graph, out: Sequence[int], into: Graph, nodes: Sequence[int], *, factor: float = 1.0) -> Changes:
    """Suppresses features of one graph and injects those of another prompt's, at the positions that they have there.

    Args:
      graph, out: the graph of the prompt that is run, and the features to take out.
      into, nodes: the other graph, and the features to put in, at `factor` times their activations.

    Raises:
      ValueError: a node that is no feature.
    """
    off, on = change(graph, out, 0.0), change(into, nodes, factor)
    return jax.tree.map(lambda *both: jnp.concatenate(both), off, on)


def predicted(graph: Graph, changes: Changes, *, through: bool = False) -> np.ndarray:
    """By how much a graph says that changes move each node, float32 `[node]`: pre-activations, and values of targets.

    Args:
      graph: the graph, whose edges are all that is known.
      changes: of its features.
      through: False: by direct effects alone. True: through other features too, as long as each stays active and what
        it does grows with it; the changed ones stay as they are set.

    Raises:
      ValueError: a changed feature that the graph has not, or changes at every position.
    """
    nodes, sizes = _sizes(graph, changes)
    relative = np.zeros(len(graph), np.float32)
    np.add.at(relative, nodes, sizes / graph.activation[nodes])
    moved = np.asarray(graph.edges @ relative)
    follows = graph.where(*FEATURES)
    follows[nodes] = False
    change = moved
    while through and np.abs(change[follows]).max(initial=0) > 0:
        relative = np.where(follows, change / np.where(follows, graph.activation, 1), 0).astype(np.float32)
        change = np.asarray(graph.edges @ relative)
        moved = moved + change
    return moved


def _sizes(graph: Graph, changes: Changes) -> tuple[np.ndarray, np.ndarray]:
    """The changed features as nodes, and by how much their activations change, `[feature]` each."""
    if changes.position is None:
        raise ValueError("the changes are at every position: make them at those of the graph's features")
    columns = (changes.layer, changes.position, changes.index, changes.value)
    layers, position, index, value = (np.asarray(x) for x in columns)
    nodes = []
    for layer, p, i in zip(layers, position, index, strict=True):
        found = graph.find("feature", layer=int(layer), position=int(p), index=int(i))
        if not len(found):
            raise ValueError(f"the graph has no feature {i} of layer {layer} at position {p}")
        nodes.append(int(found[0]))
    return np.array(nodes, int), value - (0 if changes.is_added else graph.activation[nodes])


def random_changes(key: Any, transcoders: Any, graph: Graph, changes: Changes) -> Changes:
    """As many changes of features drawn at random, at the same places, that write as much: a control.

    Args:
      key: a jax.random key.
      transcoders: one for each layer, or a mapping from layers.
      graph: has the changed features.
      changes: what is compared with; at positions of the graph.

    Raises:
      ValueError: as `predicted`.
    """
    found = {one.layer: one.dictionary for one in unchecked(transcoders)}
    (_, size), position = _sizes(graph, changes), changes.position
    index, value = [], []
    keys = jax.random.split(key, len(changes.layer))
    for number, layer in enumerate(np.asarray(changes.layer).tolist()):
        norms = jnp.linalg.norm(found[layer].W_dec, axis=-1)
        drawn = jax.random.randint(keys[number], (), 0, len(norms))
        index.append(drawn)
        value.append(size[number] * norms[changes.index[number]] / jnp.maximum(norms[drawn], 1e-9))
    return Changes(changes.layer, position, jnp.stack(index), jnp.stack(value).astype(jnp.float32), is_added=True)


def _features(graph: Graph, nodes: Sequence[int]) -> np.ndarray:
    features = set(graph.find("feature").tolist())
    if wrong := [node for node in nodes if int(node) not in features]:
        raise ValueError(f"change: node {wrong[0]} is no feature of the graph; look for some by find('feature')")
    return np.asarray(nodes, int)
