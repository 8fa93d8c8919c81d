"""The `detail` choice between two equal computations, as a jax primitive.

What stands in the jaxpr is the fast result, and beside it the jaxpr of the detailed computation with its operands: a
transform that asks for a site of the detailed one evaluates that instead, and otherwise it is dropped when compiling.
Where a `detail` is differentiated its sites are gone, and a *mention* keeps their names, so that an edit of one is
refused and not ignored.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

Array = jax.Array

detail_p = Primitive("detail")
detail_p.multiple_results = True
mention_p = Primitive("mention")


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
