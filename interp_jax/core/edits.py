"""What an intervention is, and how one is applied to the value of a site."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.core.axes import is_local, is_uniform
from interp_jax.core.jaxprs import conform, is_shard
from interp_jax.core.kinds import Readable

Array = jax.Array


COUNTED = ("position", "query", "key")  # axes whose places are positions in a sequence


@dataclass(frozen=True)
class Context:
    """What a library intervention is told about the value that it edits.

    Attributes:
      name: canonical name of the site.
      layer: layer of this value: an int where it is known when tracing, an int32 `[]` inside a scan, None where
        the site has no layers.
      axes: names of the trailing axes, or None.
      offsets: axis -> int32 `[]` or `[batch]`, the position of index 0 along it; an axis that is not there begins at 0.
      marks: what else the site says of the call, int32 `[]` or `[batch]` each, such as "length", the number of real
        tokens where the axes hold whole sequences.
      index: one index per loop around the site, outermost first: the place of this value in a captured stack.
      stack: the sizes of these axes of the stack.
      layers: the numbers of the site's layers.
      mapped: the sizes of the vmaps around the value, which has none of these axes.
      reads: values of other sites, by address, for `via`.
    """

    name: str
    layer: int | Array | None = None
    axes: tuple[str, ...] | None = None
    offsets: Mapping[str, Array] = field(default_factory=dict)
    marks: Mapping[str, Array] = field(default_factory=dict)
    index: tuple[int | Array, ...] = ()
    stack: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    mapped: tuple[int, ...] = ()
    reads: Mapping[str, Array] = field(default_factory=dict)

    def axis(self, name: str) -> int:
        """The negative index of the axis called `name`. Raises ValueError where the site has none."""
        if name not in (self.axes or ()):
            known = ", ".join(self.axes) if self.axes else "none of its axes is named: use axis= and index="
            raise ValueError(f"site {self.name!r} has no axis {name!r}; its axes: {known}")
        axes = self.axes or ()
        return axes.index(name) - len(axes)

    def numbers(self, name: str, size: int) -> Array:
        """The number by which each place along an axis goes, int32 `[size]` or `[batch size]`; -1 at padding."""
        places = jnp.arange(size)
        if name not in COUNTED:
            return places
        if (offset := self.offset(name)) is not None:
            places = places + offset[..., None]
        end = self.marks.get("length")
        real = places >= 0 if end is None else (places >= 0) & (places < end[..., None])
        return jnp.where(real, places, -1)

    def offset(self, name: str) -> Array | None:
        """The position of index 0 along an axis of `COUNTED`; None means 0."""
        return self.offsets.get(name, next(iter(self.offsets.values()), None))

    def end(self, name: str, size: int) -> int | Array | None:
        """How many numbers an axis has, from which negative ones count: an int, or int32 `[]` or `[batch]`; None where
        the sequence goes on beyond it."""
        if name not in COUNTED or not (self.offsets or self.marks):
            return size
        return self.marks.get("length", None if self.offsets else size)

    @property
    def is_piece(self) -> bool:
        """Whether the value is a piece of sequences that go on beyond it, as in a cached step."""
        return bool(self.offsets) and "length" not in self.marks

    def spread(self, values: Array, name: str, like: Array) -> Array:
        """`[size]` or `[batch size]`, along an axis, on the axes of `like`. Raises ValueError where they do not fit."""
        shape = [1] * like.ndim
        shape[self.axis(name)] = values.shape[-1]
        if values.ndim == 2:
            shape[self.axis("batch")] = values.shape[0]
        if values.ndim > 2 or any(n not in (1, size) for n, size in zip(shape, like.shape, strict=True)):
            raise ValueError(
                f"at: site {self.name!r} has shape {like.shape} with axes {self.axes}; "
                f"a choice of {name} of shape {values.shape} does not fit: give one per example, [batch]"
                f"{_part(like, self)}"
            )
        return values.reshape(shape)


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
    #: Whether the edit has a finite derivative everywhere.
    smooth: bool = False

    @property
    def positions(self) -> tuple[Any, ...]:
        """The positions that the edit names, int32 `[]` or `[batch]` each."""
        return ()

    def __call__(self, value: Array, ctx: Context) -> Array:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(value, ctx)")


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
        check_uniform(self.fn, (value,), ctx)
        return self.fn(value)


@partial(jax.tree_util.register_dataclass, data_fields=["fn"], meta_fields=[])
@dataclass(frozen=True)
class Module(Intervention):
    """A user's callable pytree `value -> value`, such as a flax module: its arrays stay arguments."""

    fn: Any

    def __call__(self, value: Array, ctx: Context) -> Any:
        check_uniform(self.fn, (value,), ctx)
        return self.fn(value)


