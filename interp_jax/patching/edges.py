"""Edge attribution: what each edge of the graph of heads and MLPs carries, by one backward pass or a few.

    score(u -> v) = sum over positions of (clean_u - corrupted_u) . d metric / d input_v

u writes to the residual stream (the embeddings, a head, an MLP), v reads from it (a head's query, key or value, an MLP,
the logits). EAP: Syed et al. 2023, arXiv:2310.10348, the slope at the corrupted run. EAP-IG: Hanna et al. 2024,
arXiv:2403.17806, its mean over runs whose embeddings go from corrupted to clean in `steps` steps.
Caveat: first order, and blind to edges that act only together. Sequential pre-norm decoders only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
import math
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
import numpy as np

from interp_jax.core import SiteInfo, capture, grads, intervene, sites, split_address, transform
from interp_jax.interventions import replace
from interp_jax.patching.sweep import check_pair, per_example

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


def edge_attribution(f: Callable[..., Any], metric: Callable[[Any], Array], *, steps: int = 0) -> Callable[..., Edges]:
    """Scores every edge between heads and MLPs: EAP, or with `steps` EAP-IG.

    Args:
      f, metric: as in `activation_patch`.
      steps: 0 for the slope at the corrupted run, else the number of runs that slopes are averaged over.

    Returns:
      `g(model, clean, corrupted) -> Edges`, one compiled call: means over the pairs of estimated changes of the metric.

    Raises:
      ValueError: as `activation_patch`; negative `steps`; a model whose attention and MLP read the same stream, or
        that has norms after attention or on the stream itself.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import models, patching
      >>> model, _ = models.load("microworld")
      >>> top = lambda logits: logits[:, -1, 7]
      >>> edges = patching.edge_attribution(models.forward, top)(model, jnp.array([[1, 5]]), jnp.array([[1, 9]]))
      >>> edges.scores.shape, edges.senders[1], edges.receivers[-1]
      ((21, 53), 'head 0.0', 'logits')
    """
    if steps < 0:
        raise ValueError(f"edge_attribution: steps={steps} is negative")
    return transform(_edge_attribution, steps, (f, metric))


def _edge_attribution(steps: int, arrays: Any, *args: Any, **kwargs: Any) -> Edges:
    (f, metric), (*before, clean, corrupted) = arrays, args
    check_pair("edge_attribution", clean, corrupted)
    known = sites(f, *before, clean, **kwargs)
    check_additive("edge_attribution", known)
    senders, receivers = nodes(known)
    examples = jnp.shape(clean)[:-1]
    writes, reads = tuple(WRITES.values()), tuple(READS.values())
    there, here = (capture(f, writes, output=False)(*before, tokens, **kwargs) for tokens in (clean, corrupted))

    def slopes(share: Array) -> dict[str, Array]:
        start = here[START] + share.astype(here[START].dtype) * (there[START] - here[START])
        run = intervene(f, {START: replace(start)})
        found = grads(run, reads, lambda out: per_example(metric(out), examples).mean())(*before, corrupted, **kwargs)
        return found[2]

    shares = jnp.arange(1, steps + 1) / steps if steps else jnp.zeros(1)
    slope = jax.tree.map(lambda x: x.astype(jnp.float32).mean(0), lax.map(slopes, shares))
    written = _flat({kind: there[site] - here[site] for kind, site in WRITES.items()})
    read = _flat({kind: slope[site] for kind, site in READS.items()})
    scores = jnp.einsum("s...m,r...m->sr", written, read)
    return Edges(jnp.where(connected(senders, receivers), scores, 0), senders, receivers)


def _flat(values: Mapping[str, Array]) -> Array:
    """Values by kind of node, layers stacked, as `[node *batch position d_model]` in the order of `nodes`."""
    parts = []
    for kind, value in values.items():
        x = value.astype(jnp.float32)
        if kind == "embed":
            x = x[None]
        elif kind == "logits":
            x = x[-1:]
        elif kind != "mlp":
            x = jnp.moveaxis(x, -2, 1)
            x = x.reshape(-1, *x.shape[2:])
        parts.append(x)
    return jnp.concatenate(parts)


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
