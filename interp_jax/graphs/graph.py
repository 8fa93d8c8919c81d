"""An attribution graph: its nodes, the direct effects between them, and which of them matter.

    A = |edges| with rows (targets) that sum to 1,    influence = w (A + A^2 + ...),    w: weights of what is explained

Constants are left out of `A`, as the peers have no node for them. Pruned are nodes below a share of all influence,
then edges by `A_ij (influence_i + w_i)` of what is left, then features and errors that lead nowhere, and features that
nothing leads to. Ameisen et al. 2025, Circuit tracing; Hanna et al. 2025, circuit-tracer, whose defaults these are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from interp_jax.graphs.format import ERRORS, FEATURES, KINDS, node_id, to_json


class Scores(NamedTuple):
    """How much of a graph its features explain, 1 at best.

    Attributes:
      replacement: the share of influence that comes from embeddings, and not from errors.
      completeness: the share of what enters nodes that does not come from errors, nodes weighed by their influence.
    """

    replacement: float
    completeness: float


class Node(NamedTuple):
    """One node, as `Graph.nodes` tells it: see `Graph` for what its fields mean."""

    id: str
    kind: str
    layer: int
    position: int
    index: int
    activation: float
    weight: float
    name: str


@dataclass(frozen=True)
class Graph:
    """An attribution graph on the host: numpy arrays with one entry a node, and a sparse matrix of edges.

    Attributes:
      kind: of each node, a place in `KINDS`, int8 `[node]`.
      layer, position: int32 `[node]`; -1 where it has none.
      index: int32 `[node]`: the number of a feature; the token of an embedding or a logit; -1.
      activation: float32 `[node]` of a feature or sparse head; the value of a target before any soft cap; 0 elsewhere.
      weight: float32 `[node]`, of what the graph explains: a logit's probability, or as it was given.
      edges: float32 CSR `[node node]`, the direct effect on the row's node of the column's.
      rest: float32 `[node]`, what enters a node from features that the graph has not.
      tokens: the prompt's tokens as text.
      n_layers: of the model.
      names: texts for nodes by number, of logits and directions at least.
      groups: supernodes, name -> numbers of nodes.
      info: settings and whatever else belongs to it, plain values.
    """

    kind: np.ndarray
    layer: np.ndarray
    position: np.ndarray
    index: np.ndarray
    activation: np.ndarray
    weight: np.ndarray
    edges: sparse.csr_array
    rest: np.ndarray
    tokens: tuple[str, ...]
    n_layers: int
    names: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.kind)
        if self.edges.shape != (n, n):
            raise ValueError(f"Graph: edges {self.edges.shape} for {n} nodes: give [node node]")

    def __len__(self) -> int:
        return len(self.kind)

    def __repr__(self) -> str:
        some = ", ".join(f"{(self.kind == i).sum()} {name}" for i, name in enumerate(KINDS) if (self.kind == i).any())
        return f"Graph({some}; {self.edges.nnz} edges; {len(self.tokens)} tokens)"

    def where(self, *kinds: str) -> np.ndarray:
        """Which nodes are of some kinds, bool `[node]`."""
        return np.isin(self.kind, [KINDS.index(kind) for kind in kinds])

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, one after another."""
        columns = (self.layer, self.position, self.index, self.activation, self.weight)
        kinds, plain = (KINDS[kind] for kind in self.kind), (column.tolist() for column in columns)
        return tuple(map(Node, self.ids, kinds, *plain, (self.names.get(i, "") for i in range(len(self)))))

    @property
    def ids(self) -> tuple[str, ...]:
        """A name for each node that no other node has: `3_17_5` is feature 17 of layer 3 at position 5."""
        columns = (self.layer.tolist(), self.index.tolist(), self.position.tolist())
        each = enumerate(zip((KINDS[kind] for kind in self.kind), *columns, strict=True))
        return tuple(node_id(*one, n_layers=self.n_layers, number=number) for number, one in each)

    def find(
        self,
        kind: str | None = None,
        *,
        layer: int | None = None,
        position: int | None = None,
        index: int | None = None,
        text: str | None = None,
    ) -> np.ndarray:
        """The numbers of the nodes that are all of what is asked for, int `[found]`.

        Args:
          kind: one of `KINDS`.
          layer, position, index: as in `Graph`.
          text: what their name has in it.

        Raises:
          ValueError: an unknown kind.
        """
        if kind is not None and kind not in KINDS:
            raise ValueError(f"find: kind={kind!r} is none of {', '.join(KINDS)}")
        chosen = np.ones(len(self), bool) if kind is None else self.where(kind)
        for name, value in (("layer", layer), ("position", position), ("index", index)):
            if value is not None:
                chosen &= getattr(self, name) == value
        if text is not None:
            chosen &= np.array([text in self.names.get(node, "") for node in range(len(self))], bool)
        return np.flatnonzero(chosen)

    def normalized(self) -> sparse.csr_array:
        """`A`: sizes of edges but the constants', each row with the sum 1, or 0 where nothing enters."""
        sizes = abs(self.edges) @ sparse.diags_array((~self.where("constant")).astype(np.float32))
        total = np.asarray(sizes.sum(1)).ravel()
        return sparse.csr_array(sparse.diags_array(1 / np.where(total > 0, total, 1)) @ sizes)

    def influence(self) -> np.ndarray:
        """`w (A + A^2 + ...)`, float64 `[node]`: by how much each node bears on what the graph explains."""
        return flow(self.normalized(), self.weight)

    def scores(self) -> Scores:
        """How much its features explain: see `Scores`."""
        A = self.normalized()
        influence, error = flow(A, self.weight), self.where(*ERRORS)
        tokens, errors = influence[self.where("embedding")].sum(), influence[error].sum()
        known = 1 - np.asarray(A[:, error].sum(1)).ravel()
        weighed = influence + self.weight
        share = lambda part, whole: float(part / whole) if whole > 0 else float("nan")  # noqa: E731
        return Scores(share(tokens, tokens + errors), share((known * weighed).sum(), weighed.sum()))

    def prune(self, node_threshold: float = 0.8, edge_threshold: float = 0.98) -> "Graph":
        """The graph of the nodes, then of the edges, that carry these shares of influence.

        Embeddings, constants and what the graph explains always stay.

        Raises:
          ValueError: a threshold is not from 0 to 1.
        """
        for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"prune: {name}={value}: give a share of influence from 0 to 1")
        influence = self.influence()
        always = self.where("embedding", "constant") | (self.weight > 0)
        keep = always | (influence >= _least(influence, node_threshold))
        left = _masked(self.edges, keep)
        A = replace(self, edges=left).normalized()
        scores = A.multiply((flow(A, self.weight) + self.weight)[:, None]).tocoo()
        kept = scores.data >= _least(scores.data, edge_threshold)
        some = sparse.csr_array((np.ones(kept.sum(), np.float32), (scores.row[kept], scores.col[kept])), left.shape)
        while True:
            leads, led = np.asarray(some.sum(0)).ravel() > 0, np.asarray(some.sum(1)).ravel() > 0
            now = keep & (always | leads) & (led | ~self.where(*FEATURES) | (self.weight > 0))
            if (now == keep).all():
                break
            keep = now
            some = _masked(some, keep)
        constants = sparse.diags_array(self.where("constant").astype(np.float32))
        return self._with(left.multiply(some) + _masked(left, keep) @ constants).take(keep)

    def _with(self, edges: Any) -> "Graph":
        """The graph with fewer edges; what the others brought is in `rest`."""
        lost = np.asarray(self.edges.sum(1)).ravel() - np.asarray(edges.sum(1)).ravel()
        return replace(self, edges=sparse.csr_array(edges), rest=(self.rest + lost).astype(np.float32))

    def take(self, nodes: Any) -> "Graph":
        """The graph of some nodes, given by number or as bool `[node]`, and the edges between them.

        What entered them from others is told in `rest`.
        """
        nodes = np.asarray(nodes)
        nodes = np.flatnonzero(nodes) if nodes.dtype == bool else nodes
        new = {int(old): number for number, old in enumerate(nodes)}
        into = self.edges[nodes]
        edges = sparse.csr_array(into[:, nodes])
        lost = np.asarray(into.sum(1)).ravel() - np.asarray(edges.sum(1)).ravel()
        arrays = {name: getattr(self, name)[nodes] for name in ("kind", "layer", "position", "index")}
        groups = {name: tuple(new[i] for i in some if i in new) for name, some in self.groups.items()}
        return replace(
            self,
            **arrays,
            activation=self.activation[nodes],
            weight=self.weight[nodes],
            edges=edges,
            rest=(self.rest[nodes] + lost).astype(np.float32),
            names={new[old]: name for old, name in self.names.items() if old in new},
            groups={name: some for name, some in groups.items() if some},
        )

    def filter(self, keep: Callable[["Graph"], Any]) -> "Graph":
        """`take` of the nodes that a function of the graph gives."""
        return self.take(keep(self))

    def named(self, names: Mapping[int, str]) -> "Graph":
        """The graph with more names of nodes, by number."""
        self._check(names)
        return replace(self, names={**self.names, **{int(node): name for node, name in names.items()}})

    def grouped(self, groups: Mapping[str, Sequence[int]]) -> "Graph":
        """The graph with these supernodes, in the place of those that it has."""
        self._check([node for some in groups.values() for node in some])
        return replace(self, groups={name: tuple(map(int, some)) for name, some in groups.items()})

    def to_json(self, path: str | Path, **options: Any) -> Path:
        """Writes the graph for viewers: see `graphs.to_json`, which has the options."""
        return to_json(self, path, **options)

    def _check(self, nodes: Any) -> None:
        if wrong := [node for node in nodes if not 0 <= node < len(self)]:
            raise ValueError(f"graph: no node {wrong[0]}: it has {len(self)}; look for it by find")


def flow(A: Any, weight: np.ndarray) -> np.ndarray:
    """`w (A + A^2 + ...)` of a graph without circles, float64 `[node]`."""
    back, total = sparse.csr_array(A.T), np.zeros(A.shape[1])
    current: Any = back @ weight.astype(np.float64)
    while current.max(initial=0.0) > 1e-12 * max(total.max(initial=0.0), 1e-300):
        total += current
        current = back @ current
    return total


def _least(scores: np.ndarray, share: float) -> float:
    """The smallest of the largest scores that add up to a share of all."""
    ordered = np.sort(scores)[::-1]
    total = ordered.cumsum()
    if not len(ordered) or total[-1] <= 0:
        return 0.0
    return float(ordered[min(np.searchsorted(total / total[-1], share), len(ordered) - 1)])


def _masked(edges: sparse.csr_array, keep: np.ndarray) -> sparse.csr_array:
    """The edges between nodes that are kept; a matrix of the same shape."""
    mask = sparse.diags_array(keep.astype(edges.dtype))
    found = sparse.csr_array(mask @ edges @ mask)
    found.eliminate_zeros()
    return found
