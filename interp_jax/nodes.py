"""A model as a graph: heads and MLPs are its nodes, which write to the residual stream and read from it.

A sender is what writes (the embeddings, a head, an MLP); a receiver is what reads (the query, key or value of a head,
an MLP, the logits). Each sender has an edge to every receiver that stands after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
import math

import jax
from jax import Array
import numpy as np

from interp_jax.core import SiteInfo, split_address

START = "blocks.0.resid_pre"
WRITES = {"embed": START, "head": "blocks.attn.result", "mlp": "blocks.mlp_out"}  # kind of node -> where it writes
READS = {**{kind: f"blocks.{kind}_input" for kind in "qkv"}, "mlp": "blocks.mlp_in", "logits": "blocks.resid_post"}


@partial(jax.tree_util.register_dataclass, data_fields=["scores"], meta_fields=["senders", "receivers"])
@dataclass(frozen=True)
class Edges:
    """Scores of the edges of a graph.

    A sender is named "embed", "head 0.1" or "mlp 2"; a receiver "q 1.3", "k 1.3", "v 1.3", "mlp 2" or "logits". Numbers
    of heads are those of queries: a key or value head that several query heads share has the number of the first.

    Attributes:
      scores: float32 `[sender receiver]`, 0 where the graph has no edge.
      senders: the names along the first axis.
      receivers: the names along the second axis.
    """

    scores: Array
    senders: tuple[str, ...]
    receivers: tuple[str, ...]

    def sent(self, kind: str) -> Array:
        """The sum of the scores of all edges that leave a sender, `[sender]`, for one kind: embed, head or mlp."""
        return self.scores.sum(1)[np.array([name.split(" ")[0] == kind for name in self.senders])]


def check_additive(name: str, known: Mapping[str, SiteInfo]) -> None:
    """Raises ValueError where the residual stream is not the sum of what embeddings, heads and MLPs write.

    Args:
      name: the method, for the message.
      known: the catalogue of the model's sites.
    """
    if "blocks.resid_mid" not in known:
        raise ValueError(f"{name}: no site 'blocks.resid_mid': attention and MLP must follow one another")
    if missing := [site for site in {**WRITES, **READS}.values() if split_address(site)[0] not in known]:
        raise ValueError(
            f"{name}: no site {missing[0]!r}: the function must declare what each head and MLP reads and writes"
        )
    for site in ("blocks.ln1_post.scale", "blocks.normalized_resid_post"):
        if site in known:
            raise ValueError(f"{name}: site {site!r}: what heads write is normalized before it is read")


def nodes(known: Mapping[str, SiteInfo]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the senders and of the receivers of a model, from the catalogue of its sites."""

    def named(kind: str, site: str) -> list[str]:
        if kind in ("embed", "logits"):
            return [kind]
        info = known[site]
        layers = range(len(info.layers or ()))
        if kind == "mlp":
            return [f"mlp {layer}" for layer in layers]
        step = n_sharing(known, site)
        heads = range(0, info.size("head") * step, step)
        return [f"{kind} {layer}.{head}" for layer in layers for head in heads]

    senders, receivers = ([n for item in sites.items() for n in named(*item)] for sites in (WRITES, READS))
    return tuple(senders), tuple(receivers)


def n_sharing(known: Mapping[str, SiteInfo], site: str) -> int:
    """How many query heads share one head of a site: more than 1 for keys and values of grouped-query attention."""
    queries, here = known.get(READS["q"]), known[site]
    return queries.size("head") // here.size("head") if queries and site in (READS["k"], READS["v"]) else 1


def depth(node: str) -> float:
    """The place of a node from the first to the last, with two steps in each layer: attention, then the MLP."""
    kind, _, place = node.partition(" ")
    if not place:
        return -1.0 if kind == "embed" else math.inf
    return 2.0 * int(place.split(".")[0]) + (kind == "mlp")


def connected(senders: tuple[str, ...], receivers: tuple[str, ...]) -> np.ndarray:
    """Which edges the graph has, bool `[sender receiver]`: from each sender to all receivers that stand after it."""
    return np.array([depth(s) for s in senders])[:, None] < np.array([depth(r) for r in receivers])
