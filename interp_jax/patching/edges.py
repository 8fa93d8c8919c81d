"""Edge attribution: what each edge of the graph of heads and MLPs carries, by one backward pass or a few.

    score(u -> v) = sum over positions of (clean_u - corrupted_u) . d metric / d input_v

u writes to the residual stream (the embeddings, a head, an MLP), v reads from it (a head's query, key or value, an MLP,
the logits). EAP: Syed et al. 2023, arXiv:2310.10348, the slope at the corrupted run. EAP-IG: Hanna et al. 2024,
arXiv:2403.17806, its mean over runs whose embeddings go from corrupted to clean in `steps` steps.
Caveat: first order, and blind to edges that act only together. Sequential pre-norm decoders only.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp

from interp_jax.core import capture, grads, intervene, sites, transform
from interp_jax.interventions import replace
from interp_jax.nodes import READS, START, WRITES, Edges, check_additive, connected, nodes
from interp_jax.runs import check_pair, per_example


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
        found = grads(run, lambda out: per_example(metric(out), examples).mean(), reads)(*before, corrupted, **kwargs)
        return found[2]

    shares = jnp.arange(1, steps + 1) / steps if steps else jnp.zeros(1)
    slope = jax.tree.map(lambda x: x.astype(jnp.float32).mean(0), lax.map(slopes, shares))
    written = _flat({kind: there[site] - here[site] for kind, site in WRITES.items()})
    read = _flat({kind: slope[site] for kind, site in READS.items()})
    scores = jnp.einsum("s...m,r...m->sr", written, read)
    return Edges(jnp.where(connected(senders, receivers), scores, 0), senders, receivers)


def _flat(values: Mapping[str, Array]) -> Array:
    """Stacks values by kind of node to `[node *batch position d_model]`, in the order of `nodes`."""
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
