"""`at`: confines an intervention to a layer, a position, a head, or any place along an axis."""

from collections.abc import Sequence
import operator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int, Num
import numpy as np

from interp_jax.core import COUNTED, Context, Intervention, as_intervention, choose, within
from interp_jax.interventions.registration import Wrapper, pytree

_AXES = ("position", "head", "feature", "query", "key")
PARTS = ("prompt", "generated")  # of a text that is being generated
_NO_END = 1 << 31
Index = Int[ArrayLike, "..."] | Sequence[int]


@pytree(data=("edit", "layer", "indices", "index", "mask"), static=("only_layer", "axis", "part"))
class _At(Wrapper):
    layer: Any  # traced; a static one is `only_layer`
    indices: Any
    index: Any
    mask: Any
    only_layer: int | None
    axis: int | None
    part: str | None  # of PARTS

    @property
    def positions(self) -> tuple[Any, ...]:  # type: ignore[override]
        return (*(index for name, index in self.indices.items() if name in COUNTED), *super().positions)

    def confine(self, layers: frozenset[int], ctx: Context) -> frozenset[int]:
        if self.only_layer is None:
            if self.layer is not None and layers:
                self._check_layer(layers, ctx)
            return super().confine(layers, ctx)
        n = len(ctx.layers)
        layer = ctx.layers[self.only_layer] if -n <= self.only_layer < 0 else self.only_layer
        if layer in ctx.layers and layer not in layers:
            raise ValueError(
                f"site {ctx.name!r}: at(layer={self.only_layer}) chooses nothing: the address, or another choice "
                f"around it, is confined to layer {', '.join(map(str, sorted(layers)))}"
            )
        return super().confine(frozenset({layer}), ctx)

    def look(self, value: Array, ctx: Context) -> None:
        for name, index in self.indices.items():
            size, what = value.shape[ctx.axis(name)], f"at: site {ctx.name!r}: {name}"
            if ctx.end(name, size) is None:
                within(index, range(0, _NO_END), f"{what} (the sequence goes on, so that none counts from its end)")
            else:
                within(index, range(-size, size), what)
        if self.axis is not None:
            if -self.axis > value.ndim:
                raise ValueError(f"at: site {ctx.name!r} of shape {value.shape} has no axis {self.axis}")
            size = value.shape[self.axis]
            within(self.index, range(-size, size), f"at: site {ctx.name!r}, axis={self.axis}: index")
        super().look(value, ctx)

    def choices(self) -> dict[str, Any]:
        """What is chosen along each axis: indices, or one of PARTS."""
        places = {} if self.axis is None else {f"axis={self.axis}, index": self.index}
        return self.indices | places | ({"position": self.part} if self.part else {})

    def arguments(self) -> dict[str, Any]:
        layer = self.layer if self.only_layer is None else self.only_layer
        part = {"position": self.part} if self.part else {}
        places = {"axis": self.axis, "index": self.index, "mask": self.mask}
        return {"edit": self.edit, "layer": layer, **self.indices, **part, **places}

    def __call__(self, value: Array, ctx: Context) -> Array:
        if not self._visited(ctx):
            return value
        self.look(value, ctx)
        chosen = self._chosen(value, ctx)
        return choose(chosen, self.edit, value, ctx)

    def _visited(self, ctx: Context) -> bool:
        """Whether the edit may act here, as far as that is known when tracing."""
        if self.only_layer is None or not isinstance(ctx.layer, int):
            return True
        return ctx.layer == (ctx.layers[self.only_layer] if self.only_layer < 0 else self.only_layer)

    def _chosen(self, value: Array, ctx: Context) -> Array:
        """Where the edit applies, bool, broadcastable to the value."""
        chosen = self._layer_chosen(ctx)
        for name, index in self.indices.items():
            chosen = chosen & _along(name, index, value, ctx)
        if self.part:
            chosen = chosen & _in_part(self.part, value, ctx)
        if self.axis is not None:
            if self.index.ndim:
                raise ValueError(f"at: site {ctx.name!r}: index= is one number, not of shape {self.index.shape}")
            size = value.shape[self.axis]
            hits = jnp.arange(size) == _from_end(self.index, size)
            chosen = chosen & hits.reshape(-1, *(1,) * (-self.axis - 1))
        if self.mask is not None:
            if ctx.open_ended:
                raise ValueError(
                    f"at: site {ctx.name!r}: a mask is of one call, not of a text that is generated: use position="
                )
            chosen = chosen & ctx.spread(jnp.asarray(self.mask).astype(bool), "position", value)
        return chosen

    def _layer_chosen(self, ctx: Context) -> Array:
        wanted = self.layer if self.only_layer is None else jnp.asarray(self.only_layer)
        if wanted is None:
            return jnp.asarray(True)
        if ctx.layer is None:
            raise ValueError(f"at(layer=...): site {ctx.name!r} stands in no loop over layers")
        if wanted.ndim:
            raise ValueError(f"at: site {ctx.name!r}: layer= is one number, not of shape {wanted.shape}")
        self._check_layer(frozenset(ctx.layers), ctx)
        return jnp.asarray(ctx.layer) == jnp.where(wanted < 0, jnp.asarray(ctx.layers)[wanted], wanted)

    def _check_layer(self, layers: frozenset[int], ctx: Context) -> None:
        """Checks a layer whose value may only be known later."""
        if self.only_layer is None:
            numbers = {k for i, k in enumerate(ctx.layers) if k in layers}
            ends = {i - len(ctx.layers) for i, k in enumerate(ctx.layers) if k in layers}
            within(self.layer, (*sorted(ends), *sorted(numbers)), f"at: site {ctx.name!r}: layer")


