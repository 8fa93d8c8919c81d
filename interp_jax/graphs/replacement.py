"""A replacement model: dictionaries stand in for what they reconstruct, and their features are sites.

    y = decode(features(encode(x))) + error,    error = y_0 - decode(encode(x_0))

`x_0`, `y_0` are of the original run, so that a replacement model gives exactly the original's output where nothing is
changed. Held, the errors, attention patterns and norm denominators are those of one prompt: what the features write
reaches the logits and the encoders of later features by a linear map, which an attribution graph tells.
Ameisen et al. 2025, Circuit tracing, https://transformer-circuits.pub/2025/attribution-graphs/methods.html.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.core import Context, Intervention, SiteInfo, capture, freeze, intervene, site, sites, transform
from interp_jax.graphs.placing import Placed, placed, stacked
from interp_jax.interventions import per_layer, replace

PATTERN = "blocks.attn.pattern"


@partial(jax.tree_util.register_dataclass, data_fields=["errors", "frozen"], meta_fields=[])
@dataclass(frozen=True)
class Held:
    """What a replacement model holds of the run of one prompt. Made by `hold`.

    Attributes:
      errors: name of a written site -> what the dictionaries leave of it, `[layer *batch position d]`; all of it in a
        layer without one.
      frozen: address -> values of attention patterns and norm denominators, as `capture` gives them.
    """

    errors: Mapping[str, Array]
    frozen: Mapping[str, Array]


def replace_mlps(
    f: Callable[..., Any], transcoders: Any, held: Held | None = None, *, error_gradient: bool = False
) -> Callable[..., Any]:
    """`f` with features in the place of what dictionaries stand in for, each set of them a site.

    Args:
      f: a function `(model, tokens, ...)` with sites.
      transcoders: a sequence of one transcoder for each layer; a mapping from layers, or from addresses that they
        write, to dictionaries (then others' MLPs stay as they are, or are held whole); a cross-layer transcoder. One
        that does not say where it was trained reads `blocks.mlp_in` and writes `blocks.mlp_out`. Autoencoders stand at
        their own site.
      held: None: errors, patterns and norms are those of the run itself, whatever its prompt. Else what `hold` gave:
        a run of that prompt in which nothing of these changes.
      error_gradient: whether gradients flow through errors that are not held, so that they are those of `f`; else those
        of features alone are left.

    Returns:
      A function with the signature of `f` and the same output, with two more sites for each that is written:
      `blocks.mlp_out.features`, `[*batch position feature]`, and `blocks.mlp_out.error`, to read and to edit like any
      other.

    Raises:
      TypeError: `transcoders` are no dictionaries.
      ValueError: (when called) they do not fit the model: see `transcoders`.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries, graphs, models
      >>> from interp_jax.interventions import at, scale
      >>> model, _ = models.load("microworld", dtype="float32")
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> transcoders = [dictionaries.Transcoder.create(key, model.config.d_model, 32) for key in keys]
      >>> f, tokens = graphs.replace_mlps(models.forward, transcoders), jnp.array([1, 5, 7])
      >>> bool(jnp.allclose(f(model, tokens), models.forward(model, tokens), atol=1e-4))
      True
      >>> without = ij.intervene(f, {"blocks.2.mlp_out.features": at(scale(0.0), feature=3)})
      >>> without(model, tokens).shape
      (3, 641)
    """
    return transform(_replaced, error_gradient, (f, transcoders, held), like=f)


def hold(f: Callable[..., Any], transcoders: Any) -> Callable[..., Held]:
    """What a replacement model holds of the run of a prompt.

    Args:
      f, transcoders: as in `replace_mlps`.

    Returns:
      `g(model, tokens, ...) -> Held`.

    Raises:
      TypeError, ValueError: as `replace_mlps`; (when called) the model does not say its attention patterns.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import dictionaries, graphs, models
      >>> model, _ = models.load("microworld")
      >>> one = dictionaries.Transcoder.create(jax.random.key(0), model.config.d_model, 32)
      >>> held = graphs.hold(models.forward, {2: one})(model, jnp.array([1, 5, 7]))
      >>> held.errors["blocks.mlp_out"].shape, held.frozen["blocks.attn.pattern"].shape
      ((4, 3, 128), (4, 4, 3, 3))
    """
    return transform(_held, None, (f, transcoders))


def frozen_sites(known: Mapping[str, SiteInfo]) -> tuple[str, ...]:
    """The sites that are held, of those that a model has: attention patterns and norm denominators.

    Raises:
      ValueError: the model does not say its attention patterns.
    """
    if PATTERN not in known:
        raise ValueError(f"graphs: no site {PATTERN!r}: what a head looks at cannot be held; name it in the model")
    return (PATTERN, *(name for name in known if name.endswith(".scale")))


def _replaced(error_gradient: bool, arrays: Any, *args: Any, **kwargs: Any) -> Any:
    f, transcoders, held = arrays
    known = sites(f, *args, **kwargs)
    found = placed(transcoders, known)
    g = f if held is None else freeze(f, tuple(held.frozen), held.frozen)
    g = intervene(g, _encoding(found, known))
    return intervene(g, _decoding(found, known, held, error_gradient))(*args, **kwargs)


def _held(_: None, arrays: Any, *args: Any, **kwargs: Any) -> Held:
    f, transcoders = arrays
    known = sites(f, *args, **kwargs)
    found, frozen = placed(transcoders, known), frozen_sites(known)
    names = dict.fromkeys(name for one in found for name in (one.read, one.written))
    acts = capture(f, (*names, *frozen), output=False)(*args, **kwargs)
    errors = {}
    for name, some in groupby(sorted(found, key=lambda one: one.written), lambda one: one.written):
        left = acts[name].astype(jnp.float32)
        for one in some:
            x = acts[one.read]
            if one.layer is None:
                here = jnp.moveaxis(one.dictionary(jnp.moveaxis(x, 0, -2)), -2, 0)
                left = left - here.astype(left.dtype)
            else:
                place = (known[name].layers or ()).index(one.layer)
                out = one.dictionary(x[place]).reshape(left.shape[1:])
                left = left.at[place].add(-out.astype(left.dtype))
        errors[name] = left
    return Held(errors, {name: acts[name] for name in frozen})


def _encoding(found: list[Placed], known: Mapping[str, SiteInfo]) -> dict[str, Any]:
    """The edits that declare the features, by address."""
    edits: dict[str, Any] = {}
    for (read, _), group in _groups(found):
        first = group[0]
        if first.layer is None:
            edits[read] = _Encode(first.dictionary, first.features)
        elif (one := stacked(group, known)) is not None:
            edits[read] = per_layer(_Encode(one, first.features))
        else:
            edits |= {_numbered(read, p.layer): _Encode(p.dictionary, p.features) for p in group}
    return edits


def _decoding(found: list[Placed], known: Mapping[str, SiteInfo], held: Held | None, flows: bool) -> dict[str, Any]:
    """The edits that write what features stand for, by address."""
    edits: dict[str, Any] = {}
    for (read, written), group in _groups(found):
        first, layers = group[0], known[written].layers or ()
        errors = None if held is None else held.errors[written]
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
    offset = {axis: start for axis, start in ctx.offsets.items() if axis in (axes or ())} or None
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


@partial(jax.tree_util.register_dataclass, data_fields=["dictionary"], meta_fields=["name"])
@dataclass(frozen=True)
class _Encode(Intervention):
    """Declares the features of a value as a site, and leaves the value."""

    dictionary: Any
    name: str
    smooth = True  # type: ignore[assignment]

    def __call__(self, value: Array, ctx: Context) -> Array:
        cross = self.dictionary.is_stacked
        features = self.dictionary.encode_layer(value, ctx.layer) if cross else self.dictionary.encode(value)
        _declare(features, self.name, (*(ctx.axes or ())[: features.ndim - 1], "feature"), ctx)
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
            own = self.dictionary.output(x, self.dictionary.encode(x)).reshape(value.shape)
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
