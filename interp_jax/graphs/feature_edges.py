"""Edges of a sparse feature circuit: what one feature or error does to a metric through another, and no third.

    edge(u -> d) = (u_corrupted - u_clean) . d d / d u . d metric / d d,  every other node held

All slopes are those of the clean run, so that the edges that leave a node add up, over all nodes and the metric itself,
to the node's effect by attribution. Marks et al. 2024, Sparse feature circuits, https://arxiv.org/abs/2403.19647.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
from jax import Array, lax
import jax.numpy as jnp
import numpy as np

from interp_jax.core import Context, Intervention, capture, freeze, grads, intervene, transform
from interp_jax.graphs.replacement import replace_mlps
from interp_jax.graphs.sparse_circuits import FeatureNodes, mean_of, node_sites, of_nodes, written_sites
from interp_jax.runs import check_pair

CHUNK = 8  # nodes of a layer whose edges are found together


class FeatureNode(NamedTuple):
    """A node of a circuit: the site that is written, its layer and position, the feature's number or -1 of an error."""

    site: str
    layer: int
    position: int
    index: int


class FeatureEdges(NamedTuple):
    """The edges of a circuit.

    Attributes:
      nodes: in the order of their layers.
      weights: float32 `[to from]`, a row for each node and, last, for the metric.
    """

    nodes: tuple[FeatureNode, ...]
    weights: np.ndarray


def feature_edges(
    f: Callable[..., Any], metric: Callable[[Any], Array], dictionaries: Any
) -> Callable[..., FeatureEdges]:
    """What each node of a circuit does to each other, and to the metric, directly.

    Args:
      f, metric, dictionaries: as in `node_effects`.

    Returns:
      `g(model, clean, corrupted, circuit) -> FeatureEdges`, means over the pairs; the circuit is a `FeatureNodes` of
      bool arrays. It is called from Python, not within `jit`, since how many edges there are depends on the circuit.

    Raises:
      ValueError: as `node_effects`; a circuit without a node.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import dictionaries, graphs, models
      >>> model, _ = models.load("microworld")
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> made = [dictionaries.TopK.create(key, model.config.d_model, 32, 4) for key in keys]
      >>> saes = {f"blocks.{i}.resid_post": sae for i, sae in enumerate(made)}
      >>> method = models.forward, lambda logits: logits[:, -1, 7], saes
      >>> args = model, jnp.array([[1, 5, 7]]), jnp.array([[1, 9, 7]])
      >>> circuit = graphs.largest(graphs.node_effects(*method, steps=2)(*args), 6)
      >>> found = graphs.feature_edges(*method)(*args, circuit)
      >>> found.weights.shape == (len(found.nodes) + 1, len(found.nodes))
      True
    """

    def edges(*args: Any, **kwargs: Any) -> FeatureEdges:
        *before, circuit = args
        nodes = _nodes(circuit)
        if not nodes:
            raise ValueError("feature_edges: the circuit has no node: see graphs.largest")
        known = transform(_slopes, None, (f, metric, dictionaries))(*before, **kwargs)
        rows = []
        for (site, _), some in groupby(nodes, lambda node: node[:2]):
            targets = np.array([node[1:] for node in some], np.int32)
            onto = transform(_onto_nodes, site, (f, dictionaries))
            for start in range(0, len(targets), CHUNK):
                chunk = targets[start : start + CHUNK]
                filled = jnp.asarray(np.resize(chunk, (CHUNK, 3)))  # one size, one program
                found = onto(known, filled, *before, **kwargs)
                rows.append(_picked(found, nodes)[: len(chunk)])
        last = transform(_onto_metric, None, (f, metric, dictionaries))(known, *before, **kwargs)
        return FeatureEdges(nodes, np.concatenate([*rows, _picked(last, nodes)]))

    return edges


