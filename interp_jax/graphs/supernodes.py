"""Supernodes: features of a graph that do alike are taken together, and graphs of several prompts are made one.

Two features are alike that get their input from the same nodes and give it to the same, as the cosine of their rows and
columns of effects says. Ameisen et al. 2025, Circuit tracing, group by hand; clusters are a start for that.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage

from interp_jax.graphs.format import FEATURES
from interp_jax.graphs.graph import Graph


def cluster(graph: Graph, *, similarity: float = 0.5, within: str | None = "position") -> Graph:
    """The graph with supernodes of features that have like edges.

    Args:
      graph: the graph, best a pruned one: at most some thousand features.
      similarity: the mean cosine of edges from which two groups become one, from 0 to 1.
      within: "position" or "layer", in which alone features are taken together; None: anywhere.

    Returns:
      The graph with groups of at least two features, called `group 0` and so on, the most influential first.

    Raises:
      ValueError: `similarity` is not from 0 to 1, or another `within`.

    Example:
      >>> import numpy as np
      >>> from scipy import sparse
      >>> from interp_jax import graphs
      >>> kind = np.array([2, 0, 0, 4])  # an embedding, two features, a logit
      >>> edges = sparse.csr_array(np.array([[0, 0, 0, 0], [1.0, 0, 0, 0], [2.0, 0, 0, 0], [0, 1.0, 3.0, 0]]))
      >>> ints = {name: np.zeros(4, np.int32) for name in ("layer", "position", "index")}
      >>> numbers = {name: np.zeros(4, np.float32) for name in ("activation", "rest")}
      >>> weight = np.array([0, 0, 0, 1.0])
      >>> graph = graphs.Graph(kind, **ints, **numbers, weight=weight, edges=edges, tokens=("a",), n_layers=1)
      >>> dict(graphs.cluster(graph).groups)
      {'group 0': (1, 2)}
    """
    if not 0 <= similarity <= 1:
        raise ValueError(f"cluster: similarity={similarity}: give a cosine from 0 to 1")
    if within not in (None, "position", "layer"):
        raise ValueError(f"cluster: within={within!r}: give 'position', 'layer' or None")
    features = np.flatnonzero(graph.where(*FEATURES))
    edges = sparse.csr_array(sparse.hstack([graph.edges[features], sparse.csr_array(graph.edges.T)[features]]))
    apart = np.zeros(len(features), int) if within is None else getattr(graph, within)[features]
    groups: list[tuple[int, ...]] = []
    for place in np.unique(apart):
        here = np.flatnonzero(apart == place)
        if len(here) < 2:
            continue
        dense = edges[here].toarray().astype(np.float64)
        dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
        distance = np.clip(1 - dense @ dense.T, 0, None)[np.triu_indices(len(here), 1)]
        label = fcluster(linkage(distance, "average"), 1 - similarity, "distance")
        groups += [tuple(features[here[label == one]].tolist()) for one in np.unique(label) if (label == one).sum() > 1]
    influence = graph.influence()
    groups.sort(key=lambda some: -influence[list(some)].sum())
    return graph.grouped({f"group {i}": some for i, some in enumerate(groups)})


def collapse(graph: Graph) -> Graph:
    """The graph with one node in the place of each supernode: effects on its members are added, and those of them.

    The node has the kind, layer and position of its first member, the sum of their activations and the group's name.
    Effects between members are gone.
    """
    owner = np.arange(len(graph))
    for some in graph.groups.values():
        owner[list(some)] = some[0]
    kept, place = np.unique(owner, return_inverse=True)
    together = sparse.csr_array(
        (np.ones(len(owner), np.float32), (place, np.arange(len(owner)))), (len(kept), len(owner))
    )
    edges = sparse.lil_array(together @ graph.edges @ together.T)
    edges.setdiag(0)
    edges = sparse.csr_array(edges)
    names = {some[0]: name for name, some in graph.groups.items()}
    new = graph.take(kept)
    sums = {name: (together @ getattr(graph, name)).astype(np.float32) for name in ("activation", "weight", "rest")}
    renamed = {int(np.searchsorted(kept, node)): name for node, name in names.items()}
    return replace(new, edges=edges, names={**new.names, **renamed}, groups={}, **sums)


def merge(graphs: Sequence[Graph]) -> Graph:
    """One graph of several prompts of as many tokens, whose nodes of one name are one: effects are means over graphs.

    A node that a graph has not counts 0 there. Names are the first that are given; supernodes of one name are joined.

    Raises:
      ValueError: no graph, or graphs of other lengths or depths.

    Example:
      >>> import numpy as np
      >>> from scipy import sparse
      >>> from interp_jax import graphs
      >>> def small(effect):
      ...     kind, edges = np.array([2, 4]), sparse.csr_array(np.array([[0, 0], [effect, 0]]))
      ...     ints = {name: np.zeros(2, np.int32) for name in ("layer", "position", "index")}
      ...     numbers = {name: np.zeros(2, np.float32) for name in ("activation", "weight", "rest")}
      ...     return graphs.Graph(kind, **ints, **numbers, edges=edges, tokens=("a",), n_layers=1)
      >>> graphs.merge([small(1.0), small(3.0)]).edges.toarray()[1].tolist()
      [2.0, 0.0]
    """
    if not graphs:
        raise ValueError("merge: give at least one graph")
    shapes = [(len(graph.tokens), graph.n_layers) for graph in graphs]
    if len(set(shapes)) > 1:
        raise ValueError(f"merge: graphs of {shapes} tokens and layers: give prompts that are aligned")
    ids = [graph.ids for graph in graphs]
    place = {name: number for number, name in enumerate(dict.fromkeys(name for some in ids for name in some))}
    into = [np.array([place[name] for name in some]) for some in ids]
    n, share = len(place), 1 / len(graphs)
    edges = sparse.csr_array((n, n), dtype=np.float32)
    arrays: dict[str, Any] = {name: np.zeros(n, np.float32) for name in ("activation", "weight", "rest")}
    fixed: dict[str, Any] = {name: np.zeros(n, np.int32) for name in ("kind", "layer", "position", "index")}
    names: dict[int, str] = {}
    groups: dict[str, tuple[int, ...]] = {}
    for graph, at in zip(graphs, into, strict=True):
        moved = graph.edges.tocoo()
        edges = edges + share * sparse.csr_array((moved.data, (at[moved.row], at[moved.col])), (n, n))
        for name, values in arrays.items():
            values[at] += share * getattr(graph, name)
        for name, values in fixed.items():
            values[at] = getattr(graph, name)
        names = {int(at[node]): name for node, name in graph.names.items()} | names
        for name, some in graph.groups.items():
            groups[name] = tuple(dict.fromkeys((*groups.get(name, ()), *(int(at[node]) for node in some))))
    first = graphs[0]
    kind = fixed.pop("kind").astype(np.int8)
    merged = Graph(kind, **fixed, **arrays, edges=sparse.csr_array(edges), tokens=first.tokens, n_layers=first.n_layers)
    return replace(merged, names=names, groups=groups).take(np.argsort(kind, kind="stable"))
