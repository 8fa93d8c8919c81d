"""Backward passes that begin at the layer where there is something to take back, and not at the last.

Slopes at an early layer need none of the layers after it, but what scans over its layers goes back through all of them.
The layer at which it begins is data: one program serves all.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax import Array, lax
from jax.extend.core import Literal, jaxpr_as_fun
import jax.numpy as jnp

from interp_jax.core.jaxprs import closed, rebind, scan_counts


def skipping(back: Callable[..., Any], n_layers: int, n_used: Array) -> Callable[..., Any]:
    """A backward pass without the iterations of its scan over layers that have zeros alone to take back.

    Args:
      back: a function of pytrees of arrays that goes back through layers, such as `jax.vjp` gives.
      n_layers: the length of the scan. Where there is none, or more than one, nothing is left out.
      n_used: how many of the first layers have operands that are not all zero, int32 `[]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> step = lambda x, w: (x * w, x * w)
      >>> _, back = jax.vjp(lambda x: jax.lax.scan(step, x, jnp.array([2.0, 3.0, 5.0]))[1], 1.0)
      >>> skipping(back, 3, jnp.int32(2))(jnp.array([0.0, 1.0, 0.0]))[0].item()
      6.0
    """

    def run(*args: Any) -> Any:
        traced, shapes = jax.make_jaxpr(back, return_shape=True)(*args)
        if len(list(_backward(traced.jaxpr, n_layers))) != 1:
            return back(*args)
        outs = _evaluate(traced, jax.tree.leaves(args), n_layers, n_layers - n_used)
        return jax.tree.unflatten(jax.tree.structure(shapes), outs)

    return run


def _is_call(eqn: Any) -> bool:
    return eqn.primitive.name in ("jit", "pjit")


def _is_backward(eqn: Any, length: int) -> bool:
    return eqn.primitive.name == "scan" and eqn.params["reverse"] and eqn.params["length"] == length


def _backward(jaxpr: Any, length: int) -> Iterator[Any]:
    """The scans of a length that go from the last to the first."""
    for eqn in jaxpr.eqns:
        if _is_call(eqn):
            yield from _backward(closed(eqn.params["jaxpr"]).jaxpr, length)
        elif _is_backward(eqn, length):
            yield eqn


def _evaluate(program: Any, args: Sequence[Any], length: int, skipped: Array) -> list[Any]:
    jaxpr = program.jaxpr
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *args], strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else known[atom]  # noqa: E731
    for eqn in jaxpr.eqns:
        values = [read(atom) for atom in eqn.invars]
        if _is_backward(eqn, length):
            outs = _loop(eqn, values, skipped)
        elif _is_call(eqn):
            outs = _evaluate(closed(eqn.params["jaxpr"]), values, length, skipped)
        else:
            outs = rebind(eqn, values)
        known.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _loop(eqn: Any, values: list[Any], skipped: Array) -> list[Any]:
    """A backward scan without its first iterations, whose operands and results are zero."""
    n_consts, n_carry = scan_counts(eqn)
    length, body = eqn.params["length"], jaxpr_as_fun(closed(eqn.params["jaxpr"]))
    consts, carry, xs = values[:n_consts], values[n_consts : n_consts + n_carry], values[n_consts + n_carry :]
    stacked = [jnp.zeros(var.aval.shape, var.aval.dtype) for var in eqn.outvars[n_carry:]]

    def step(i: Array, state: tuple[list[Array], list[Array]]) -> tuple[list[Array], list[Array]]:
        carry, stacked = state
        here = [lax.dynamic_index_in_dim(x, length - 1 - i, keepdims=False) for x in xs]
        outs = body(*consts, *carry, *here)
        each = zip(stacked, outs[n_carry:], strict=True)
        return outs[:n_carry], [lax.dynamic_update_index_in_dim(x, out, length - 1 - i, 0) for x, out in each]

    carry, stacked = lax.fori_loop(skipped, length, step, (list(carry), stacked))
    return [*carry, *stacked]