def _in_part(part: str, value: Array, ctx: Context) -> Array:
    """Whether each position is in the prompt, or in what was generated, broadcastable to the value."""
    if "prompt" not in ctx.marks:
        raise ValueError(f'at: position="{part}" has a meaning only in models.generate(..., edits=...)')
    numbers = ctx.numbers("position", value.shape[ctx.axis("position")])
    generated = numbers >= ctx.marks["prompt"][..., None]
    return ctx.spread(generated if part == "generated" else (numbers >= 0) & ~generated, "position", value)


def _along(name: str, index: Any, value: Array, ctx: Context) -> Array:
    """Whether each place along a named axis is chosen, broadcastable to the value."""
    size = value.shape[ctx.axis(name)]
    end = ctx.end(name, size)
    index = jnp.asarray(index) if end is None else _from_end(index, end)
    if name in COUNTED:
        hits = (ctx.numbers(name, size) == index[..., None]) & (index >= 0)[..., None]
        return ctx.spread(hits, name, value)
    if index.ndim > 1:
        raise ValueError(
            f"at: site {ctx.name!r}: {name} is one number or a list of them for every example, "
            f"not of shape {index.shape}"
        )
    return ctx.spread((jnp.arange(size) == index.reshape(-1, 1)).any(0), name, value)


def _from_end(index: Any, size: Any) -> Array:
    index = jnp.asarray(index)
    return jnp.where(index < 0, index + size, index)


def _numbers(name: str, index: Any) -> Any:
    """An index whose value is known stays with numpy, where it can be looked at in any trace."""
    if index is None:
        return None
    if not hasattr(index, "dtype"):
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(index))
        index = jnp.asarray(index) if traced else np.asarray(index)
    elif not isinstance(index, (jax.Array, jax.ShapeDtypeStruct)):
        index = np.asarray(index)
    if 0 in index.shape:
        return jnp.zeros(index.shape, jnp.int32)
    if not jnp.issubdtype(index.dtype, jnp.integer):
        instead = "; a mask of positions is mask=" if name == "position" else "; give those of a mask by flatnonzero"
        raise TypeError(
            f"at: {name}= takes integers, not {index.dtype}{instead if index.dtype == bool else ''}: {index!s:.40}"
        )
    return index


def _mask(mask: Any) -> Any:
    if mask is None or isinstance(mask, jax.Array):
        return mask
    known = np.asarray(mask)
    if known.dtype.kind not in "biuf" or not known.ndim:
        raise TypeError(f"at: mask= is an array [batch position] or [position] of booleans, not {mask!r:.40}")
    return known


def _integer(name: str, x: Any, instead: str = "") -> int:
    try:
        if isinstance(x, (bool, np.bool_)) or np.ndim(x):
            raise TypeError
        return operator.index(x)
    except TypeError:  # a tracer's error is one, too
        raise TypeError(f"at: {name}= takes one integer, not {x!r:.40}{instead}") from None


