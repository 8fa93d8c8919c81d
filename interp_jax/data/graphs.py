"""Random walks on graphs whose nodes are words: batches for the energy and the geometry of in-context representations.

Reference: Park et al. (2025), "ICLR: In-Context Learning of Representations", https://arxiv.org/abs/2501.00070.
"""

from dataclasses import dataclass
import random

import jax

GRAPHS: dict[str, list[list[int]]] = {  # node -> its neighbours
    "ring": [[(i - 1) % 8, (i + 1) % 8] for i in range(8)],
    "grid": [
        [3 * y + x for x, y in ((c - 1, r), (c + 1, r), (c, r - 1), (c, r + 1)) if 0 <= x < 3 and 0 <= y < 3]
        for r in range(3)
        for c in range(3)
    ],
}


@dataclass(frozen=True)
class Walks:
    """Walks on one graph with the same words at its nodes.

    tokens: int32 [batch position], <bos> first.
    nodes: int32 [batch position], the node of each token, -1 at <bos>.
    adjacency: float32 [node node], 1 between neighbours.
    words: the word of each node.
    """

    tokens: jax.Array
    nodes: jax.Array
    adjacency: jax.Array
    words: tuple[str, ...]


def walk(rng: random.Random, graph: str, length: int) -> list[int]:
    """The nodes of a random walk, each step to one of the neighbours."""
    edges = GRAPHS[graph]
    nodes = [rng.randrange(len(edges))]
    while len(nodes) < length:
        nodes.append(rng.choice(edges[nodes[-1]]))
    return nodes
