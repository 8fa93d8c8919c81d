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
    """Scores of edges: float32 `[sender receiver]`, 0 where the graph has none, and the names of both.

    Names: "embed", "head 0.1", "mlp 2"; "q 1.3", "k 1.3", "v 1.3", "mlp 2", "logits". Heads are counted as queries are:
    a key or a value that several share has the name of the first of them.
    """

    scores: Array
    senders: tuple[str, ...]
    receivers: tuple[str, ...]

    def sent(self, kind: str) -> Array:
        """What all edges that leave a node carry together, for each sender of a kind ("embed", "head", "mlp")."""
        return self.scores.sum(1)[np.array([name.split(" ")[0] == kind for name in self.senders])]


def check_additive(name: str, known: Mapping[str, SiteInfo]) -> None:
    """Raises ValueError where the stream of a model with these sites is no sum of what heads and MLPs write."""
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
    """The names of the senders and of the receivers of a model with these sites."""

    def named(kind: str, site: str) -> list[str]:
        if kind in ("embed", "logits"):
            return [kind]
        info = known[site]
        layers = range(len(info.layers or ()))
        if kind == "mlp":
            return [f"mlp {layer}" for layer in layers]
        heads = range(0, info.size("head") * n_sharing(known, site), n_sharing(known, site))
        return [f"{kind} {layer}.{head}" for layer in layers for head in heads]

    senders, receivers = ([n for item in sites.items() for n in named(*item)] for sites in (WRITES, READS))
    return tuple(senders), tuple(receivers)


def n_sharing(known: Mapping[str, SiteInfo], site: str) -> int:
    """How many query heads share one head of a site: more than one of grouped keys and values."""
    queries, here = known.get(READS["q"]), known[site]
    return queries.size("head") // here.size("head") if queries and site in (READS["k"], READS["v"]) else 1


def depth(node: str) -> float:
    """How deep a node stands, two steps a layer: attention, then the MLP."""
    kind, _, place = node.partition(" ")
    if not place:
        return -1.0 if kind == "embed" else math.inf
    return 2.0 * int(place.split(".")[0]) + (kind == "mlp")


def connected(senders: tuple[str, ...], receivers: tuple[str, ...]) -> np.ndarray:
    """Whether the graph has the edge, bool `[sender receiver]`: from each node to all that stand after it."""
    return np.array([depth(s) for s in senders])[:, None] < np.array([depth(r) for r in receivers])
