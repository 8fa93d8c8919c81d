"""What an intervention is, and how one is applied to the value of a site."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.core.axes import is_local, is_uniform
from interp_jax.core.context import COUNTED, Context
from interp_jax.core.fitting import check, fill
from interp_jax.core.kinds import Readable

Array = jax.Array


class Intervention:
    """Base of the library's interventions: pytrees called as `(value, ctx) -> value`.

    `value` is one example under `vmap`: mapped axes are gone. The result must have the shape and dtype of `value`.
    """

    #: Static layers to which the edit is confined; None: every layer. The transforms split a scan there.
    layers: frozenset[int] | None = None
    #: The first layer, static, at which the edit may do anything: what comes before runs once under a vmap around.
    since: int = 0
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
