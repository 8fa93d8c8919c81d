"""What an intervention is, and how one is applied to the value of a site."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.core.kinds import Readable

Array = jax.Array


@dataclass(frozen=True)
class Context:
    """What a library intervention is told about the value that it edits.

    Attributes:
      name: canonical name of the site.
      layer: layer of this value: an int where it is known when tracing, an int32 `[]` inside a scan, None where
        the site has no layers.
      axes: names of the trailing axes, or None.
      offset: int32 `[]` or `[batch]`, position of index 0 along `position` (or `query`); None means 0.
      offsets: the same for every axis that has one.
      index: one index per loop around the site, outermost first: the place of this value in a captured stack.
      reads: values of other sites, by address, for `via`.
    """

    name: str
    layer: int | Array | None = None
    axes: tuple[str, ...] | None = None
    offsets: Mapping[str, Array] = field(default_factory=dict)
    index: tuple[int | Array, ...] = ()
    reads: Mapping[str, Array] = field(default_factory=dict)

    @property
    def offset(self) -> Array | None:
        return next((self.offsets[axis] for axis in ("position", "query") if axis in self.offsets), None)

    def axis(self, name: str) -> int:
        """The negative index of the axis called `name`. Raises ValueError where the site has none."""
        if name not in (self.axes or ()):
            known = ", ".join(self.axes) if self.axes else "none of its axes is named: use axis= and index="
            raise ValueError(f"site {self.name!r} has no axis {name!r}; its axes: {known}")
        axes = self.axes or ()
        return axes.index(name) - len(axes)


class Intervention:
    """Base of the library's interventions: pytrees called as `(value, ctx) -> value`.

    `value` is one example under `vmap`: mapped axes are gone. The result must have the shape and dtype of `value`.
    """

    #: Static layers to which the edit is confined; None: every layer. The transforms split a scan there.
    layers: frozenset[int] | None = None
    #: Addresses of the sites whose values the edit reads.
    reads: frozenset[str] = frozenset()
    #: Whether the edit sees a value with all its mapped axes, in front, rather than one example.
    whole: bool = False

    def __call__(self, value: Array, ctx: Context) -> Array:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(value, ctx)")

    def resolve(self, prompt_length: Array) -> "Intervention":
        """This edit inside `generate`, where prompts have `prompt_length` int32 `[batch]` real tokens."""
        changed = {}
        for entry in fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            value = getattr(self, entry.name)
            if isinstance(value, Intervention):
                changed[entry.name] = value.resolve(prompt_length)
            elif isinstance(value, tuple) and any(isinstance(v, Intervention) for v in value):
                changed[entry.name] = tuple(v.resolve(prompt_length) for v in value)
        return replace(self, **changed) if changed else self  # type: ignore[type-var]


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["fn"])
@dataclass(frozen=True)
class Function(Intervention, Readable):
    """A user's plain function `value -> value`."""

    fn: Callable[..., Any]

    def parts(self) -> Any:
        return self.fn

    def remade(self, parts: Any) -> "Function":
        return Function(parts)

    def __call__(self, value: Array, ctx: Context) -> Any:
        return self.fn(value)


@partial(jax.tree_util.register_dataclass, data_fields=["fn"], meta_fields=[])
@dataclass(frozen=True)
class Module(Intervention):
    """A user's callable pytree `value -> value`, such as a flax module: its arrays stay arguments."""

    fn: Any

    def __call__(self, value: Array, ctx: Context) -> Any:
        return self.fn(value)


def as_intervention(edit: Any) -> Intervention:
    """Any callable as an intervention. Raises TypeError for what cannot be called."""
    if isinstance(edit, Intervention):
        return edit
    if not callable(edit):
        raise TypeError(f"an intervention is a callable value -> value, not {type(edit).__name__}: use replace(...)")
    return Function(edit) if is_leaf(edit) else Module(edit)


def is_leaf(x: Any) -> bool:
    """Whether a pytree is nothing but one leaf, as a plain function is."""
    return jax.tree_util.all_leaves((x,))


def resolve(edits: Mapping[str, Any], prompt_length: Array) -> dict[str, Intervention]:
    """`edits` as they act in generation after prompts of `prompt_length` int32 `[batch]` tokens each."""
    return {address: as_intervention(edit).resolve(prompt_length) for address, edit in edits.items()}


