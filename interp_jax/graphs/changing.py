"""What changes of features do in the model: as edits, and as effects on logits and on all features.

    y_l <- y_l + sum over changed features (new - activation) W_dec[to l]

What a change brings about later is then the model's own doing. Constrained to a range of layers, MLP outputs in it are
those of the prompt plus what the changed features write there, so that the change cannot undo itself; attention
patterns are held, or free. Ameisen et al. 2025, Circuit tracing ("constrained patching").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.core
import jax.numpy as jnp
import numpy as np

from interp_jax.core import Context, Intervention, capture, freeze, intervene, sites, transform
from interp_jax.graphs.changes import Changes
from interp_jax.graphs.placing import Placed, one_stack, placed, unchecked
from interp_jax.graphs.replacement import frozen_sites
from interp_jax.interventions import per_layer, replace


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
      >>> changes = graphs.Changes(jnp.array([2]), None, jnp.array([7]), jnp.array([5.0]))
      >>> edits = graphs.feature_edits(transcoders, changes)
      >>> models.generate(model, jnp.array([1, 5, 7]), 4, edits=edits).shape
      (7,)
    """
    found = unchecked(transcoders)
    if all(one.layer is not None for one in found) and not isinstance(changes.layer, jax.core.Tracer):
        if lost := set(np.asarray(changes.layer).tolist()) - {one.layer for one in found}:
            raise ValueError(f"feature_edits: no transcoder of layer {min(lost)}")
    return _edits(transcoders, found, changes, None)


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
    is_held = jnp.array([start <= number < stop for number in range(len(numbers))])
    base = _Base(acts[found[0].read], acts[found[0].written], is_held)
    edits = _edits(transcoders, found, changes, base)
    for number in range(start, stop):
        if found[0].layer is not None and numbers[number] not in {one.layer for one in found}:
            edits[_numbered(found[0].written, numbers[number])] = replace(base.written[number])
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


def _numbered(name: str, layer: int | None) -> str:
    scope, rest = name.split(".", 1)
    return f"{scope}.{layer}.{rest}"


class _Base(NamedTuple):
    """A run of the prompt: what is read and written, `[layer position d]`, and where it is held, bool `[layer]`."""

    read: Array
    written: Array
    is_held: Array


def _edits(transcoders: Any, found: Sequence[Placed], changes: Changes, base: _Base | None) -> dict[str, Any]:
    """The changes as edits of what is written, in layers that are held of what a run of the prompt wrote."""
    first = found[0]
    if first.layer is None:
        layers = range(first.dictionary.input_shape[0])
        reads = [_numbered(first.read, layer) for layer in layers]
        each = [_ChangeCross(first.dictionary, changes, base, tuple(reads[: to + 1])) for to in layers]
        return {_numbered(first.written, layer): edit for layer, edit in zip(layers, each, strict=True)}
    alike = one_stack(found) if isinstance(transcoders, Sequence) else None
    if alike is not None:
        numbers = jnp.array([one.layer for one in found], jnp.int32)
        wide = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (len(found), *jnp.shape(x))), changes)
        return {first.written: per_layer(_Change(alike, wide, numbers, base, first.read))}
    edits = {}
    for one in found:
        here = None if base is None else jax.tree.map(lambda x, layer=one.layer: x[layer], base)
        read, number = _numbered(one.read, one.layer), jnp.asarray(one.layer, jnp.int32)
        edits[_numbered(one.written, one.layer)] = _Change(one.dictionary, changes, number, here, read)
    return edits


@partial(jax.tree_util.register_dataclass, data_fields=["dictionary", "changes", "layer", "base"], meta_fields=["read"])
@dataclass(frozen=True)
class _Change(Intervention):
    """Adds what changed features of a layer write more than they do."""

    dictionary: Any
    changes: Changes
    layer: Array
    base: _Base | None
    read: str

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({self.read})

    def __call__(self, value: Array, ctx: Context) -> Array:
        x = ctx.reads[self.read]
        if self.base is not None:
            x = jnp.where(self.base.is_held, self.base.read, x)
            value = jnp.where(self.base.is_held, self.base.written, value)
        more = _more(self.changes, self.layer, self.dictionary.encode(x), _numbers(value, ctx))
        rows = self.dictionary.W_dec[self.changes.index].astype(jnp.float32)
        return (value.astype(jnp.float32) + more @ rows).astype(value.dtype)


@partial(jax.tree_util.register_dataclass, data_fields=["dictionary", "changes", "base"], meta_fields=["sources"])
@dataclass(frozen=True)
class _ChangeCross(Intervention):
    """The same of a cross-layer transcoder, whose changed features of all layers up to this one write here."""

    dictionary: Any
    changes: Changes
    base: _Base | None
    sources: tuple[str, ...]  # addresses of what is encoded, by layer

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset(self.sources)

    def __call__(self, value: Array, ctx: Context) -> Array:
        to, base = len(self.sources) - 1, self.base
        out = (value if base is None else jnp.where(base.is_held[to], base.written[to], value)).astype(jnp.float32)
        for layer, address in enumerate(self.sources):
            x = ctx.reads[address]
            x = x if base is None else jnp.where(base.is_held[layer], base.read[layer], x)
            features = self.dictionary.encode_layer(x, layer)
            more = _more(self.changes, jnp.asarray(layer, jnp.int32), features, _numbers(value, ctx))
            out = out + more @ self.dictionary.W_dec[layer, to][self.changes.index].astype(jnp.float32)
        return out.astype(value.dtype)


def _more(changes: Changes, layer: Array, features: Array, numbers: Array) -> Array:
    """By how much the changed features of a layer are changed, float32 `[*batch position feature]`."""
    now = features[..., changes.index].astype(jnp.float32)
    more = jnp.broadcast_to(changes.value.astype(jnp.float32), now.shape)
    more = more if changes.is_added else more - now
    chosen = changes.layer == layer
    if changes.position is not None:
        chosen = chosen & (numbers[..., None] == changes.position)
    return jnp.where(chosen, more, 0)


def _numbers(value: Array, ctx: Context) -> Array:
    return ctx.numbers("position", value.shape[ctx.axis("position")])
