"""The library's interventions: what may be done to the value at a site.

Each is a pytree, so that it is an argument of `jit` (another vector is no other compilation), can be stacked and mapped
by `vmap`, differentiated and saved. A plain callable `value -> value` is an intervention too, and may stand wherever
one is expected. Values are computed in float32 where they reduce or combine, and cast to the dtype of the site.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace as _replace_fields
from functools import partial
import inspect
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, Num

from interp_jax.core import Context, Intervention, as_intervention, check, fill, is_leaf, place

__all__ = [
    "Intervention",
    "add",
    "at",
    "chain",
    "clamp",
    "mean_ablate",
    "noise",
    "per_layer",
    "project_out",
    "replace",
    "scale",
    "via",
    "zero",
]


def _pytree(*, data: tuple[str, ...] = (), static: tuple[str, ...] = ()) -> Callable[[type], type]:
    # Fields are of any type: jax rebuilds pytrees with other things than arrays in them.
    def register(cls: type) -> type:
        return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls), list(data), list(static))

    return register


def _wide(x: Array) -> Array:
    """At least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _combine(value: Array, other: Array, fn: Callable[[Array, Array], Array]) -> Array:
    wide = _wide(value)
    return fn(wide, other.astype(wide.dtype)).astype(value.dtype)


@_pytree(data=("vector",))
class _Add(Intervention):
    vector: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return _combine(value, place(self.vector, value, ctx), operator.add)


def add(vector: Num[ArrayLike, "..."]) -> Intervention:
    """Adds a vector: `x + vector`.

    Args:
      vector: anything that broadcasts to the value, such as `[d_model]`; or one value per layer, stacked as `capture`
        returns it.

    Raises:
      ValueError: (when applied) the vector does not broadcast to the value of the site.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import add
      >>> f = lambda x: ij.site(x, "x")
      >>> ij.intervene(f, {"x": add(jnp.array([1.0, 2.0]))})(jnp.zeros(2)).tolist()
      [1.0, 2.0]
    """
    return _Add(jnp.asarray(vector))


@_pytree(data=("value",))
class _Replace(Intervention):
    value: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return place(self.value, value, ctx).astype(value.dtype)


def replace(value: Num[ArrayLike, "..."]) -> Intervention:
    """Puts another value in place: activation patching.

    Args:
      value: anything that broadcasts to the value of the site, or one value per layer `[layer ...]`, stacked as
        `capture` returns it, of which each layer takes its own.

    Raises:
      ValueError: (when applied) the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import replace
      >>> f = lambda x: ij.site(x, "x").sum()
      >>> ij.intervene(f, {"x": replace(jnp.ones(3))})(jnp.zeros(3)).item()
      3.0
    """
    return _Replace(jnp.asarray(value))


def zero() -> Intervention:
    """Puts zeros in place: zero ablation.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.zero()})(jnp.ones(2)).tolist()
      [0.0, 0.0]
    """
    return _Replace(jnp.zeros((), jnp.float32))


@_pytree(data=("mean",))
class _MeanAblate(Intervention):
    mean: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        if self.mean is not None:
            return place(self.mean, value, ctx).astype(value.dtype)
        over = [ctx.axis(name) for name in ("batch", "position") if name in (ctx.axes or ())]
        if not over:
            raise ValueError(
                f"mean_ablate: site {ctx.name!r} has no batch or position axis to average over; "
                "pass the mean: mean_ablate(mean)"
            )
        return jnp.broadcast_to(_wide(value).mean(tuple(over), keepdims=True), value.shape).astype(value.dtype)


def mean_ablate(mean: Num[ArrayLike, "..."] | None = None) -> Intervention:
    """Puts a mean in place: mean ablation.

    Args:
      mean: anything that broadcasts to the value, such as the mean over a data set `[d_model]`, or one per layer,
        stacked. None: the mean over the `batch` and `position` axes of the value itself.

    Raises:
      ValueError: (when applied) without `mean`, at a site that has neither axis.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x, "x", axes=("position",))
      >>> ij.intervene(f, {"x": ij.interventions.mean_ablate()})(jnp.array([1.0, 3.0])).tolist()
      [2.0, 2.0]
    """
    return _MeanAblate(None if mean is None else jnp.asarray(mean))


