"""`at`: confines an intervention to a layer, a position, a head, or any place along an axis."""

from dataclasses import replace
import operator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int, Num

from interp_jax.core import Context, Intervention, as_intervention, check, fill
from interp_jax.interventions.registration import Wrapper, pytree

_AXES = ("position", "head", "feature", "query", "key")


@pytree(data=("edit", "layer", "indices", "index", "mask", "start"), static=("only_layer", "axis", "meaning"))
class _At(Wrapper):
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

    def arguments(self) -> dict[str, Any]:
        layer = self.layer if self.only_layer is None else self.only_layer
        generated = {"position": "generated"} if self.meaning == "generated" else {}
        places = {"axis": self.axis, "index": self.index, "mask": self.mask}
        return {"edit": self.edit, "layer": layer, **self.indices, **generated, **places}

    def resolve(self, prompt_length: Array) -> Intervention:
        if self.mask is not None or self.meaning == "from the end":
            what = "a mask" if self.mask is not None else "a negative position"
            raise ValueError(
                f"at: {what} depends on the length of one call and means nothing in generate: use position="
            )
        here = replace(self, edit=self.edit.resolve(prompt_length))
        return replace(here, start=prompt_length) if self.meaning == "generated" else here

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
        if self.axis is not None:
            if -self.axis > value.ndim:
                raise ValueError(f"at: site {ctx.name!r} of shape {value.shape} has no axis {self.axis}")
            hits = jnp.arange(value.shape[self.axis]) == _wrapped(self.index, value.shape[self.axis])
            chosen = chosen & hits.reshape(-1, *(1,) * (-self.axis - 1))
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
    index: Int[ArrayLike, ""] | None = None,
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
      index: along `axis`, one number.
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
    only_layer = None if layer is None or isinstance(layer, (jax.Array, jax.core.Tracer)) else operator.index(layer)  # type: ignore[arg-type]
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
