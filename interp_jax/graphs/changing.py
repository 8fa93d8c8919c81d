"""Features that are suppressed, injected or swapped: what a graph says they do is tried in the model.

    y_l <- y_l + sum over changed features (new - activation) W_dec[to l]

What a change brings about later is then the model's own doing. Constrained to a range of layers, MLP outputs in it are
those of the prompt plus what the changed features write there, so that the change cannot undo itself; attention
patterns are held, or free. Ameisen et al. 2025, Circuit tracing ("constrained patching"); Lindsey et al. 2025, On the
biology of a large language model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from interp_jax.core import Context, Intervention, capture, freeze, intervene, sites, transform
from interp_jax.graphs.graph import Graph
from interp_jax.graphs.placing import Placed, placed, unchecked
from interp_jax.graphs.replacement import frozen_sites
from interp_jax.interventions import chain, replace


@partial(
    jax.tree_util.register_dataclass, data_fields=["position", "index", "value"], meta_fields=["layer", "is_added"]
)
@dataclass(frozen=True)
class Changes:
    """Which features are changed, and to what.

    Attributes:
      layer: of each feature.
      position: int32 `[feature]`; None: at every position, of what is generated too.
      index: int32 `[feature]`.
      value: float32 `[feature]`, the new activation, or what is added to it.
      is_added: whether it is added.
    """

    layer: tuple[int, ...]
    position: Array | None
    index: Array
    value: Array
    is_added: bool = False


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["logits", "features", "logits_before", "features_before"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Effects:
    """What a change of features does.

    Attributes:
      logits, logits_before: `[position d_vocab]`, with the change and without it.
      features, features_before: pre-activations by layer, `[position d_sae]` each.
    """

    logits: Array
    features: tuple[Array, ...]
    logits_before: Array
    features_before: tuple[Array, ...]


def change(graph: Graph, nodes: Sequence[int], factor: float = 0.0, *, everywhere: bool = False) -> Changes:
    """Sets features of a graph to a multiple of their activations: 0 suppresses them, -1 turns them round, 2 doubles.

    Args:
      graph: the graph.
      nodes: numbers of its features.
      factor: the multiple.
      everywhere: whether they are set at all positions, and not at their own alone.

    Raises:
      ValueError: a node that is no feature.
    """
    chosen = _features(graph, nodes)
    return Changes(
        tuple(graph.layer[chosen].tolist()),
        None if everywhere else jnp.asarray(graph.position[chosen]),
        jnp.asarray(graph.index[chosen]),
        jnp.asarray(factor * graph.activation[chosen], jnp.float32),
    )


def swap(graph: Graph, out: Sequence[int], into: Graph, nodes: Sequence[int], *, factor: float = 1.0) -> Changes:
    """Suppresses features of one graph and injects those of another prompt's, at the positions that they have there.

    Args:
      graph, out: the graph of the prompt that is run, and the features to take out.
      into, nodes: the other graph, and the features to put in, at `factor` times their activations.

    Raises:
      ValueError: a node that is no feature.
    """
    off, on = change(graph, out, 0.0), change(into, nodes, factor)
    position, index, value = (
        jnp.concatenate([getattr(off, name), getattr(on, name)]) for name in ("position", "index", "value")
    )
    return Changes((*off.layer, *on.layer), position, index, value)


def predicted(graph: Graph, changes: Changes, *, through: bool = False) -> np.ndarray:
    """By how much a graph says that changes move each node, float32 `[node]`: pre-activations, and values of targets.

    Args:
      graph: the graph, whose edges are all that is known.
      changes: of its features.
      through: False: by direct effects alone. True: through other features too, as long as each stays active and what
        it does grows with it; the changed ones stay as they are set.

    Raises:
      ValueError: a changed feature that the graph has not, or changes at every position.
    """
    nodes, sizes = _sizes(graph, changes)
    relative = np.zeros(len(graph), np.float32)
    np.add.at(relative, nodes, sizes / graph.activation[nodes])
    moved = np.asarray(graph.edges @ relative)
    follows = graph.where("feature")
    follows[nodes] = False
    change = moved
    while through and np.abs(change[follows]).max(initial=0) > 0:
        relative = np.where(follows, change / np.where(follows, graph.activation, 1), 0).astype(np.float32)
        change = np.asarray(graph.edges @ relative)
        moved = moved + change
    return moved


def _sizes(graph: Graph, changes: Changes) -> tuple[np.ndarray, np.ndarray]:
    """The changed features as nodes, and by how much their activations change, `[feature]` each."""
    if changes.position is None:
        raise ValueError("the changes are at every position: make them at those of the graph's features")
    position, index, value = (np.asarray(x) for x in (changes.position, changes.index, changes.value))
    nodes = []
    for layer, p, i in zip(changes.layer, position, index, strict=True):
        found = graph.find("feature", layer=layer, position=int(p), index=int(i))
        if not len(found):
            raise ValueError(f"the graph has no feature {i} of layer {layer} at position {p}")
        nodes.append(int(found[0]))
    return np.array(nodes, int), value - (0 if changes.is_added else graph.activation[nodes])


def random_changes(key: Any, transcoders: Any, graph: Graph, changes: Changes) -> Changes:
    """As many changes of features drawn at random, at the same places, that write as much: a control.

    Args:
      key: a jax.random key.
      transcoders: one for each layer, or a mapping from layers.
      graph: has the changed features.
      changes: what is compared with; at positions of the graph.

    Raises:
      ValueError: as `predicted`.
    """
    found = {one.layer: one.dictionary for one in unchecked(transcoders)}
    (_, size), position = _sizes(graph, changes), changes.position
    index, value = [], []
    keys = jax.random.split(key, len(changes.layer))
    for number, layer in enumerate(changes.layer):
        norms = jnp.linalg.norm(found[layer].W_dec, axis=-1)
        drawn = jax.random.randint(keys[number], (), 0, len(norms))
        index.append(drawn)
        value.append(size[number] * norms[changes.index[number]] / jnp.maximum(norms[drawn], 1e-9))
    return Changes(changes.layer, position, jnp.stack(index), jnp.stack(value).astype(jnp.float32), is_added=True)


def feature_edits(transcoders: Any, changes: Changes) -> dict[str, Any]:
    """The changes as edits, for `ij.intervene` and for `models.generate`.

    Args:
      transcoders: as `replace_mlps` takes them.
      changes: the changes. At every position they are made in all that is generated.

    Returns:
      Address -> intervention.

    Raises:
      ValueError: a layer without a transcoder.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries, graphs, models
      >>> model, _ = models.load("microworld")
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> transcoders = [dictionaries.Transcoder.create(key, model.config.d_model, 32) for key in keys]
      >>> changes = graphs.Changes((2,), None, jnp.array([7]), jnp.array([5.0]))
      >>> edits = graphs.feature_edits(transcoders, changes)
      >>> models.generate(model, jnp.array([1, 5, 7]), 4, edits=edits).shape
      (7,)
    """
    found = unchecked(transcoders)
    edits: dict[str, list[Any]] = {}
    for one in found:
        layers = set(changes.layer) if one.layer is None else set(changes.layer) & {one.layer}
        for layer in sorted(layers):
            chosen = np.flatnonzero(np.array(changes.layer) == layer)
            position = None if changes.position is None else changes.position[chosen]
            parts = (position, changes.index[chosen], changes.value[chosen])
            last = one.dictionary.input_shape[0] if one.layer is None else layer + 1
            for to in range(layer, last):
                cross = (layer, to) if one.layer is None else None
                edit = _Change(one.dictionary, *parts, _numbered(one.read, layer), cross, changes.is_added)
                edits.setdefault(_numbered(one.written, to), []).append(edit)
    lost = set(changes.layer) - {one.layer for one in found}
    if lost and all(one.layer is not None for one in found):
        raise ValueError(f"feature_edits: no transcoder of layer {min(lost)}")
    return {address: some[0] if len(some) == 1 else chain(*some) for address, some in edits.items()}


def feature_effects(
    f: Callable[..., Any], transcoders: Any, *, layers: tuple[int, int] | None = None, hold_patterns: bool = True
) -> Callable[..., Effects]:
    """What changes of features do to the logits and to all features.

    Args:
      f: a function `(model, tokens)` with sites.
      transcoders: as `replace_mlps` takes them.
      layers: from which layer to which, the last left out, MLP outputs are those of the prompt plus what the changed
        features write; None: nowhere. Over all layers, with patterns held, norm denominators are held too, and effects
        are those of a graph's edges.
      hold_patterns: whether heads look where they look without the change.

    Returns:
      `g(model, tokens, changes) -> Effects`, of one prompt, int `[position]`.

    Raises:
      ValueError: a range of layers that is not there, transcoders that do not fit.
    """
    return transform(_effects, (layers, hold_patterns), (f, transcoders))


def _effects(
    options: tuple[tuple[int, int] | None, bool], arrays: Any, model: Any, tokens: Array, changes: Changes
) -> Effects:
    (layers, hold_patterns), (f, transcoders) = options, arrays
    known = sites(f, model, tokens)
    found = placed(transcoders, known)
    numbers = known[found[0].written].layers or ()
    start, stop = layers or (0, 0)
    if not 0 <= start <= stop <= len(numbers):
        raise ValueError(f"feature_effects: layers={layers}: the model has layers 0 to {len(numbers) - 1}")
    frozen = frozen_sites(known) if hold_patterns else ()
    frozen = frozen if (start, stop) == (0, len(numbers)) else frozen[:1]
    names = list(dict.fromkeys(name for one in found for name in (one.read, one.written)))
    logits, acts = capture(f, (*names, *frozen))(model, tokens)

    def changed(address: str, edit: Any) -> Any:
        layer = int(address.split(".")[1])
        if not start <= layer < stop:
            return edit
        parts = edit.edits if hasattr(edit, "edits") else (edit,)
        base = acts[found[0].written][numbers.index(layer)]
        return replace(sum((part.written(acts[found[0].read]) for part in parts), base.astype(jnp.float32)))

    edits = {address: changed(address, edit) for address, edit in feature_edits(transcoders, changes).items()}
    for layer in range(start, stop):
        address = _numbered(found[0].written, layer)
        edits.setdefault(address, replace(acts[found[0].written][numbers.index(layer)]))
    run = freeze(f, frozen, {name: acts[name] for name in frozen}) if frozen else f
    run = intervene(run, edits)
    # resid_mid is read where an edit has left nobody to read its other name.
    read = found[0].read if found[0].read != "blocks.mlp_in" or "blocks.resid_mid" not in known else "blocks.resid_mid"
    after, there = capture(run, read)(model, tokens)
    return Effects(after, _pre(found, numbers, there[read]), logits, _pre(found, numbers, acts[found[0].read]))


def _pre(found: Sequence[Placed], numbers: Sequence[int], read: Array) -> tuple[Array, ...]:
    if found[0].layer is None:
        values = found[0].dictionary.pre_activations(jnp.moveaxis(read, 0, -2))
        return tuple(jnp.moveaxis(values, -2, 0))
    return tuple(one.dictionary.pre_activations(read[numbers.index(one.layer)]) for one in found)


def _features(graph: Graph, nodes: Sequence[int]) -> np.ndarray:
    features = set(graph.find("feature").tolist())
    if wrong := [node for node in nodes if int(node) not in features]:
        raise ValueError(f"change: node {wrong[0]} is no feature of the graph; look for some by find('feature')")
    return np.asarray(nodes, int)


def _numbered(name: str, layer: int | None) -> str:
    scope, rest = name.split(".", 1)
    return f"{scope}.{layer}.{rest}"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["dictionary", "position", "index", "new"],
    meta_fields=["read", "cross", "is_added"],
)
@dataclass(frozen=True)
class _Change(Intervention):
    """Adds what some features write more than they do."""

    dictionary: Any
    position: Array | None
    index: Array
    new: Array
    read: str
    cross: tuple[int, int] | None  # the layer of the features of a cross-layer transcoder, and that which is written
    is_added: bool

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset() if self.is_added else frozenset({self.read})

    def written(self, read: Array) -> Array:
        """What is added at each position, float32 `[position d]`, where a run reads `[layer position d_in]`."""
        x = read[int(self.read.split(".")[1])]
        return self._more(x, jnp.arange(x.shape[0]))

    def _more(self, x: Array, numbers: Array) -> Array:
        """`x` `[*batch position d_in]`, `numbers` int32 `[*batch position]`."""
        new = self.new.astype(jnp.float32)
        if not self.is_added:
            every = self.dictionary.encode_layer(x, self.cross[0]) if self.cross else self.dictionary.encode(x)
            new = new - every[..., self.index].astype(jnp.float32)
        if self.position is not None:
            new = jnp.where(numbers[..., None] == self.position, new, 0)
        new = jnp.broadcast_to(new, (*x.shape[:-1], len(self.index)))
        table = self.dictionary.W_dec if self.cross is None else self.dictionary.W_dec[self.cross]
        return new @ table[self.index].astype(jnp.float32)

    def __call__(self, value: Array, ctx: Context) -> Array:
        numbers = ctx.numbers("position", value.shape[ctx.axis("position")])
        x = value if self.is_added else ctx.reads[self.read]  # of which only the shape is asked
        return (value.astype(jnp.float32) + self._more(x, numbers)).astype(value.dtype)