@_pytree(data=("factor",))
class _Scale(Intervention):
    factor: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return _combine(value, place(self.factor, value, ctx), operator.mul)


def scale(factor: Num[ArrayLike, "..."]) -> Intervention:
    """Multiplies by a factor that broadcasts to the value.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.scale(2.0)})(jnp.ones(2)).tolist()
      [2.0, 2.0]
    """
    return _Scale(jnp.asarray(factor))


@_pytree(data=("direction",))
class _ProjectOut(Intervention):
    direction: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        wide = _wide(value)
        direction = self.direction.astype(wide.dtype)
        if direction.ndim == 2 and ctx.index:
            direction = direction[ctx.index[-1]]
        if direction.ndim != 1 or direction.shape[-1] != value.shape[-1]:
            raise ValueError(
                f"project_out: site {ctx.name!r} has a last axis of {value.shape[-1]}, "
                f"the direction has shape {self.direction.shape}"
            )
        norm = jnp.linalg.norm(direction)
        unit = direction / jnp.where(norm == 0, jnp.ones_like(norm), norm)
        along = jnp.einsum("...d,d->...", wide, unit, precision=jax.lax.Precision.HIGHEST)
        return (wide - along[..., None] * unit).astype(value.dtype)


def project_out(direction: Float[ArrayLike, "*layer d"]) -> Intervention:
    """Removes the component along a direction: `x - r (r . x)` with `r` the direction at unit norm.

    Directional ablation of Arditi et al. 2024, "Refusal in language models is mediated by a single direction".

    Args:
      direction: `[d]` of any norm (a zero direction removes nothing), or one per layer `[layer d]`.

    Raises:
      ValueError: (when applied) the last axis of the site has another size.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x, "x")
      >>> ij.intervene(f, {"x": ij.interventions.project_out(jnp.array([0.0, 2.0]))})(jnp.ones(2)).tolist()
      [1.0, 0.0]
    """
    return _ProjectOut(jnp.asarray(direction))


@_pytree(data=("low", "high"))
class _Clamp(Intervention):
    low: Any
    high: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        bounds = [None if b is None else place(b, value, ctx).astype(value.dtype) for b in (self.low, self.high)]
        return jnp.clip(value, *bounds)


def clamp(low: Num[ArrayLike, "..."] | None = None, high: Num[ArrayLike, "..."] | None = None) -> Intervention:
    """Limits values to `[low, high]`; None is no limit. To set a feature to a value, use `at(replace(v), feature=i)`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.clamp(high=0.5)})(jnp.ones(2)).tolist()
      [0.5, 0.5]
    """
    return _Clamp(*(None if bound is None else jnp.asarray(bound) for bound in (low, high)))


@_pytree(data=("key", "scale"))
class _Noise(Intervention):
    key: Any
    scale: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        key = self.key
        for i in ctx.index:
            key = jax.random.fold_in(key, i)
        drawn = jax.random.normal(key, value.shape, _wide(value).dtype)
        return _combine(value, drawn * place(self.scale, value, ctx).astype(drawn.dtype), operator.add)


def noise(key: Key[Array, ""], scale: Num[ArrayLike, "..."] = 1.0) -> Intervention:
    """Adds Gaussian noise of standard deviation `scale`, another draw at each layer (causal tracing, ROME 2022).

    Args:
      key: a `jax.random.key`. Under `vmap` every example gets the same draw: map over keys for others.
      scale: anything that broadcasts to the value.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> noisy = ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.noise(jax.random.key(0), 3.0)})
      >>> noisy(jnp.zeros(2)).shape
      (2,)
    """
    return _Noise(key, jnp.asarray(scale))


