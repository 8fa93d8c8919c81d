"""What an intervention is, and how one is applied to the value of a site."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from interp_jax.core.axes import Followed, follow
from interp_jax.core.context import COUNTED, Context
from interp_jax.core.fitting import check, fill, shape_text
from interp_jax.core.kinds import Readable

Array = jax.Array


class Intervention:
    """Base of the library's interventions: pytrees called as `(value, ctx) -> value`.

    `value` is one example under `vmap`: mapped axes are gone. The result must have the shape and dtype of `value`.
    """

    #: The interventions through which this one acts.
    inner: tuple["Intervention", ...] = ()
    #: Whether the edit sees a value with all its mapped axes, in front, rather than one example.
    whole: bool = False

    @property
    def since(self) -> int:
        """The first layer, static, at which the edit may do anything: what comes before runs once under a vmap."""
        return min((edit.since for edit in self.inner), default=0)

    @property
    def reads(self) -> frozenset[str]:
        """Addresses of the sites whose values the edit reads."""
        return frozenset().union(*(edit.reads for edit in self.inner))

    @property
    def smooth(self) -> bool:
        """Whether the edit has a finite derivative everywhere."""
        return bool(self.inner) and all(edit.smooth for edit in self.inner)

    @property
    def over_keys(self) -> bool:
        """Whether the edit may look at all keys of a query at once while a text is generated: keys that are still to
        come, whose weight is 0, must make no difference to it."""
        return bool(self.inner) and all(edit.over_keys for edit in self.inner)

    @property
    def positions(self) -> tuple[Any, ...]:
        """The positions that the edit names, int32 `[]` or `[batch]` each."""
        return tuple(index for edit in self.inner for index in edit.positions)

    def confine(self, layers: frozenset[int], ctx: Context) -> frozenset[int]:
        """Those of the layers asked for at which the edit acts. A scan is split at them, unless they are all.

        Raises:
          ValueError: a part of the edit acts at none of them.
        """
        return frozenset().union(*(edit.confine(layers, ctx) for edit in self.inner)) if self.inner else layers

    def told(self) -> str:
        """The edit in one line, arrays by their shapes."""
        if not is_dataclass(self):
            return type(self).__name__
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        arguments = ", ".join(f"{name}={told(value)}" for name, value in said.items() if value is not None)
        return f"{type(self).__name__}({arguments})"

    def look(self, value: Array, ctx: Context) -> None:
        """Raises ValueError where the edit's numbers do not fit the site: those of every layer, under per_layer."""
        for edit in self.inner:
            edit.look(value, ctx)

    def __call__(self, value: Array, ctx: Context) -> Array:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(value, ctx)")


def told(value: Any) -> str:
    """A value that an edit holds, in short: a number, the shape of an array, another edit in one line."""
    if isinstance(value, Intervention):
        return value.told()
    if not isinstance(value, jax.Array | np.ndarray):
        return f"{value!r:.80}"
    known = value.ndim == 0 and not isinstance(value, jax.core.Tracer) and jnp.issubdtype(value.dtype, jnp.number)
    return str(np.asarray(value)) if known else shape_text(value)


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["fn"])
@dataclass(frozen=True)
class Function(Intervention, Readable):
    """A user's plain function `value -> value`."""

    fn: Callable[..., Any]

    def parts(self) -> Any:
        return self.fn

    def remade(self, parts: Any) -> "Function":
        return Function(parts)

    def told(self) -> str:
        return getattr(self.fn, "__name__", type(self.fn).__name__)

    def __call__(self, value: Array, ctx: Context) -> Any:
        return self.fn(value)