def place(values: Array, like: Array, ctx: Context) -> Array:
    """The part of `values` that belongs to this visit of a site.

    Args:
      values: `[*loops *like.shape]`, stacked as `capture` returns it, or anything that broadcasts to `like`.
      like: the value of the site.
      ctx: its context.

    Raises:
      ValueError: `values` neither is such a stack nor broadcasts.
    """
    if ctx.index and values.ndim == like.ndim + len(ctx.index):
        values = at_index(values, ctx.index)
    try:
        return fill(values, like)
    except ValueError:
        raise ValueError(
            f"site {ctx.name!r} holds {shape_text(like)}; a value {shape_text(values)} does not broadcast to it"
        ) from None


def fill(values: Array, like: Array) -> Array:
    """`values` broadcast to the shape of `like` and, on a mesh with explicit axes, to its sharding."""
    values = jnp.broadcast_to(values, like.shape)
    sharding = jax.typeof(like).sharding
    return values if jax.typeof(values).sharding.spec == sharding.spec else jax.sharding.reshard(values, sharding)


def at_index(values: Array, index: Sequence[int | Array]) -> Array:
    """`values[i, j, ...]` for static or traced indices, without bounds arithmetic."""
    for i in index:
        values = jax.lax.dynamic_index_in_dim(values, i, 0, keepdims=False)
    return values


def check(new: Any, old: Array, name: str) -> Array:
    """The result of an edit, which must look like the value of the site. Raises ValueError otherwise."""
    if not hasattr(new, "shape") or not hasattr(new, "dtype"):
        raise ValueError(f"the edit of site {name!r} returned {type(new).__name__}, not an array {shape_text(old)}")
    if new.shape != old.shape or new.dtype != old.dtype:
        raise ValueError(
            f"the edit of site {name!r} returned {shape_text(new)}, but the site holds {shape_text(old)}: "
            f"return the same shape and dtype (cast with .astype(x.dtype))"
        )
    return new


def shape_text(x: Any) -> str:
    """As in `float32[8,3,4]`."""
    return f"{x.dtype}[{','.join(str(n) for n in x.shape)}]"


def to_front(x: Array, mapped: Sequence[int]) -> Array:
    """Moves the mapped axes of nested vmaps, outermost first, to the front."""
    for place_, axis in enumerate(mapped):
        x = jnp.moveaxis(x, place_ + axis, place_)
    return x


def from_front(x: Array, mapped: Sequence[int]) -> Array:
    """The inverse of `to_front`."""
    for place_, axis in reversed(list(enumerate(mapped))):
        x = jnp.moveaxis(x, place_, place_ + axis)
    return x


def apply(
    edit: Intervention,
    value: Array,
    offsets: Sequence[Array],
    ctx: Context,
    mapped: Sequence[tuple[Any, ...]],
    offset_axes: tuple[str, ...],
    reads: Mapping[str, tuple[Array, Sequence[int | None]]],
) -> Array:
    """Applies an edit to a site's value, one example at a time along every mapped axis.

    Args:
      mapped: one entry per enclosing vmap, outermost first: the mapped axis of the value and of each offset.
      reads: address -> (value, its mapped axis per enclosing vmap).
    """
    keys = tuple(reads)

    def one(value: Array, offsets: Sequence[Array], read: Sequence[Array]) -> Array:
        here = replace(ctx, offsets=dict(zip(offset_axes, offsets)), reads=dict(zip(keys, read)))  # noqa: B905
        try:
            new = edit(value, here)
        except NameError as error:
            if "axis name" not in str(error):
                raise
            raise NameError(
                f"the edit of site {ctx.name!r} uses the axis name of a vmap around it ({error}): "
                "an intervention sees one example; put intervene inside the vmap"
            ) from None
        return check(new, value, ctx.name)

    if edit.whole:
        front = [dims[0] for dims in mapped]
        return from_front(one(to_front(value, front), (), ()), front)
    fn = one
    for level in reversed(range(len(mapped))):
        dims = mapped[level]
        read_dims = [reads[key][1][level] for key in keys]
        fn = jax.vmap(fn, in_axes=(dims[0], list(dims[1:]), read_dims), out_axes=dims[0])
    return fn(value, list(offsets), [reads[key][0] for key in keys])