@_pytree(data=("edits",))
class _Chain(Intervention):
    edits: Any

    @property
    def layers(self) -> frozenset[int] | None:  # type: ignore[override]
        each = [edit.layers for edit in self.edits]
        return None if None in each or not each else frozenset().union(*each)  # type: ignore[arg-type]

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset().union(*(edit.reads for edit in self.edits))

    def __call__(self, value: Array, ctx: Context) -> Array:
        for edit in self.edits:
            value = check(edit(value, ctx), value, ctx.name)
        return value


def chain(*edits: Any) -> Intervention:
    """Interventions one after another, as `optax.chain`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import add, chain, scale
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": chain(add(1.0), scale(3.0))})(jnp.ones(2)).tolist()
      [6.0, 6.0]
    """
    return _Chain(tuple(as_intervention(edit) for edit in edits))


@_pytree(data=("edit",))
class _Wrapper(Intervention):
    """An intervention that acts through another."""

    edit: Any

    @property
    def layers(self) -> frozenset[int] | None:  # type: ignore[override]
        return self.edit.layers

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return self.edit.reads


@_pytree(data=("edit",))
class _PerLayer(_Wrapper):
    def __call__(self, value: Array, ctx: Context) -> Array:
        if not ctx.index:
            raise ValueError(f"per_layer: site {ctx.name!r} stands in no loop over layers")
        here = jax.tree.map(partial(_of_layer, ctx=ctx), self.edit)
        return here(value, ctx)


def _of_layer(leaf: Array, ctx: Context) -> Array:
    if leaf.ndim == 0:
        raise ValueError(f"per_layer: an array of the edit of site {ctx.name!r} has no leading layer axis")
    return jax.lax.dynamic_index_in_dim(leaf, ctx.index[-1], 0, keepdims=False)


def per_layer(edit: Any) -> Intervention:
    """An intervention whose arrays all have a leading layer axis: each layer takes its own part.

    Args:
      edit: an intervention with arrays `[layer ...]`, such as `add(vectors)` with vectors `[layer d_model]`.

    Raises:
      ValueError: (when applied) at a site outside any loop over layers, or an array without the axis.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import add, per_layer
      >>> f = lambda x: ij.site(ij.site(x, "x", layer=0), "x", layer=1)
      >>> ij.intervene(f, {"x": per_layer(add(jnp.array([1.0, 10.0])))})(jnp.zeros(2)).tolist()
      [11.0, 11.0]
    """
    return _PerLayer(as_intervention(edit))


@_pytree(data=("fn",), static=("sources", "plain", "named"))
class _Via(Intervention):
    sources: tuple[tuple[str, str], ...]
    fn: Any
    plain: Callable[..., Array] | None  # a function without arrays is no pytree: it is static
    named: bool

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset(address for _, address in self.sources)

    def __call__(self, value: Array, ctx: Context) -> Array:
        fn = self.fn if self.plain is None else self.plain
        values = {key: ctx.reads[address] for key, address in self.sources}
        return fn(value, **values) if self.named else fn(value, values)


def via(sources: Mapping[str, str], fn: Callable[..., Array]) -> Intervention:
    """An edit that also sees values of sites met earlier, in this layer or an earlier one: transcoders.

    Args:
      sources: key -> address. An address without a number means the same layer.
      fn: a function, or a callable pytree, called as `fn(value, **values)` where it takes the keys as keywords, as in
        `via({"x": "blocks.mlp_in"}, lambda out, x: ...)`; otherwise as `fn(value, values)` with a dictionary.

    Raises:
      ValueError: (when applied) a source is not met before the edited site.
      TypeError: `fn` can be called in neither way.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import via
      >>> f = lambda x: ij.site(ij.site(x, "in") * 5, "out")
      >>> ij.intervene(f, {"out": via({"x": "in"}, lambda out, x: out - x)})(jnp.ones(2)).tolist()
      [4.0, 4.0]
    """
    named = _accepts(fn, **dict.fromkeys(sources))
    if not named and not _accepts(fn, {}):
        raise TypeError(f"via: fn must take (value, {', '.join(sources)}) or (value, values)")
    return _Via(tuple(sources.items()), *((None, fn) if is_leaf(fn) else (fn, None)), named)


