"""Random walks on one graph whose nodes are words: the geometry of its nodes' representations grows in the context.

The energy of that geometry is measured over many walks on the same graph with the same words, which `walks` gives;
`tasks.walks` gives prompts with answers, each on words of its own.

Reference: Park et al. (2025), "ICLR: In-Context Learning of Representations", https://arxiv.org/abs/2501.00070.
"""

from dataclasses import dataclass
import random
from typing import Any

import jax
import numpy as np

from interp_jax.data.examples import check_within
from interp_jax.data.prompts import check_tokenizer
from interp_jax.data.worlds.context import GRAPHS, NOUNS, walk


@dataclass(frozen=True)
class Walks:
    """Walks on one graph with the same words at its nodes.

    Attributes:
      tokens: int32 `[batch position]`, <bos> first.
      nodes: int32 `[batch position]`, the node of each token, -1 at <bos>.
      adjacency: float32 `[node node]`, 1 between neighbours and 0 elsewhere.
      words: the word of each node.
    """

    tokens: jax.Array
    nodes: jax.Array
    adjacency: jax.Array
    words: tuple[str, ...]


def walks(key: jax.Array, tokenizer: Any, n: int = 64, *, graph: str = "grid", length: int = 96) -> Walks:
    """Random walks on one graph. Which words its nodes have is random, and the same in all walks.

    Args:
      key: a jax PRNG key.
      tokenizer: of `microworld-context`.
      n: number of walks.
      graph: "ring" (8 nodes) or "grid" (3 by 3).
      length: words of a walk.

    Raises:
      ValueError: there is no such graph, n or length is below 1, or a word is not one token of this tokenizer.

    Example:
      >>> from interp_jax import models
      >>> _, tokenizer = models.load("microworld-context")
      >>> batch = walks(jax.random.key(0), tokenizer, n=4, graph="ring", length=10)
      >>> batch.tokens.shape, batch.nodes.shape, batch.adjacency.sum(1).tolist()
      ((4, 11), (4, 11), [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    """
    if graph not in GRAPHS:
        raise ValueError(f"walks: no graph {graph!r}; there are {', '.join(GRAPHS)}")
    check_within("walks: n", n, 1)
    check_within("walks: length", length, 1)
    check_tokenizer(tokenizer)
    rng = random.Random(int(jax.random.bits(key)))
    words = rng.sample(NOUNS, len(GRAPHS[graph]))
    nodes = np.array([walk(rng, graph, length) for _ in range(n)], np.int32)
    ids = np.array([tokenizer.token_id(word) for word in words], np.int32)
    prefix = np.array([tokenizer.encode("")] * n, np.int32)
    adjacency = np.zeros((len(words), len(words)), np.float32)
    for node, neighbours in enumerate(GRAPHS[graph]):
        adjacency[node, neighbours] = 1
    return Walks(
        tokens=jax.numpy.asarray(np.concatenate([prefix, ids[nodes]], axis=1)),
        nodes=jax.numpy.asarray(np.concatenate([np.full_like(prefix, -1), nodes], axis=1)),
        adjacency=jax.numpy.asarray(adjacency),
        words=tuple(words),
    )