def _check_agreement(new: "_At", edit: Any) -> None:
    """Raises ValueError where a choice and one inside it have no place in common, as far as that is known already."""
    if isinstance(edit, _At):
        theirs = edit.choices()
        for name, index in new.choices().items():
            if name in theirs and _disjoint(index, theirs[name]):
                raise ValueError(
                    f"at: {name}={_said(index)} of an edit that is confined to {name}={_said(theirs[name])}: no place "
                    "is in both; chain two edits for both places"
                )
    for inner in edit.inner:
        _check_agreement(new, inner)


def _disjoint(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and isinstance(b, str) and a != b
    if any(isinstance(x, (jax.core.Tracer, jax.ShapeDtypeStruct)) or not x.size for x in (a, b)):
        return False
    a, b = np.asarray(a), np.asarray(b)
    same_end = (a < 0).all() and (b < 0).all() or (a >= 0).all() and (b >= 0).all()
    return bool(same_end) and not np.isin(a, b).any()


def _said(index: Any) -> Any:
    return repr(index) if isinstance(index, str) else np.asarray(index).tolist()


def at(
    edit: Any,
    *,
    layer: Int[ArrayLike, ""] | None = None,
    position: str | Index | None = None,
    head: Index | None = None,
    feature: Index | None = None,
    query: Index | None = None,
    key: Index | None = None,
    axis: int | None = None,
    index: Int[ArrayLike, ""] | None = None,
    mask: Bool[ArrayLike, "..."] | Num[ArrayLike, "..."] | Sequence[Any] | None = None,
) -> Intervention:
    """Confines an intervention to a layer, a position, a head, ...: elsewhere the value stays.

    Axes are found by their names; every choice must hold. Indices may be traced and mapped over. A negative one counts
    from the end. Where the edit is not applied, the value and its derivative stay what they are.

    Args:
      edit: an intervention or a callable; it sees the whole value.
      layer: a static int (a scan over layers is cut there, so that earlier layers are shared under `vmap`) or a traced
        int32 `[]`.
      position: counted in real tokens from 0, padding skipped, from the last real token if negative; one number, or
        one per example, `[batch]`; in `models.generate`, "prompt" and "generated" are the parts of a text.
      head: along the axis of that name: one number, or a list of several, which are chosen in every example.
      feature: likewise.
      query: like `position`, along attention's query axis.
      key: like `position`, along attention's key axis.
      axis: negative number of an axis without a name, with `index`.
      index: along `axis`, one number.
      mask: `[batch position]` or `[position]`, true where the edit applies; places, not positions.

    Raises:
      TypeError: an index that is no integer, a mask that is no array.
      ValueError: `axis` without `index`, an unknown word for `position`, a choice that leaves nothing of another inside
        the edit; (when applied) the site has no such axis or
        layer, a choice of another batch size, an index that is out of range (unless another transform traces it).

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import at, zero
      >>> f = lambda x: ij.site(x, "x", axes=("position", "d_model"))
      >>> ij.intervene(f, {"x": at(zero(), position=1)})(jnp.ones((3, 2))).tolist()
      [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    """
    edit = as_intervention(edit)
    if axis is not None:
        axis = _integer("axis", axis)
    if (axis is None) != (index is None) or (axis is not None and axis >= 0):
        raise ValueError("at: axis= and index= go together, and axis is negative, counted from the right")
    part = position if isinstance(position, str) else None
    if part is not None:
        if part not in PARTS:
            raise ValueError(f'at: position={position!r} is neither an index nor "prompt" or "generated"')
        position = None
    only_layer = None
    if layer is not None and not isinstance(layer, (jax.Array, jax.ShapeDtypeStruct)):
        only_layer = _integer("layer", layer, ": chain several edits for several layers")
    chosen = dict(zip(_AXES, (position, head, feature, query, key), strict=True))
    made = _At(
        edit=edit,
        layer=_numbers("layer", layer) if only_layer is None else None,
        indices={name: _numbers(name, value) for name, value in chosen.items() if value is not None},
        index=_numbers("index", index),
        mask=_mask(mask),
        only_layer=only_layer,
        axis=axis,
        part=part,
    )
    _check_agreement(made, edit)
    return made