def check_uniform(fn: Callable[..., Any], values: Sequence[Array], ctx: Context) -> None:
    """Raises ValueError where a user's function would have to know which piece of a sequence it sees."""
    if ctx.is_piece:
        for name in COUNTED:
            if name in (ctx.axes or ()) and not is_uniform(fn, values, ctx.axis(name)):
                raise ValueError(
                    f"the edit of site {ctx.name!r} does not do the same at each place along {name!r}, which the site "
                    f"here has piece by piece (a text is generated): aim it with at(..., {name}=)"
                )


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


def place(values: Array, like: Array, ctx: Context) -> Array:
    """The part of `values` that belongs to this visit of a site, in the dtype of `values`.

    Args:
      values: `[*loops *like.shape]`, stacked as `capture` returns it, or anything that broadcasts to `like`.
      like: the value of the site.
      ctx: its context.

    Raises:
      ValueError: `values` neither is such a stack nor broadcasts, or is of a kind that `like` cannot hold.
    """
    check_kind(values, like, ctx)
    if ctx.index and values.ndim == like.ndim + len(ctx.index):
        if values.shape[0] == ctx.stack[0] and values.shape[0] in ctx.mapped:
            raise ValueError(
                f"site {ctx.name!r} has {ctx.stack[0]} layers under a vmap of as many: is {shape_text(values)} a value "
                f"a layer (then use per_layer) or an example ({_INSIDE})?"
            )
        values = of_visit(values, ctx)
    try:
        return fill(values, like)
    except ValueError:
        raise ValueError(
            f"site {ctx.name!r} holds {shape_text(like)}; a value {shape_text(values)} does not broadcast to it"
            f"{_part(like, ctx)}"
        ) from None


def _part(like: Array, ctx: Context) -> str:
    """What an edit sees of a value, where that is not all of it."""
    shard = " (inside shard_map an edit sees one shard)" if is_shard(like) else ""
    return f" (under vmap an edit sees one example: {_INSIDE})" if ctx.mapped else shard


_INSIDE = "to give each its own, put intervene inside the vmap"


def of_visit(values: Array, ctx: Context) -> Array:
    """The part of a stack `[*loops ...]` that belongs to this visit. Raises ValueError where it is another's stack."""
    got = values.shape[: len(ctx.stack)]
    if got != ctx.stack:
        raise ValueError(
            f"site {ctx.name!r} stands in {_loops_text(ctx.stack)}, but a value {shape_text(values)} is a stack of "
            f"{_loops_text(got)}{': ' + _INSIDE if ctx.mapped else ''}"
        )
    return at_index(values, ctx.index)


def _loops_text(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) + " layers"


def check_kind(values: Array, like: Array, ctx: Context) -> None:
    """Raises ValueError where the dtype of `like` cannot hold the kind of `values`: a float where integers are."""
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    new, old = ([jnp.issubdtype(x.dtype, kind) for kind in kinds] for x in (values, like))
    if any(new) and any(old) and new.index(True) > old.index(True):
        raise ValueError(
            f"site {ctx.name!r} holds {shape_text(like)}, which {values.dtype} does not fit: it would be rounded; "
            "edit a site of floats, or round it yourself"
        )


