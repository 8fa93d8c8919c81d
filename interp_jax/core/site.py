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
      marks: anything else of the call that an intervention may ask for by name, each int32 `[]` or `[batch]`.

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
        axes = tuple(axes)
        if len(axes) > x.ndim:
            raise ValueError(f"site {name!r}: {len(axes)} axis names {axes} for a value of {x.ndim} axes")
    offsets = _offsets(name, axes, offset)
    marked = {"length": length, **(marks or {})}
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
    `detailed` must declare every site that `fast` declares. Both see arrays only through `args` or their closures.

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
    (fast_jaxpr, fast_consts), shape = _closed(fast, tree, leaves)
    (detailed_jaxpr, detailed_consts), detailed_shape = _closed(detailed, tree, leaves)
    if jax.tree.map(_signature, shape) != jax.tree.map(_signature, detailed_shape):
        raise ValueError(f"detail: the two results differ: fast gives {shape}, detailed gives {detailed_shape}")
    outs = detail_p.bind(
        *fast_consts,
        *detailed_consts,
        *leaves,
        fast=fast_jaxpr,
        detailed=detailed_jaxpr,
        counts=(len(fast_consts), len(detailed_consts)),
    )
    return jax.tree.unflatten(jax.tree.structure(shape), outs)


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


def detail_branch(operands: Any, counts: tuple[int, int], *, detailed: bool) -> list[Any]:
    """The operands of one of the two computations of a `detail` equation."""
    fast, both = counts[0], sum(counts)
    return [*(operands[fast:both] if detailed else operands[:fast]), *operands[both:]]


def _detail_fast(*operands: Any, fast: Any, detailed: Any, counts: Any) -> list[Any]:
    return jaxpr_as_fun(fast)(*detail_branch(operands, counts, detailed=False))


def _detail_batch(operands: Any, dims: Any, *, fast: Any, detailed: Any, counts: Any) -> tuple[Any, Any]:
    def batched(jaxpr: Any, *, detailed: bool) -> Any:
        args = detail_branch(operands, counts, detailed=detailed)
        in_axes = tuple(detail_branch(dims, counts, detailed=detailed))
        if all(d is None for d in in_axes):  # only the other computation's constants are mapped
            size = next(x.shape[d] for x, d in zip(operands, dims, strict=True) if d is not None)
            return jax.make_jaxpr(lambda *a: [jnp.broadcast_to(y, (size, *y.shape)) for y in jaxpr_as_fun(jaxpr)(*a)])(
                *args
            )
        return jax.make_jaxpr(jax.vmap(jaxpr_as_fun(jaxpr), in_axes=in_axes))(*args)

    outs = detail_p.bind(
        *operands, fast=batched(fast, detailed=False), detailed=batched(detailed, detailed=True), counts=counts
    )
    return outs, [0] * len(outs)


def _detail_jvp(primals: Any, tangents: Any, *, fast: Any, detailed: Any, counts: Any) -> tuple[Any, Any]:
    primals = detail_branch(primals, counts, detailed=False)
    tangents = detail_branch(tangents, counts, detailed=False)
    moving = [i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def of_moving(*values: Any) -> Any:
        args = list(primals)
        for i, value in zip(moving, values, strict=True):
            args[i] = value
        return jaxpr_as_fun(fast)(*args)

    outs, out_tangents = jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])
    # The detailed sites are gone from the differentiated function: leave their names, so that an edit of one
    # is refused and not ignored.
    outs = [mention_p.bind(out, detailed=detailed) for out in outs]
    return outs, [
        ad.Zero.from_primal_value(out)  # type: ignore[attr-defined]  # jax has no types for it
        if t.dtype == jax.dtypes.float0
        else t
        for out, t in zip(outs, out_tangents, strict=True)
    ]


detail_p.def_impl(_detail_fast)
detail_p.def_abstract_eval(lambda *avals, fast, detailed, counts: fast.out_avals)
batching.primitive_batchers[detail_p] = _detail_batch
ad.primitive_jvps[detail_p] = _detail_jvp
mlir.register_lowering(detail_p, mlir.lower_fun(_detail_fast, multiple_results=True))

mention_p.def_impl(lambda x, **params: x)
mention_p.def_abstract_eval(lambda x, **params: x)
batching.defvectorized(mention_p)
ad.deflinear2(mention_p, lambda ct, x, **params: [ct])
mlir.register_lowering(mention_p, lambda ctx, x, **params: [x])
