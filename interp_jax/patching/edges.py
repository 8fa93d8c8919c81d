"""Edge attribution: what each edge of the graph of heads and MLPs carries, by one backward pass or a few.

    score(u -> v) = sum over positions of (clean_u - corrupted_u) . d metric / d input_v

u writes to the residual stream (the embeddings, a head, an MLP), v reads from it (a head's query, key or value, an MLP,
the logits). EAP: Syed et al. 2023, arXiv:2310.10348, the slope at the corrupted run. EAP-IG: Hanna et al. 2024,
arXiv:2403.17806, its mean over runs whose embeddings go from corrupted to clean in `steps` steps.
Caveat: first order, and blind to edges that act only together. Sequential pre-norm decoders only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp

from interp_jax.core import capture, grads, intervene, sites
from interp_jax.core.calling import Stage, Transformed
from interp_jax.interventions import replace
from interp_jax.patching.sweep import check_pair, per_example

START = "blocks.0.resid_pre"
SENDERS = (START, "blocks.attn.result", "blocks.mlp_out")
RECEIVERS = ("blocks.q_input", "blocks.k_input", "blocks.v_input", "blocks.mlp_in", "blocks.resid_post")


@partial(jax.tree_util.register_dataclass, data_fields=["scores"], meta_fields=["senders", "receivers"])
@dataclass(frozen=True)
class Edges:
    """Scores of edges: float32 `[sender receiver]`, 0 where the graph has none, and the names of both.

    Names: "embed", "head 0.1", "mlp 2"; "q 1.3", "k 1.3", "v 1.3", "mlp 2", "logits".
    """

    scores: Array
    senders: tuple[str, ...]
    receivers: tuple[str, ...]


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
    return Transformed(f, Stage(_edge_attribution, steps), metric)


def _edge_attribution(f: Any, steps: int, metric: Any, args: Any, kwargs: Any) -> Edges:
    *before, clean, corrupted = args
    check_pair("edge_attribution", clean, corrupted)
    known = sites(f, *before, clean, **kwargs)
    if "blocks.resid_mid" not in known:
        raise ValueError("edge_attribution: no site 'blocks.resid_mid': attention and MLP must follow one another")
    for site in ("blocks.ln1_post.scale", "blocks.normalized_resid_post"):
        if site in known:
            raise ValueError(f"edge_attribution: site {site!r}: what heads write is normalized before it is read")
    examples = jnp.shape(clean)[:-1]
    there, here = (capture(f, SENDERS, output=False)(*before, tokens, **kwargs) for tokens in (clean, corrupted))

    def slopes(share: Array) -> dict[str, Array]:
        start = here[START] + share.astype(here[START].dtype) * (there[START] - here[START])
        run = intervene(f, {START: replace(start)})
        found = grads(run, RECEIVERS, lambda out: per_example(metric(out), examples).mean())(
            *before, corrupted, **kwargs
        )
        return found[2]

    shares = jnp.arange(1, steps + 1) / steps if steps else jnp.zeros(1)
    slope = jax.tree.map(lambda x: x.astype(jnp.float32).mean(0), lax.map(slopes, shares))
    written, senders, from_depth = _flat({name: there[name] - here[name] for name in SENDERS}, _SENDER)
    slope["blocks.resid_post"] = slope["blocks.resid_post"][-1:]
    read, receivers, to_depth = _flat(slope, _RECEIVER)
    scores = jnp.einsum("s...m,r...m->sr", written, read)
    last = 2 * len(slope["blocks.mlp_in"])
    depths = jnp.array([last if name == "logits" else d for name, d in zip(receivers, to_depth, strict=True)])
    return Edges(jnp.where(jnp.array(from_depth)[:, None] < depths, scores, 0), senders, receivers)


# name of the nodes of a site; at which of the 2 n_layers half-layers they stand
_SENDER = {START: ("embed", None), "blocks.attn.result": ("head", 0), "blocks.mlp_out": ("mlp", 1)}
_RECEIVER = {
    **{f"blocks.{kind}_input": (kind, 0) for kind in "qkv"},
    "blocks.mlp_in": ("mlp", 1),
    "blocks.resid_post": ("logits", None),
}


def _flat(values: Any, kinds: Any) -> tuple[Array, tuple[str, ...], list[int]]:
    """Values of sites as `[node *batch position d_model]`, the names of the nodes, and how deep each stands."""
    parts, names, depths = [], [], []
    for site, (kind, half) in kinds.items():
        x = values[site].astype(jnp.float32)
        if half is None:
            parts.append(x if kind == "logits" else x[None])
            names.append(kind)
            depths.append(-1)
        elif kind == "mlp":
            parts.append(x)
            names += [f"mlp {layer}" for layer in range(len(x))]
            depths += [2 * layer + half for layer in range(len(x))]
        else:
            x = jnp.moveaxis(x, -2, 1)
            n_layers, n_heads = x.shape[:2]
            parts.append(x.reshape(-1, *x.shape[2:]))
            names += [f"{kind} {layer}.{head}" for layer in range(n_layers) for head in range(n_heads)]
            depths += [2 * layer + half for layer in range(n_layers) for _ in range(n_heads)]
    return jnp.concatenate(parts), tuple(names), depths