def _accepts(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    try:
        inspect.signature(fn).bind(None, *args, **kwargs)
    except TypeError:
        return False
    return True


_AXES = ("position", "head", "feature", "query", "key")


@_pytree(data=("edit", "layer", "indices", "index", "mask", "start"), static=("only_layer", "axis", "meaning"))
class _At(_Wrapper):
    layer: Any  # traced; a static one is `only_layer`
    indices: Any
    index: Any
    mask: Any
    start: Any  # first position of the generated text
    only_layer: int | None
    axis: int | None
    meaning: str  # what `position` means: "position", "from the end" or "generated"

    @property
    def layers(self) -> frozenset[int] | None:  # type: ignore[override]
        if self.only_layer is None:
            return self.edit.layers
        return frozenset({self.only_layer}) & (self.edit.layers or {self.only_layer})

    def resolve(self, prompt_length: Array) -> Intervention:
        if self.mask is not None or self.meaning == "from the end":
            what = "a mask" if self.mask is not None else "a negative position"
            raise ValueError(f"at: {what} depends on the length of one call and means nothing in generate: use position=")
        here = _replace_fields(self, edit=self.edit.resolve(prompt_length))
        return _replace_fields(here, start=prompt_length) if self.meaning == "generated" else here

    def __call__(self, value: Array, ctx: Context) -> Array:
        if self.only_layer is not None and isinstance(ctx.layer, int) and ctx.layer != self.only_layer:
            return value
        edited = check(self.edit(value, ctx), value, ctx.name)
        chosen = self._layer_chosen(ctx)
        for name, index in self.indices.items():
            chosen = chosen & self._along(name, index, value, ctx)
        if self.meaning == "generated":
            if self.start is None:
                raise ValueError('at: position="generated" has a meaning only in models.generate(..., edits=...)')
            positions = _coordinates("position", value, ctx)
            chosen = chosen & _spread(positions >= self.start[..., None], "position", value, ctx)
        if self.index is not None:
            hits = jnp.arange(value.shape[self.axis]) == _wrapped(self.index, value.shape[self.axis])[..., None]
            chosen = chosen & jnp.expand_dims(hits, tuple(range(hits.ndim, hits.ndim - self.axis - 1)))
        if self.mask is not None:
            chosen = chosen & _spread(self.mask.astype(bool), "position", value, ctx)
        return jnp.where(fill(chosen, value), edited, value)

    def _layer_chosen(self, ctx: Context) -> Array:
        wanted = self.layer if self.only_layer is None else jnp.asarray(self.only_layer)
        if wanted is None:
            return jnp.asarray(True)
        if ctx.layer is None:
            raise ValueError(f"at(layer=...): site {ctx.name!r} stands in no loop over layers")
        return jnp.asarray(ctx.layer) == wanted

    def _along(self, name: str, index: Array, value: Array, ctx: Context) -> Array:
        size = value.shape[ctx.axis(name)]
        if name == "position" and self.meaning == "from the end":
            return _spread(jnp.arange(-size, 0) == index[..., None], name, value, ctx)
        index = index if name in ("position", "query", "key") else _wrapped(index, size)
        return _spread(_coordinates(name, value, ctx) == index[..., None], name, value, ctx)


def _wrapped(index: Array, size: int) -> Array:
    return jnp.where(index < 0, index + size, index)


def _coordinates(name: str, value: Array, ctx: Context) -> Array:
    """`[size]` or `[batch size]`: the number that each place along an axis goes by; positions skip padding."""
    places = jnp.arange(value.shape[ctx.axis(name)])
    if name not in ("position", "query", "key"):
        return places
    offset = ctx.offsets.get(name, ctx.offset)
    return places if offset is None else places + offset[..., None]


def _spread(hits: Array, name: str, value: Array, ctx: Context) -> Array:
    """Puts a mask `[size]` or `[batch size]` on the axes of a value."""
    shape = [1] * value.ndim
    shape[ctx.axis(name)] = hits.shape[-1]
    if hits.ndim == 2:
        shape[ctx.axis("batch")] = hits.shape[0]
    allowed = [(1, size) for size in value.shape]
    if hits.ndim > 2 or any(n not in sizes for n, sizes in zip(shape, allowed, strict=True)):
        raise ValueError(
            f"at: site {ctx.name!r} has shape {value.shape} with axes {ctx.axes}; "
            f"a choice of {name} of shape {hits.shape} does not fit: give one per example, [batch]"
        )
    return hits.reshape(shape)


def at(
    edit: Any,
    *,
    layer: Int[ArrayLike, ""] | None = None,
    position: str | Int[ArrayLike, "..."] | None = None,
    head: Int[ArrayLike, "..."] | None = None,
    feature: Int[ArrayLike, "..."] | None = None,
    query: Int[ArrayLike, "..."] | None = None,
    key: Int[ArrayLike, "..."] | None = None,
    axis: int | None = None,
    index: Int[ArrayLike, "..."] | None = None,
    mask: Bool[ArrayLike, "..."] | Num[ArrayLike, "..."] | None = None,
) -> Intervention:
    """Confines an intervention to a layer, a position, a head, ...: elsewhere the value stays.

    Axes are found by their names; every choice must hold. Indices may be traced and mapped over; a choice may be one
    per example, `[batch]`.

    Args:
      edit: an intervention or a callable; it sees the whole value.
      layer: a static int (a scan over layers is cut there, so that earlier layers are shared under `vmap`) or a traced
        int32 `[]`.
      position: counted in real tokens from 0, padding skipped; a static negative one counts places from the end of
        the axis; "generated": after the prompt, in `models.generate`.
      head: along the axis of that name; negative counts from its end.
      feature: likewise.
      query: like `position`, along attention's query axis.
      key: like `position`, along attention's key axis.
      axis: negative number of an axis without a name, with `index`.
      index: along `axis`.
      mask: `[batch position]` or `[position]`, true where the edit applies; places, not positions.

    Raises:
      ValueError: `axis` without `index`, an unknown word for `position`; (when applied) the site has no such axis or
        layer, or a choice of another batch size.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import at, zero
      >>> f = lambda x: ij.site(x, "x", axes=("position", "d_model"))
      >>> ij.intervene(f, {"x": at(zero(), position=1)})(jnp.ones((3, 2))).tolist()
      [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    """
    edit = as_intervention(edit)
    if (axis is None) != (index is None) or (axis is not None and axis >= 0):
        raise ValueError("at: axis= and index= go together, and axis is negative, counted from the right")
    meaning = "position"
    if isinstance(position, str):
        if position != "generated":
            raise ValueError(f'at: position={position!r} is neither an index nor "generated"')
        meaning, position = "generated", None
    elif isinstance(position, int) and position < 0:
        meaning = "from the end"
    only_layer = None if layer is None or isinstance(layer, (jax.Array, jax.core.Tracer)) else operator.index(layer)
    if only_layer is not None and edit.layers is not None and only_layer not in edit.layers:
        raise ValueError(f"at: layer {only_layer} of an edit that is confined to layers {sorted(edit.layers)}")
    chosen = dict(zip(_AXES, (position, head, feature, query, key), strict=True))
    return _At(
        edit=edit,
        layer=layer if only_layer is None else None,  # type: ignore[arg-type]
        indices={name: jnp.asarray(value) for name, value in chosen.items() if value is not None},
        index=None if index is None else jnp.asarray(index),
        mask=None if mask is None else jnp.asarray(mask),
        start=None,
        only_layer=only_layer,
        axis=axis,
        meaning=meaning,
    )