@partial(jax.tree_util.register_dataclass, data_fields=["fn"], meta_fields=[])
@dataclass(frozen=True)
class Module(Intervention):
    """A user's callable pytree `value -> value`, such as a flax module: its arrays stay arguments."""

    fn: Any

    def told(self) -> str:
        return type(self.fn).__name__

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
      others: the site's other operands: its offsets, its length if it says one, then its marks.
      params: the site's parameters.
      reads: address -> (value, its mapped axis per enclosing vmap).
    """
    keys, mapped = tuple(reads), params["mapped"]
    n_offsets, has_length = len(params["offset_axes"]), params["has_length"]

    def one(value: Array, others: Sequence[Array], read: Sequence[Array]) -> Array:
        offsets = dict(zip(params["offset_axes"], others[:n_offsets], strict=True))
        length = others[n_offsets] if has_length else None
        marks = dict(zip(params["marks"], others[n_offsets + has_length :], strict=True))
        here = replace(
            ctx,
            offsets=offsets,
            length=length,
            open_ended=params["open_ended"],
            marks=marks,
            reads=dict(zip(keys, read, strict=True)),
        )
        real = here.real(value)
        if here.open_ended:
            fn = _piecewise(edit, value, here)
            return fn(value) if real is None else jnp.where(fill(real, value), fn(value), value)
        return _run(edit, value, here) if real is None else choose(real, edit, value, here)

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


def _run(edit: Intervention, value: Array, ctx: Context) -> Array:
    return check(call(edit, value, ctx), value, ctx.name)


def _piecewise(edit: Intervention, value: Array, ctx: Context) -> Followed:
    """The edit, traced once. Raises ValueError where it would have to know which piece of a sequence it sees."""
    counted = [name for name in COUNTED if name in (ctx.axes or ())]
    numbers = [ctx.numbers(name, value.shape[ctx.axis(name)]) for name in counted]
    keys, reads = tuple(ctx.reads), list(ctx.reads.values())

    def run(value: Array, *others: Array) -> Array:
        numbered = dict(zip(counted, others[: len(counted)], strict=True))
        read = dict(zip(keys, others[len(counted) :], strict=True))
        return _run(edit, value, replace(ctx, numbered=numbered, reads=read))

    fn = follow(run, value, *numbers, *reads)
    for name in counted:
        if name == "key" and edit.over_keys:
            continue  # a step of a text has all keys of its queries
        axis, values = ctx.axis(name), [0, *range(1 + len(counted), len(fn.args))]
        if not fn.is_uniform(axis, dict.fromkeys(values, axis) | {1 + counted.index(name): -1}):
            raise ValueError(
                f"the edit of site {ctx.name!r} {_unseen(fn)} do the same at each place along {name!r}, by that place "
                f"alone: while a text is generated these come piece by piece; choose them by at(..., {name}=), or edit "
                "models.forward, which sees all of them"
            )
    if "batch" in (ctx.axes or ()) and not fn.is_local([ctx.axis("batch")], range(len(fn.args))):
        raise ValueError(
            f"the edit of site {ctx.name!r} {_unseen(fn)} leave the examples of the batch apart: while a text is "
            "generated each ends by itself; compute what they share beforehand, or generate one by one"
        )
    return fn


def _unseen(fn: Followed) -> str:
    """How sure it is that an edit is not what it must be."""
    if not fn.unknown:
        return "does not"
    under = ", unless under jax.vmap with vmap_method='sequential'" if "pure_callback" in fn.unknown else ""
    return f"is not seen (through {', '.join(fn.unknown)}{under}) to"


def choose(chosen: Array, edit: Intervention, value: Array, ctx: Context) -> Array:
    """`edit(value)` where `chosen`, bool and broadcastable to the value; the value elsewhere, with its derivative."""
    run, seen = partial(_run, edit, ctx=ctx), value
    if not edit.smooth:
        # Where it is not chosen, an edit may have no derivative, and zero times infinity is not zero. If what is chosen
        # does not depend on what is not, no derivative has to go there.
        run = follow(run, value)
        if run.is_local([axis for axis in range(-chosen.ndim, 0) if chosen.shape[axis] > 1]):
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


def reduced(reducer: Intervention | None, value: Array, ctx: Context, n_mapped: int) -> Any:
    """What a reducer makes of a captured value, whose `n_mapped` first axes are mapped; None leaves it as it is."""
    if reducer is None:
        return value

    def one(value: Array) -> Any:
        reduced = jax.tree.map(jnp.asarray, call(reducer, value, ctx))
        if not jax.tree.leaves(reduced):
            raise ValueError(f"the reducer of site {ctx.name!r} returned no array")
        return reduced

    for _ in range(n_mapped):
        one = jax.vmap(one)
    return one(value)
