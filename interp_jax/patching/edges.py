"""Edge attribution: what each edge of the graph of heads and MLPs carries, by one backward pass or a few.

    score(u -> v) = sum over positions of (clean_u - corrupted_u) . d metric / d input_v

u writes to the residual stream (the embeddings, a head, an MLP), v reads from it (a head's query, key or value, an MLP,
the logits). EAP: Syed et al. 2023, arXiv:2310.10348, here the slope at the corrupted run; theirs, at the clean one, is
minus the scores of `g(model, corrupted, clean)`. EAP-IG: Hanna et al. 2024, arXiv:2403.17806, its mean over runs whose
embeddings go from corrupted to clean in `steps` steps. MIB (Mueller et al. 2025, arXiv:2504.13151) has it along
activations, too: the mean over clean runs in which only what u's own layer writes, all its heads or its MLP, goes from
corrupted to clean. What a layer's edges score then adds up to its exact effect.
Caveat: first order, and blind to edges that act only together. Sequential pre-norm decoders only.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jax import Array, lax
import jax.numpy as jnp
import numpy as np

from interp_jax.core import capture, grads, intervene, sites, transform
from interp_jax.interventions import replace
from interp_jax.nodes import READS, START, WRITES, Edges, check_additive, connected, depth, nodes
from interp_jax.patching.attribution import Toward
from interp_jax.runs import check_pair, per_example

LAYER = ("layer",)


def edge_attribution(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    *,
    steps: int = 0,
    along: str = "inputs",
) -> Callable[..., Edges]:
    """Scores every edge between heads and MLPs: EAP, or with `steps` EAP-IG.

    Args:
      f, metric: as in `activation_patch`.
      steps: 0 for the slope at the corrupted run, else the number of runs that slopes are averaged over.
      along: what goes from corrupted to clean in those runs. "inputs": the embeddings; "activations": what one layer's
        heads or its MLP write, one after the other, at `2 * n_layers + 1` times the cost.

    Returns:
      `g(model, clean, corrupted) -> Edges`, one compiled call: means over the pairs of estimated changes of the metric.

    Raises:
      ValueError: as `activation_patch`; negative `steps`, or none along activations; another `along`; a model whose
        attention and MLP read the same stream, or that has norms after attention or on the stream itself.

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
    if along not in ("inputs", "activations"):
        raise ValueError(f"edge_attribution: along={along!r} is neither 'inputs' nor 'activations'")
    if along == "activations" and not steps:
        raise ValueError("edge_attribution: along='activations' with steps=0: there is no way to go, give 1 or more")
    return transform(_edge_attribution, (steps, along), (f, metric))


def _edge_attribution(options: tuple[int, str], arrays: Any, *args: Any, **kwargs: Any) -> Edges:
    (steps, along), (f, metric), (*before, clean, corrupted) = options, arrays, args
    check_pair("edge_attribution", clean, corrupted)
    known = sites(f, *before, clean, **kwargs)
    check_additive("edge_attribution", known)
    senders, receivers = nodes(known)
    examples = jnp.shape(clean)[:-1]
    writes, reads = tuple(WRITES.values()), tuple(READS.values())
    there, here = (capture(f, writes, output=False)(*before, tokens, **kwargs) for tokens in (clean, corrupted))
    written = _flat({kind: there[site] - here[site] for kind, site in WRITES.items()})

    def scores(edits: Mapping[str, Any], tokens: Array) -> Array:
        """Every edge's score `[sender receiver]`, by the slopes of one run."""
        run = intervene(f, edits)
        found = grads(run, lambda out: per_example(metric(out), examples).mean(), reads)(*before, tokens, **kwargs)
        return jnp.einsum("s...m,r...m->sr", written, _flat({kind: found[2][site] for kind, site in READS.items()}))

    def total(one: Callable[[Array], Array], over: Array) -> Array:
        """The sum of `one` over the entries, one after the other."""
        nothing = jnp.zeros((len(senders), len(receivers)))
        return lax.scan(lambda so_far, x: (so_far + one(x), None), nothing, over)[0]

    def inputs(share: Array) -> Array:
        start = here[START] + share.astype(here[START].dtype) * (there[START] - here[START])
        return scores({START: replace(start)}, corrupted)

    places = np.array([depth(sender) for sender in senders])

    def activations(share: Array) -> Array:
        """Each place's edges by the slopes of a clean run in which what is written there, alone, is not clean yet."""

        def at_place(place: Array) -> Array:
            edits = {}
            for kind, site in WRITES.items():
                here_too = np.unique(places[[name.split(" ")[0] == kind for name in senders]]) == place
                dose = jnp.where(here_too, 1 - share, 0)
                edits[site] = Toward(here[site], dose[0] if kind == "embed" else dose, () if kind == "embed" else LAYER)
            return jnp.where(places[:, None] == place, scores(edits, clean), 0)

        return total(at_place, jnp.array(np.unique(places)))

    shares = jnp.arange(1, steps + 1) / steps if steps else jnp.zeros(1)
    mean = total(inputs if along == "inputs" else activations, shares) / len(shares)
    return Edges(jnp.where(connected(senders, receivers), mean, 0), senders, receivers)


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
