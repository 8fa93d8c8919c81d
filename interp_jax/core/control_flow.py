"""How the interpreter enters control flow: one rule per primitive, each emitted again through public jax.

A rule is `(interpreter, equation, its operands, place, which outputs are needed, what later edits read) -> outputs`.
The rule of a scan, which may be cut into pieces, is in `scans`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from interp_jax.core.detail import detail
from interp_jax.core.interpreter import Interpreter, Rule
from interp_jax.core.jaxprs import out_avals, rebind, subjaxprs, varying, zeros
from interp_jax.core.paths import Path, overlap
from interp_jax.core.plan import Record, Request, covers
from interp_jax.core.scans import scan
from interp_jax.core.walking import CALLS, CUSTOM, REMAT, walk

Array = jax.Array
_NOTHING: frozenset[Request] = frozenset()


def _jit(interp, eqn, values, place, mask, pending):
    params = eqn.params

    def fn(*args: Any) -> Any:
        outs, records = interp.enter(params["jaxpr"], args, place, mask, pending)
        return tuple(outs), records

    fn.__name__ = params["name"]
    options = {}
    if any(isinstance(s, jax.sharding.Sharding) for s in params["in_shardings"]):
        options["in_shardings"] = tuple(params["in_shardings"])
    if any(isinstance(s, jax.sharding.Sharding) for s in params["out_shardings"]):
        needed = zip(params["out_shardings"], mask, strict=True)
        options["out_shardings"] = (tuple(s if need else None for s, need in needed), None)
    if params["compiler_options_kvs"]:
        options["compiler_options"] = dict(params["compiler_options_kvs"])
    outs, records = jax.jit(fn, **options)(*values)
    place.scope.values.update(records)
    return list(outs)


def _call(interp, eqn, values, place, mask, pending):
    return interp.eval(subjaxprs(eqn)[0], values, place, mask, pending)


def _custom(interp, eqn, values, place, mask, pending):
    """An edit inside inlines the function and drops its rule. A capture keeps the rule for the outputs."""
    body = eqn.params["call_jaxpr"]
    edited = {edit.name for edit in interp.edits} | {interp.records[key].name for key in place.deltas}
    if any(interp.active(found) and found.name in edited for found in interp.inside(eqn, place)):
        return interp.eval(body, values, place, mask, pending)

    def run(*args: Any) -> Any:
        return interp.enter(body, args, place, [True] * len(mask), pending)

    def records(*args: Any) -> Any:
        return run(*args)[1]

    def outputs(*args: Any) -> Any:
        return rebind(eqn, list(args))

    wrapped = (_with_jvp if eqn.primitive.name == "custom_jvp_call" else _with_vjp)(run, outputs, records)
    outs, recorded = wrapped(*values)
    place.scope.values.update(recorded)
    return outs


def _with_jvp(run: Callable[..., Any], outputs: Callable[..., Any], records: Callable[..., Any]) -> Any:
    """`run`, whose outputs are differentiated as `outputs` are, and its records as they stand."""
    wrapped = jax.custom_jvp(run)

    def rule(primals: Any, tangents: Any) -> Any:
        outs, records_ = jax.jvp(outputs, primals, tangents), jax.jvp(records, primals, tangents)
        return (outs[0], records_[0]), (outs[1], records_[1])

    wrapped.defjvp(rule)
    return wrapped


def _with_vjp(run: Callable[..., Any], outputs: Callable[..., Any], records: Callable[..., Any]) -> Any:
    wrapped = jax.custom_vjp(run)

    def forward(*args: Any) -> Any:
        outs, back = jax.vjp(outputs, *args)
        recorded, back_records = jax.vjp(records, *args)
        return (outs, recorded), (back, back_records)

    def backward(backs: Any, slopes: Any) -> Any:
        parts = [back(slope) for back, slope in zip(backs, slopes, strict=True)]
        return jax.tree.map(lambda a, b: a if a.dtype == jax.dtypes.float0 else a + b, *parts)

    wrapped.defvjp(forward, backward)
    return wrapped


def _remat(interp, eqn, values, place, mask, pending):
    def fn(*args: Any) -> Any:
        return interp.enter(eqn.params["jaxpr"], args, place, mask, pending)

    wrapped = jax.checkpoint(fn, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
    outs, records = wrapped(*values)
    place.scope.values.update(records)
    return outs


def _detail(interp, eqn, values, place, mask, pending):
    """Takes the detailed computation if one of its own sites is asked for, else declares the choice again."""
    n_outs, detailed = eqn.params["n_outs"], eqn.params["detailed"]
    outs, args = values[:n_outs], values[n_outs:]
    if interp.takes(eqn, place):
        interp.log.details_for(f.name for f in interp.inside(eqn, place))
        return interp.eval(detailed, args, place, mask, pending)
    return detail(
        lambda *_: outs, lambda *args: interp.enter(detailed, args, place, [True] * n_outs, pending)[0], *args
    )


def _cond(interp, eqn, values, place, mask, pending):
    _check_branches(interp, eqn, place.path)
    declared = [list(walk(branch, place.path)) for branch in eqn.params["branches"]]
    everywhere = frozenset(r for r in pending if all(any(covers(f, r) for f in found) for found in declared))

    def enter(branch: Any) -> Any:
        return lambda *args: interp.enter(branch, args, place, mask, everywhere)

    outs, records = jax.lax.switch(values[0], [enter(branch) for branch in eqn.params["branches"]], *values[1:])
    place.scope.values.update(records)
    return outs


def _check_branches(interp: Interpreter, eqn: Any, path: Path) -> None:
    """A capture in a cond needs the same site, alike, in every branch."""
    branches = eqn.params["branches"]
    declared: dict[Any, list[Any]] = {}
    for branch in branches:
        for found in walk(branch, path):
            if interp.wanted(found):
                declared.setdefault((found.name, found.path), []).append((found.aval.shape, str(found.aval.dtype)))
    for (name, _), alike in declared.items():
        if len(alike) != len(branches) or len(set(alike)) > 1:
            raise ValueError(
                f"site {name!r} cannot be captured: {len(alike)} of the {len(branches)} branches of a cond declare it, "
                f"with {sorted(set(alike))}; declare it alike in every branch"
            )


def _while(interp, eqn, values, place, mask, pending):
    """The records of a while loop are those of its last iteration, and zeros if it has none.

    Under a vmap the condition may be one for each example, along the first axes of what the loop carries: an example
    whose loop has ended stays what it is.
    """
    n_cond, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    cond_consts, body_consts, init = values[:n_cond], values[n_cond : n_cond + n_body], values[n_cond + n_body :]

    def go(carry: Any) -> Array:
        (go,), records = interp.enter(eqn.params["cond_jaxpr"], [*cond_consts, *carry], place, [True], _NOTHING)
        for key in records:
            raise ValueError(
                f"site {interp.records[key].name!r} stands in the condition of a while loop: it cannot be captured"
            )
        return go

    def body(carry: Any) -> Any:
        return interp.enter(eqn.params["body_jaxpr"], [*body_consts, *carry], place, [True] * len(init), pending)

    def step(state: Any) -> Any:
        carry, records = state
        going, (new, met) = go(carry), body(carry)
        return jax.tree.map(partial(_still, going), (new, met), (carry, records)) if going.ndim else (new, met)

    n_mapped = len(eqn.params["cond_jaxpr"].out_avals[0].shape)
    records = jax.tree.map(zeros, out_avals(lambda carry: body(carry)[1], init))
    for key in records:
        if n_mapped and len(interp.records[key].mapped) != n_mapped:
            raise ValueError(
                f"site {interp.records[key].name!r} stands in a while loop that runs a number of times for each "
                "example of a vmap, which its own value is not mapped by alone: put capture inside the vmap"
            )
    outs, records = jax.lax.while_loop(lambda state: go(state[0]).any(), step, (init, records))
    place.scope.values.update(records)
    return outs


def _still(going: Array, new: Array, old: Array) -> Array:
    """What is new where an example is still going."""
    return jnp.where(going.reshape(*going.shape, *(1,) * (new.ndim - going.ndim)), new, old)


def _shard_map(interp, eqn, values, place, mask, pending):
    """An edit sees one shard. A record has one axis of shards, after those of the loops inside; so have the deltas, of
    which each shard gets its own."""
    params = eqn.params
    manual = frozenset(params["newly_manual_axes"])
    shards = PartitionSpec(tuple(sorted(manual)))
    outside = sum(piece.scanned for piece in place.path)
    found = interp.inside(eqn, place)

    def is_inside(record: Record) -> bool:
        return any(f.name == record.name and overlap(f.path, record.path) for f in found)

    def loops(key: str) -> int:
        return sum(piece.scanned for piece in interp.records[key].path) - outside

    deltas = {
        key: jnp.moveaxis(delta, loops(key), 0) for key, delta in place.deltas.items() if is_inside(interp.records[key])
    }

    def fn(deltas: Any, *args: Any) -> Any:
        here = place._replace(deltas={key: delta[0] for key, delta in deltas.items()})
        outs, records = interp.enter(params["jaxpr"], args, here, [True] * len(mask), _NOTHING)
        if params["check_vma"]:
            records = jax.tree.map(lambda value: varying(value, manual), records)
        return tuple(outs), jax.tree.map(lambda value: value[None], records)

    outs, records = jax.shard_map(
        fn,
        mesh=params["mesh"],
        in_specs=(shards, *params["in_specs"]),
        out_specs=(tuple(params["out_specs"]), shards),
        check_vma=params["check_vma"],
        axis_names=manual,
    )(deltas, *values)
    for key, value in records.items():
        place.scope.values[key] = jax.tree.map(partial(jnp.moveaxis, source=0, destination=loops(key)), value)
    return list(outs)


RULES: dict[str, Rule] = {
    "jit": _jit,
    "pjit": _jit,
    "detail": _detail,
    "cond": _cond,
    "while": _while,
    "scan": scan,
    "shard_map": _shard_map,
    **dict.fromkeys(CALLS, _call),
    **dict.fromkeys(CUSTOM, _custom),
    **dict.fromkeys(REMAT, _remat),
}
