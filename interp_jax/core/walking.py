"""Which sites a jaxpr declares, and where: a walk over its equations and those of the jaxprs inside it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from interp_jax.core.jaxprs import closed, is_differentiated, subjaxprs
from interp_jax.core.paths import Path, Piece, site_path


class Found(NamedTuple):
    """One site equation of a jaxpr."""

    name: str
    aval: Any
    params: dict[str, Any]
    path: Path
    depth: int  # number of scans around it
    differentiated: bool
    again: bool  # in a differentiated remat: if the site stood before, this recomputes it in a backward pass
    copy: bool  # known by name only
    on_demand: bool
    barrier: str | None  # the primitive that the transforms cannot enter
    read_only: bool = False  # tagged by jax's checkpoint_name in somebody else's model


_PLAIN: dict[str, Any] = {
    "differentiated": False,
    "again": False,
    "copy": False,
    "on_demand": False,
    "barrier": None,
}


def walk(jaxpr: Any, around: Path = (), state: dict[str, Any] = _PLAIN) -> Iterator[Found]:
    """Every site equation in a closed jaxpr and in the jaxprs inside it, in program order."""
    for eqn in closed(jaxpr).jaxpr.eqns:
        yield from walk_equation(eqn, around, state)


def walk_equation(eqn: Any, around: Path, state: dict[str, Any] = _PLAIN) -> Iterator[Found]:
    """The site equations in one equation, itself included."""
    kind, params = eqn.primitive.name, eqn.params
    if is_differentiated(eqn) and not state["differentiated"]:
        state = state | {"differentiated": True}
    if kind in ("site", "name"):
        read_only = kind == "name"
        params = named_params(params["name"]) if read_only else params
        path = site_path(params["pieces"], params["layer"], around)
        here = state | {"differentiated": state["differentiated"] or params["differentiated"]}
        yield Found(params["name"], eqn.invars[0].aval, params, path, len(around), read_only=read_only, **here)
    elif kind == "detail":
        yield from walk(params["detailed"], around, state | {"on_demand": True})
    elif kind == "mention":
        gone = {"copy": True, "on_demand": True, "differentiated": True}
        yield from walk(params["detailed"], around, state | gone)
    elif kind == "scan":
        yield from walk(params["jaxpr"], (*around, Piece(0, params["length"], True)), state)
    elif kind == "cond":
        yield from _either(params["branches"], around, state)
    elif kind in REMAT:
        yield from walk(params["jaxpr"], around, state | {"again": state["again"] or params["differentiated"]})
    else:
        barrier = state["barrier"] or (None if kind in ENTERED else kind)
        for inner in subjaxprs(eqn):
            yield from walk(inner, around, state | {"barrier": barrier})


def named_params(name: str) -> dict[str, Any]:
    """The parameters of a site that `jax.ad_checkpoint.checkpoint_name` declares, which knows only its name."""
    return {"name": name, "layer": None, "axes": None, "offset_axes": (), "has_length": False, "marks": ()} | {
        "open_ended": False,
        "mapped": (),
        "pieces": None,
        "differentiated": False,
    }


# Primitives besides scan, cond and remat that the interpreter evaluates step by step.
CALLS = frozenset({"closed_call", "core_call", "eval_jaxpr"})
CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
REMAT = frozenset({"remat2", "remat", "checkpoint"})
ENTERED = CALLS | CUSTOM | {"jit", "pjit", "while", "shard_map"}


def _either(branches: Sequence[Any], around: Path, state: dict[str, Any]) -> Iterator[Found]:
    """The sites of a cond: those of its branches, each told once."""
    seen = set()
    for branch in branches:
        found_here = list(walk(branch, around, state))
        yield from (found for found in found_here if (found.name, found.path) not in seen)
        seen |= {(found.name, found.path) for found in found_here}
