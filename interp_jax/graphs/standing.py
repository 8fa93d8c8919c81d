"""The edits of a replacement model: features are declared where they are read, and written where they stand in.

y = decode(features(encode(x))) + error,    error = y_0 - decode(encode(x_0))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.core import Context, Intervention, SiteInfo, site
from interp_jax.graphs.placing import Placed, stacked
from interp_jax.interventions import per_layer, replace


def encoding(found: list[Placed], known: Mapping[str, SiteInfo]) -> dict[str, Any]:
    """The edits that declare the features, by address."""
    edits: dict[str, Any] = {}
    for (read, _), group in _groups(found):
        first = group[0]
        if first.layer is None:
            edits[read] = _Encode(first.dictionary, first.written)
        elif (one := stacked(group, known)) is not None:
            edits[read] = per_layer(_Encode(one, first.written))
        else:
            edits |= {_numbered(read, p.layer): _Encode(p.dictionary, p.written) for p in group}
    return edits


def patterns(heads: list[Placed], known: Mapping[str, SiteInfo]) -> list[str]:
    """The addresses of where heads look."""
    found = []
    for _, group in _groups(heads):
        alike = stacked(group, known) is not None
        found += [group[0].pattern] if alike else [_numbered(one.pattern, one.layer) for one in group]
    return found


def decoding(
    found: list[Placed], known: Mapping[str, SiteInfo], held: Mapping[str, Array] | None, *, flows: bool
) -> dict[str, Any]:
    """The edits that write what features stand for, by address.

    Args:
      found: the dictionaries.
      known: the catalogue of the model's sites.
      held: the errors of each site that is written, `[layer *batch position d]`; None: those of the run itself.
      flows: whether gradients flow through errors that are not held.
    """
    edits: dict[str, Any] = {}
    for (read, written), group in _groups(found):
        first, layers = group[0], known[written].layers or ()
        errors = None if held is None else held[written]
        source = read if first.dictionary.reads_pair else None
        if first.layer is None:
            for place, layer in enumerate(layers):
                reads = tuple((_numbered(read, m), _numbered(first.features, m)) for m in layers[: place + 1])
                error = None if errors is None else errors[place]
                edits[_numbered(written, layer)] = _DecodeCross(first.dictionary, error, reads, place, flows)
        elif (one := stacked(group, known)) is not None:
            edits[written] = per_layer(_Decode(one, errors, source, first.features, flows))
        else:
            for p in group:
                error = None if errors is None else errors[layers.index(p.layer)]
                reading = None if source is None else _numbered(source, p.layer)
                features = _numbered(p.features, p.layer)
                edits[_numbered(written, p.layer)] = _Decode(p.dictionary, error, reading, features, flows)
            if errors is not None and first.dictionary.reads_pair:
                rest = set(layers) - {p.layer for p in group}
                edits |= {_numbered(written, layer): replace(errors[layers.index(layer)]) for layer in rest}
    return edits


def _error(error: Array, flows: bool) -> Array:
    return error if flows else jax.lax.stop_gradient(error)


def _declare(value: Array, name: str, axes: tuple[str, ...] | None, ctx: Context) -> Array:
    """A site beside the one that is edited, with its layer and its positions."""
    layer = ctx.layer if isinstance(ctx.layer, int) else None
    starts = {axis: ctx.offset(axis) for axis in axes or () if axis in ("position", "query", "key")}
    offset = {axis: start for axis, start in starts.items() if start is not None} or None
    options = {"length": ctx.length, "open_ended": ctx.open_ended, "marks": ctx.marks}
    return site(value, name, layer=layer, axes=axes, offset=offset, **options)


def _groups(found: list[Placed]) -> list[tuple[tuple[str, str], list[Placed]]]:
    """The dictionaries of each pair of sites."""
    groups: dict[tuple[str, str], list[Placed]] = {}
    for one in found:
        groups.setdefault((one.read, one.written), []).append(one)
    return list(groups.items())


def _numbered(name: str, layer: int | None) -> str:
    scope, rest = name.split(".", 1)
    return f"{scope}.{layer}.{rest}"


@partial(jax.tree_util.register_dataclass, data_fields=["dictionary"], meta_fields=["written"])
@dataclass(frozen=True)
class _Encode(Intervention):
    """Declares the features of a value as a site, and where they look if they are heads, and leaves the value."""

    dictionary: Any
    written: str
    smooth = True  # type: ignore[assignment]

    def __call__(self, value: Array, ctx: Context) -> Array:
        one, axes = self.dictionary, ctx.axes or ()
        if one.is_stacked:
            features = one.encode_layer(value, ctx.layer)
        elif one.reads_sequence:
            looks = (*axes[:-2], "group", "query", "key")
            pattern = _declare(one.pattern_site(value, ctx), f"{self.written}.pattern", looks, ctx)
            features = one.activate(one.pre_activations(value, pattern))
        else:
            features = one.encode(value)
        _declare(features, f"{self.written}.features", (*axes[: features.ndim - 1], "feature"), ctx)
        return value


@partial(
    jax.tree_util.register_dataclass, data_fields=["dictionary", "error"], meta_fields=["read", "features", "flows"]
)
@dataclass(frozen=True)
class _Decode(Intervention):
    """Puts what features stand for in the place of a value, and adds the error."""

    dictionary: Any
    error: Any
    read: str | None  # address of what was encoded; None: the value itself
    features: str
    flows: bool  # whether a gradient goes through an error that is not held

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset({self.features, *(() if self.read is None else (self.read,))})

    def __call__(self, value: Array, ctx: Context) -> Array:
        x = value if self.read is None else ctx.reads[self.read]
        out = self.dictionary.output(x, ctx.reads[self.features]).reshape(value.shape).astype(jnp.float32)
        error = self.error
        if error is None:
            own = self.dictionary.output(x, self.dictionary.encode_site(x, ctx)).reshape(value.shape)
            error = _error(value.astype(jnp.float32) - own.astype(jnp.float32), self.flows)
        # Not in the site's dtype: in bfloat16 the sum would not be what the site held.
        error = _declare(error.astype(out.dtype), f"{ctx.name}.error", ctx.axes, ctx)
        return (out + error).astype(value.dtype)


@partial(
    jax.tree_util.register_dataclass, data_fields=["dictionary", "error"], meta_fields=["sources", "place", "flows"]
)
@dataclass(frozen=True)
class _DecodeCross(Intervention):
    """The same of one layer of a cross-layer transcoder, whose features are those of all layers up to it."""

    dictionary: Any
    error: Any
    sources: tuple[tuple[str, str], ...]  # addresses of what was encoded and of the features, by layer
    place: int
    flows: bool

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset(address for pair in self.sources for address in pair)

    def __call__(self, value: Array, ctx: Context) -> Array:
        features = [ctx.reads[address] for _, address in self.sources]
        out = self.dictionary.decode_layer(features, self.place).astype(jnp.float32)
        error = self.error
        if error is None:
            own = [self.dictionary.encode_layer(ctx.reads[read], m) for m, (read, _) in enumerate(self.sources)]
            there = self.dictionary.decode_layer(own, self.place).astype(jnp.float32)
            error = _error(value.astype(jnp.float32) - there, self.flows)
        # Not in the site's dtype: in bfloat16 the sum would not be what the site held.
        error = _declare(error.astype(out.dtype), f"{ctx.name}.error", ctx.axes, ctx)
        return (out + error).astype(value.dtype)
