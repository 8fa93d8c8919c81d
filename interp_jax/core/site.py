"""Named sites: the `site` identity and the `detail` choice, as jax primitives.

A site is an identity operation whose name stands in the jaxpr, so that it survives `jit`, `vmap`, `scan`,
`remat` and `shard_map`, and costs nothing when compiled. The transforms of this package find it there.
"""

from collections.abc import Callable, Mapping, Sequence
import operator
from typing import Any

import jax
import jax.core
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

Array = jax.Array

site_p = Primitive("site")
detail_p = Primitive("detail")
detail_p.multiple_results = True
mention_p = Primitive("mention")


def site(
    x: Any,
    name: str,
    *,
    layer: Any = None,
    axes: Sequence[str] | None = None,
    offset: Any = None,
    length: Any = None,
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
      length: int32 `[]` or `[batch]`, how many real tokens there are, where these axes hold the whole sequence: what
        stands before position 0 and after the last is padding. Leave it out in a decoding step.
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
    marked = {"length": length} | dict(marks or {})
    marked = {mark: jnp.asarray(value, jnp.int32) for mark, value in marked.items() if value is not None}
    return site_p.bind(
        x,
        *offsets.values(),
        *marked.values(),
        name=name,
        layer=layer,
        axes=axes,
        offset_axes=tuple(offsets),
        marks=tuple(marked),
        mapped=(),
        loops=None,
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
#   loops: where a transform has cut a scan into pieces, the place of this piece (see interpreter.Loop);
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


def detail(fast: Callable[..., Any], detailed: Callable[..., Any], *args: Any) -> Any:
    """Declares two equal computations, one fast, one with more sites in it.

    `fast(*args)` runs; a transform that asks for a site which only `detailed` has takes `detailed(*args)` instead.
    `detailed` must declare every site that `fast` declares.

    Args:
      fast: function of `args`.
      detailed: function of `args` with the same result, up to rounding.
      *args: pytrees of arrays of any shape.

    Returns:
      `fast(*args)`.

    Raises:
      ValueError: the two results differ in structure, shape or dtype.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> def per_head(z, w):
      ...     return ij.site(z[:, :, None] * w, "result", axes=("head", "d_head", "d_model")).sum((0, 1))
      >>> f = lambda z, w: ij.detail(lambda z, w: jnp.einsum("hd,hdm->m", z, w), per_head, z, w)
      >>> f(jnp.ones((2, 3)), jnp.ones((2, 3, 4))).tolist()
      [6.0, 6.0, 6.0, 6.0]
      >>> ij.capture(f, "result", output=False)(jnp.ones((2, 3)), jnp.ones((2, 3, 4)))["result"].shape
      (2, 3, 4)
    """
    leaves, tree = jax.tree.flatten(args)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    outs = jax.tree.map(jnp.asarray, fast(*args))
    (jaxpr, consts), shape = _closed(detailed, tree, leaves)
    if jax.tree.map(_signature, outs) != jax.tree.map(_signature, shape):
        raise ValueError(f"detail: the two results differ: fast gives {outs}, detailed gives {shape}")
    flat, structure = jax.tree.flatten(outs)
    return jax.tree.unflatten(structure, detail_p.bind(*flat, *consts, *leaves, detailed=jaxpr, n_outs=len(flat)))


def _signature(x: Any) -> str:
    return f"{x.dtype}{x.shape}"


def _closed(fn: Callable[..., Any], tree: Any, leaves: list[Array]) -> tuple[tuple[Any, list[Any]], Any]:
    """The jaxpr of `fn` without tracers in its constants, and the tracers that it closed over."""

    def flat(*leaves: Any) -> Any:
        return fn(*jax.tree.unflatten(tree, leaves))

    jaxpr, shape = jax.make_jaxpr(flat, return_shape=True)(*leaves)
    consts = list(jaxpr.consts)
    if not any(isinstance(c, jax.core.Tracer) for c in consts):
        return (jaxpr, []), shape

    def hoisted(*args: Any) -> Any:
        return jax.core.eval_jaxpr(jaxpr.jaxpr, args[: len(consts)], *args[len(consts) :])

    return (jax.make_jaxpr(hoisted)(*consts, *leaves), consts), shape


# What a `detail` equation binds is the identity of the fast results, which are computed before it like anything else;
# the operands of the detailed computation come after them.
def _detail_batch(operands: Any, dims: Any, *, detailed: Any, n_outs: int) -> tuple[Any, Any]:
    size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
    outs = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(operands[:n_outs], dims, strict=False)
    ]
    args, in_axes = operands[n_outs:], tuple(dims[n_outs:])

    def batched(*args: Any) -> Any:
        if all(d is None for d in in_axes):
            return [jnp.broadcast_to(y, (size, *y.shape)) for y in jaxpr_as_fun(detailed)(*args)]
        return jax.vmap(jaxpr_as_fun(detailed), in_axes=in_axes)(*args)

    jaxpr = jax.make_jaxpr(batched)(*args)
    return detail_p.bind(*outs, *args, detailed=jaxpr, n_outs=n_outs), [0] * n_outs


def _detail_jvp(primals: Any, tangents: Any, *, detailed: Any, n_outs: int) -> tuple[Any, Any]:
    # The detailed sites are gone from the differentiated function: leave their names, so that an edit of one
    # is refused and not ignored.
    return [mention_p.bind(out, detailed=detailed) for out in primals[:n_outs]], list(tangents[:n_outs])


def _detail_transpose(cts: Any, *operands: Any, n_outs: int, **params: Any) -> list[Any]:
    return [*cts, *(None for _ in operands[n_outs:])]


detail_p.def_impl(lambda *operands, n_outs, **params: list(operands[:n_outs]))
detail_p.def_abstract_eval(lambda *operands, n_outs, **params: list(operands[:n_outs]))
batching.primitive_batchers[detail_p] = _detail_batch
ad.primitive_jvps[detail_p] = _detail_jvp
ad.primitive_transposes[detail_p] = _detail_transpose
mlir.register_lowering(detail_p, lambda ctx, *operands, n_outs, **params: list(operands[:n_outs]))

mention_p.def_impl(lambda x, **params: x)
mention_p.def_abstract_eval(lambda x, **params: x)
batching.defvectorized(mention_p)
ad.deflinear2(mention_p, lambda ct, x, **params: [ct])
mlir.register_lowering(mention_p, lambda ctx, x, **params: [x])
