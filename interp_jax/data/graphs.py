"""Random walks on one graph whose nodes are words: the geometry of its nodes' representations grows in the context.

The energy of that geometry is measured over many walks on the same graph with the same words, which `walks` gives;
`tasks.walks` gives prompts with answers, each on words of its own.

Reference: Park et al. (2025), "ICLR: In-Context Learning of Representations", https://arxiv.org/abs/2501.00070.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import random
from typing import Any

import jax
import numpy as np

from interp_jax.data.examples import check_within
from interp_jax.data.prompts import check_tokenizer
from interp_jax.data.worlds.context import GRAPHS, NOUNS


@dataclass(frozen=True)
class Walks:
    """Walks on one graph with the same words at its nodes.

    Attributes:
      tokens: int32 `[batch position]`, what the tokenizer puts before every text (its <bos>, or nothing) first.
      nodes: int32 `[batch position]`, the node of each token, -1 at what stands before the walk.
      adjacency: float32 `[node node]`, 1 between neighbours and 0 elsewhere.
      words: the word of each node.
      ids: int32 `[node]`, the token of each node.
    """

    tokens: jax.Array
    nodes: jax.Array
    adjacency: jax.Array
    words: tuple[str, ...]
    ids: jax.Array


def walks(
    key: jax.Array,
    tokenizer: Any,
    n: int = 64,
    *,
    graph: str | Any = "grid",
    length: int = 96,
    words: Sequence[str] | None = None,
) -> Walks:
    """Random walks on one graph. Which words its nodes have is random unless they are given, and the same in all walks.

    Args:
      key: a jax PRNG key.
      tokenizer: of the model.
      n: number of walks.
      graph: "ring" (8 nodes) or "grid" (3 by 3) as `microworld-context` knows them, or an adjacency matrix
        [node node], such as that of `ring`, `grid` or your own graph.
      length: words of a walk.
      words: the word of each node, as it stands in running text: for most models with a space before it. By default
        random nouns of `microworld-context`.

    Raises:
      ValueError: no such graph; an adjacency matrix that is no undirected, connected graph; n or length is below 1;
        another number of words than of nodes, one that stands there twice, or one that is not one token of this
        tokenizer.

    Example:
      >>> from interp_jax import models
      >>> _, tokenizer = models.load("microworld-context")
      >>> batch = walks(jax.random.key(0), tokenizer, n=4, graph="ring", length=10)
      >>> batch.tokens.shape, batch.nodes.shape, batch.adjacency.sum(1).tolist()
      ((4, 11), (4, 11), [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
      >>> walks(jax.random.key(0), tokenizer, n=1, graph=ring(3), words=("cat", "hat", "car")).words
      ('cat', 'hat', 'car')
    """
    check_tokenizer(tokenizer)
    adjacency = _adjacency(graph)
    rng = random.Random(int(jax.random.bits(key)))
    n_nodes = len(adjacency)
    if words is None and n_nodes > len(NOUNS):
        raise ValueError(f"walks: a graph of {n_nodes} nodes and {len(NOUNS)} nouns to draw from; give its words=")
    names = tuple(rng.sample(NOUNS, n_nodes) if words is None else words)
    if len(names) != n_nodes or len(set(names)) != n_nodes:
        what = "some of them twice" if len(names) == n_nodes else "one is wanted for each node"
        raise ValueError(f"walks: {len(names)} words for a graph of {n_nodes} nodes: {what}")
    ids = np.array([_token_id(tokenizer, word) for word in names], np.int32)
    nodes = _steps(rng, adjacency, n, length)
    before = np.array([tokenizer.encode("")] * n, np.int32).reshape(n, -1)
    return Walks(
        tokens=jax.numpy.asarray(np.concatenate([before, ids[nodes]], axis=1)),
        nodes=jax.numpy.asarray(np.concatenate([np.full_like(before, -1), nodes], axis=1)),
        adjacency=jax.numpy.asarray(adjacency),
        words=names,
        ids=jax.numpy.asarray(ids),
    )


def random_walks(key: jax.Array, adjacency: Any, n: int, length: int) -> np.ndarray:
    """The nodes of n random walks, int32 [walk step]: begun anywhere, each step to one of the neighbours.

    Args:
      key: a jax PRNG key.
      adjacency: [node node], not zero between neighbours.
      n, length: number of walks, and of nodes of each.

    Raises:
      ValueError: the matrix is no undirected, connected graph; n or length below 1.

    Example:
      >>> random_walks(jax.random.key(0), [[0, 1], [1, 0]], n=2, length=5).shape
      (2, 5)
    """
    return _steps(random.Random(int(jax.random.bits(key))), _adjacency(adjacency), n, length)


def ring(n: int) -> np.ndarray:
    """The adjacency matrix float32 [node node] of n nodes in a ring.

    Raises ValueError for fewer than 3.

    >>> ring(4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    if n < 3:
        raise ValueError(f"ring: n={n}, and a ring has at least 3 nodes")
    step = np.roll(np.eye(n, dtype=np.float32), 1, axis=1)
    return step + step.T


def grid(rows: int, columns: int) -> np.ndarray:
    """The adjacency matrix float32 [node node] of a rectangular grid, nodes counted row by row.

    Raises ValueError where it has fewer than 2 nodes.

    >>> grid(2, 2).tolist()
    [[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]
    """
    if min(rows, columns) < 1 or rows * columns < 2:
        raise ValueError(f"grid: {rows} by {columns} has no edge; give at least 1 by 2")
    down, right = (np.eye(k, k=1, dtype=np.float32) for k in (rows, columns))
    one_way = np.kron(down, np.eye(columns, dtype=np.float32)) + np.kron(np.eye(rows, dtype=np.float32), right)
    return one_way + one_way.T


def check_graph(adjacency: Any) -> np.ndarray:
    """The adjacency matrix as float32 [node node].

    Raises ValueError where it is no undirected, connected graph.

    >>> check_graph([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    Traceback (most recent call last):
    ...
    ValueError: the graph is not connected: it has 2 parts, of nodes [0, 1] and [2]; join or take one
    """
    from scipy.sparse.csgraph import connected_components

    matrix = np.asarray(adjacency, np.float32)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(f"an adjacency matrix is [node node] with two nodes or more, not {list(matrix.shape)}")
    if (matrix < 0).any() or (matrix != matrix.T).any() or matrix.diagonal().any():
        raise ValueError("an adjacency matrix is symmetric, zero on its diagonal and nowhere negative; this is not")
    n_parts, part = connected_components(matrix)
    if n_parts > 1:
        shown = " and ".join(str(np.flatnonzero(part == i).tolist()) for i in range(min(n_parts, 3)))
        raise ValueError(f"the graph is not connected: it has {n_parts} parts, of nodes {shown}; join or take one")
    return matrix


def _adjacency(graph: Any) -> np.ndarray:
    if not isinstance(graph, str):
        return check_graph(graph)
    if graph not in GRAPHS:
        raise ValueError(f"walks: no graph {graph!r}; there are {', '.join(GRAPHS)}, or give an adjacency matrix")
    matrix = np.zeros((len(GRAPHS[graph]), len(GRAPHS[graph])), np.float32)
    for node, neighbours in enumerate(GRAPHS[graph]):
        matrix[node, neighbours] = 1
    return matrix


def _steps(rng: random.Random, adjacency: np.ndarray, n: int, length: int) -> np.ndarray:
    check_within("walks: n", n, 1)
    check_within("walks: length", length, 1)
    neighbours = [np.flatnonzero(row).tolist() for row in adjacency]
    nodes = np.empty((n, length), np.int32)
    for walk in nodes:
        walk[0] = rng.randrange(len(neighbours))
        for i in range(1, length):
            walk[i] = rng.choice(neighbours[walk[i - 1]])
    return nodes


def _token_id(tokenizer: Any, word: str) -> int:
    try:
        return tokenizer.token_id(word)
    except ValueError as error:
        raise ValueError(f"walks: {error}") from None