def _nodes(circuit: FeatureNodes) -> tuple[FeatureNode, ...]:
    """The nodes that are in a circuit, by site and layer."""
    found = []
    for site, mask in circuit.features.items():
        errors = np.asarray(circuit.errors[site], bool)[..., None]
        here = np.argwhere(np.concatenate([np.asarray(mask, bool), errors], -1))
        last = mask.shape[-1]
        found += [FeatureNode(site, layer, at, -1 if n == last else n) for layer, at, n in here.tolist()]
    return tuple(found)


def _picked(found: FeatureNodes, nodes: Sequence[FeatureNode]) -> np.ndarray:
    """Of effects of all nodes, `[target ...]`, those of some, `[target node]`."""
    features, errors = ({site: np.asarray(x) for site, x in part.items()} for part in found)
    columns = [
        errors[site][:, layer, position] if index < 0 else features[site][:, layer, position, index]
        for site, layer, position, index in nodes
    ]
    return np.stack(columns, 1)


def _slopes(_: None, arrays: Any, *args: Any, **kwargs: Any) -> tuple[dict[str, Array], dict[str, Array]]:
    """At every site of nodes the slope of the metric, and what corrupting adds, `[layer *batch position d]`."""
    (f, metric, dictionaries), (*before, clean, corrupted) = arrays, args
    check_pair("feature_edges", clean, corrupted)
    written = written_sites(f, dictionaries, *before, clean, **kwargs)
    g, names = replace_mlps(f, dictionaries, error_gradient=True), node_sites(written)
    there = capture(g, names, output=False)(*before, corrupted, **kwargs)
    _, here, slopes = grads(g, mean_of(metric, clean), names)(*before, clean, **kwargs)
    return slopes, {name: there[name] - here[name] for name in names}


def _onto_nodes(site: str, arrays: Any, known: Any, targets: Array, *args: Any, **kwargs: Any) -> FeatureNodes:
    """Effects of all nodes on some of one layer of a site, `(layer, position, index)` each."""
    (f, dictionaries), (*before, clean, _) = arrays, args
    (slopes, change), layer = known, targets[0, 0]  # one for all, so that the run is one for all
    own = [f"{site}.features", f"{site}.error"]
    others = [name for name in change if name not in own]
    held = freeze(replace_mlps(f, dictionaries, error_gradient=True), others)
    read = capture(intervene(held, dict.fromkeys(own, _HoldBut(layer))), own, output=False)

    def effects(target: Array) -> FeatureNodes:
        _, position, index = target
        weight = {name: slopes[name][layer][..., position, :] for name in own}
        feature = jnp.arange(weight[own[0]].shape[-1]) == index
        told = {own[0]: jnp.where(feature, weight[own[0]], 0), own[1]: jnp.where(index < 0, weight[own[1]], 0)}

        def through(found: Mapping[str, Array]) -> Array:
            parts = [jnp.vdot(found[name][layer][..., position, :], told[name]) for name in own]
            return jnp.stack(parts).sum()

        found = grads(read, through, change)(*before, clean, **kwargs)[2]
        # What is read is not held, and its slope at itself is no edge.
        found |= {name: found[name].at[layer].set(0) for name in own}
        return of_nodes({name: slope * change[name] for name, slope in found.items()}, clean)

    return jax.vmap(effects)(targets)


def _onto_metric(_: None, arrays: Any, known: Any, *args: Any, **kwargs: Any) -> FeatureNodes:
    """Effects of all nodes on the metric, `[1 ...]`."""
    (f, metric, dictionaries), (*before, clean, _) = arrays, args
    change = known[1]
    held = freeze(replace_mlps(f, dictionaries, error_gradient=True), change)
    found = grads(held, mean_of(metric, clean), change)(*before, clean, **kwargs)[2]
    effects = of_nodes({name: slope * change[name] for name, slope in found.items()}, clean)
    return jax.tree.map(lambda x: x[None], effects)


@partial(jax.tree_util.register_dataclass, data_fields=["but"], meta_fields=[])
@dataclass(frozen=True)
class _HoldBut(Intervention):
    """A value through which no slope goes, but at one layer."""

    but: Array

    def __call__(self, value: Array, ctx: Context) -> Array:
        return jnp.where(ctx.layer == self.but, value, lax.stop_gradient(value))
