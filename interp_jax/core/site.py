"""Named sites: the `site` identity, as a jax primitive.

A site is an identity operation whose name stands in the jaxpr, so that it survives `jit`, `vmap`, `scan`,
`remat` and `shard_map`, and costs nothing when compiled. The transforms of this package find it there.
"""

from collections.abc import Mapping, Sequence
import operator
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

Array = jax.Array

site_p = Primitive("site")


def site(
    x: Any,
    name: str,
    *,
    layer: Any = None,
    axes: Sequence[str] | None = None,
    offset: Any = None,
    length: Any = None,
    open_ended: bool | None = None,
    marks: Mapping[str, Any] | None = None,
) -> Array:
    """Gives `x` a name at which transforms can read and replace it. The identity, at no run-time cost.

    Args:
      x: array of any shape `[... *axes]`.
      name: dotted name without a layer number, such as `"blocks.resid_pre"`.
      layer: static index of the layer where the layers are a Python loop. Inside a `lax.scan` over layers leave
        it out: the scan counter is the layer.
      axes: names of the trailing axes, from the right: `("position", "d_model")`.
      offset: int32 `[]` or `[batch]`, the position of index 0 along the site's `position` (or `query`) axis:
        negative under left padding, the number of cached tokens in a decoding step. A mapping
        `{axis name: offset}` gives each axis its own.
      length: int32 `[]` or `[batch]`, how many real tokens there are so far: what stands before position 0 and after
        the last of them is padding.
      open_ended: whether the sequences go on beyond this value, as in a decoding step, so that no position counts from
        their end. By default they do where there is an offset and no length.
      marks: anything else of the call that an intervention may ask for by name, each int32 `[]` or `[batch]`, or None.

    Returns:
      `x`, unchanged.

    Raises:
      TypeError: `layer` is not a static integer, or `x` is not one array.
      ValueError: the name is empty or has a `*`, there are more axis names than axes, or an offset names no axis.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x * 2, "double", axes=("d_model",)) + 1
      >>> f(jnp.ones(3)).tolist()
      [3.0, 3.0, 3.0]
    """
    if not jax.tree_util.all_leaves((x,)) and not hasattr(x, "__jax_array__"):
        raise TypeError(f"site {name!r}: a value is one array, not a {type(x).__name__}: name each array of it")
    x = jnp.asarray(x)
    if not isinstance(name, str) or not name or "*" in name or "." in (name[0], name[-1]):
        raise ValueError(f"site: name {name!r} must be a non-empty dotted name without '*'")
    if layer is not None:
        try:
            layer = operator.index(layer)
        except TypeError:  # a tracer's error is one, too
            raise TypeError(f"site {name!r}: layer must be a static integer; inside a scan leave it out") from None
    if axes is not None:
        if isinstance(axes, str) or not isinstance(axes, Sequence) or not all(isinstance(a, str) for a in axes):
            raise TypeError(f"site {name!r}: axes are a sequence of names, not {axes!r:.60}")
        axes = tuple(axes)
        if len(axes) > x.ndim:
            raise ValueError(f"site {name!r}: {len(axes)} axis names {axes} for a value of {x.ndim} axes")
    offsets = _offsets(name, axes, offset)
    lengths = [] if length is None else [jnp.asarray(length, jnp.int32)]
    marked = {mark: jnp.asarray(value, jnp.int32) for mark, value in (marks or {}).items() if value is not None}
    return site_p.bind(
        x,
        *offsets.values(),
        *lengths,
        *marked.values(),
        name=name,
        layer=layer,
        axes=axes,
        offset_axes=tuple(offsets),
        has_length=length is not None,
        open_ended=(bool(offsets) and length is None) if open_ended is None else open_ended,
        marks=tuple(marked),
        mapped=(),
        pieces=None,
        differentiated=False,
    )


def _offsets(name: str, axes: tuple[str, ...] | None, offset: Any) -> dict[str, Array]:
    if offset is None:
        return {}
    if not isinstance(offset, Mapping):
        found = [axis for axis in ("position", "query") if axis in (axes or ())]
        if not found:
            raise ValueError(f"site {name!r}: an offset needs a 'position' or 'query' axis; its axes are {axes}")
        offset = {found[0]: offset}
    for axis in offset:
        if axis not in (axes or ()):
            raise ValueError(f"site {name!r}: offset for axis {axis!r}, which is not one of {axes}")
    return {axis: jnp.asarray(value, jnp.int32) for axis, value in offset.items()}


# A site's parameters beside the user's own:
#   mapped: one entry per enclosing vmap, outermost first: the mapped axis of each operand (None: not mapped);
#   pieces: where a transform has cut a scan, the path of this piece of it (see `paths`), else None;
#   differentiated: true once the site stands inside a differentiated function.
def _site_batch(operands: tuple[Any, ...], dims: tuple[Any, ...], *, mapped: Any, **params: Any) -> tuple[Any, Any]:
    if dims[0] is None:
        size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
        operands = (jnp.broadcast_to(operands[0], (size, *operands[0].shape)), *operands[1:])
        dims = (0, *dims[1:])
    return site_p.bind(*operands, mapped=(tuple(dims), *mapped), **params), dims[0]


def _site_jvp(primals: Any, tangents: Any, *, differentiated: bool, **params: Any) -> tuple[Any, Any]:
    return site_p.bind(*primals, differentiated=True, **params), tangents[0]


def _site_transpose(ct: Any, x: Any, *others: Any, **params: Any) -> list[Any]:
    return [ct, *(None for _ in others)]


site_p.def_impl(lambda x, *others, **params: x)
site_p.def_abstract_eval(lambda x, *others, **params: x)
batching.primitive_batchers[site_p] = _site_batch
ad.primitive_jvps[site_p] = _site_jvp
ad.primitive_transposes[site_p] = _site_transpose
mlir.register_lowering(site_p, lambda ctx, x, *others, **params: [x])