def fill(values: Array, like: Array) -> Array:
    """`values` broadcast to the shape of `like`, and in its place on a mesh."""
    return conform(jnp.broadcast_to(values, like.shape), like)


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
    return conform(new, old)


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
    others: Sequence[Array],
    ctx: Context,
    params: Mapping[str, Any],
    reads: Mapping[str, tuple[Array, Sequence[int | None]]],
) -> Array:
    """Applies an edit to a site's value, one example at a time along every mapped axis.

    Args:
      others: the site's other operands: its offsets, then its marks.
      params: the site's parameters.
      reads: address -> (value, its mapped axis per enclosing vmap).
    """
    keys, mapped = tuple(reads), params["mapped"]
    n_offsets = len(params["offset_axes"])

    def one(value: Array, others: Sequence[Array], read: Sequence[Array]) -> Array:
        offsets = dict(zip(params["offset_axes"], others[:n_offsets], strict=True))
        marks = dict(zip(params["marks"], others[n_offsets:], strict=True))
        here = replace(ctx, offsets=offsets, marks=marks, reads=dict(zip(keys, read, strict=True)))
        return check(call(edit, value, here), value, ctx.name)

    if edit.whole:
        front = [dims[0] for dims in mapped]
        new = check(call(edit, to_front(value, front), replace(ctx, mapped=())), to_front(value, front), ctx.name)
        return from_front(new, front)
    fn = one
    for level in reversed(range(len(mapped))):
        dims = mapped[level]
        read_dims = [reads[key][1][level] for key in keys]
        fn = jax.vmap(fn, in_axes=(dims[0], list(dims[1:]), read_dims), out_axes=dims[0])
    return fn(value, list(others), [reads[key][0] for key in keys])


def choose(chosen: Array, edit: Intervention, value: Array, ctx: Context) -> Array:
    """`edit(value)` where `chosen`, bool and broadcastable to the value; the value elsewhere, with its derivative."""

    def run(value: Array) -> Array:
        return check(call(edit, value, ctx), value, ctx.name)

    seen = value
    # Where it is not chosen, an edit may have no derivative, and zero times infinity is not zero. If what is chosen
    # does not depend on what is not, no derivative has to go there.
    chosen_along = [axis - chosen.ndim for axis, n in enumerate(chosen.shape) if n > 1]
    if not edit.smooth and is_local(run, value, [axis % value.ndim for axis in chosen_along]):
        seen = jnp.where(fill(chosen, value), value, jax.lax.stop_gradient(value))
    return jnp.where(fill(chosen, value), run(seen), value)


def call(fn: Callable[[Array, Context], Any], value: Array, ctx: Context) -> Any:
    """`fn(value, ctx)`, of an edit or a reducer: what goes wrong in it names the site."""
    try:
        return fn(value, ctx)
    except Exception as error:
        if repr(ctx.name) in str(error):
            raise
        raise _at_site(error, ctx.name) from error


_KINDS = (KeyError, IndexError, AttributeError, NameError, NotImplementedError, ValueError, TypeError)


def _at_site(error: Exception, name: str) -> Exception:
    """An error of the same kind that says at which site, in one line."""
    what = str(error).strip().split("\n")[0].rstrip(":.")
    if isinstance(error, jax.errors.ConcretizationTypeError):
        return TypeError(f"the edit of site {name!r} needs a value that is traced ({what}): use jnp.where for a choice")
    if isinstance(error, NameError) and "axis name" in what:
        return NameError(
            f"the edit of site {name!r} uses the axis name of a vmap around it ({what}): an intervention sees one "
            "example; put intervene inside the vmap"
        )
    kind = next((kind for kind in _KINDS if isinstance(error, kind)), RuntimeError)
    return kind(f"the edit of site {name!r} raised {type(error).__name__}: {what}")
