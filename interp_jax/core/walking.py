"""Which sites a jaxpr declares, and where: a walk over its equations and those of the jaxprs inside it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from interp_jax.core.jaxprs import closed, is_differentiated, subjaxprs


class Span(NamedTuple):
    """A site's place in one loop around it: iterations `start` to `start + length`.

    `real` says whether a scan runs these iterations; a Python loop, or one iteration that a transform has taken out
    of a scan, has length 1 and is not real.
    """

    start: int
    length: int
    real: bool


class Found(NamedTuple):
    """One site equation of a jaxpr."""

    name: str
    aval: Any
    params: dict[str, Any]
    spans: tuple[Span, ...]
    depth: int  # number of scans around it
    differentiated: bool
    again: bool  # in a differentiated remat: if the site stood before, this recomputes it in a backward pass
    copy: bool  # known by name only
    on_demand: bool
    barrier: str | None  # the primitive that the transforms cannot enter
    read_only: bool = False  # tagged by jax's checkpoint_name in somebody else's model


def site_spans(loops: tuple[Span, ...] | None, layer: int | None, frames: Sequence[Span]) -> tuple[Span, ...]:
    """Where a site stands, given the scans around it, outermost first.

    `loops` is what a transform noted on the site when it cut a scan: it covers the innermost of the real scans.
    """
    if loops is None:
        spans = list(frames)
    else:
        pieces = iter(frames[len(frames) - sum(span.real for span in loops) :])
        spans = list(frames[: len(frames) - sum(span.real for span in loops)])
        for span in loops:
            if not span.real:
                spans.append(span)
                continue
            piece = next(pieces)
            spans.append(Span(span.start + piece.start, piece.length, piece.real))
    return (*spans, Span(layer, 1, False)) if layer is not None else tuple(spans)


_PLAIN: dict[str, Any] = {
    "differentiated": False,
    "again": False,
    "copy": False,
    "on_demand": False,
    "barrier": None,
}


def walk(jaxpr: Any, frames: tuple[Span, ...] = (), state: dict[str, Any] = _PLAIN) -> Iterator[Found]:
    """Every site equation in a closed jaxpr and in the jaxprs inside it, in program order."""
    for eqn in closed(jaxpr).jaxpr.eqns:
        yield from walk_equation(eqn, frames, state)


def walk_equation(eqn: Any, frames: tuple[Span, ...], state: dict[str, Any] = _PLAIN) -> Iterator[Found]:
    """The site equations in one equation, itself included."""
    kind, params = eqn.primitive.name, eqn.params
    if is_differentiated(eqn) and not state["differentiated"]:
        state = state | {"differentiated": True}
    if kind in ("site", "name"):
        read_only = kind == "name"
        params = named_params(params["name"]) if read_only else params
        spans = site_spans(params["loops"], params["layer"], frames)
        here = state | {"differentiated": state["differentiated"] or params["differentiated"]}
        yield Found(params["name"], eqn.invars[0].aval, params, spans, len(frames), read_only=read_only, **here)
    elif kind == "detail":
        yield from walk(params["detailed"], frames, state | {"on_demand": True})
    elif kind == "mention":
        gone = {"copy": True, "on_demand": True, "differentiated": True}
        yield from walk(params["detailed"], frames, state | gone)
    elif kind == "scan":
        yield from walk(params["jaxpr"], (*frames, Span(0, params["length"], True)), state)
    elif kind == "cond":
        yield from _either(params["branches"], frames, state)
    elif kind in REMAT:
        yield from walk(params["jaxpr"], frames, state | {"again": state["again"] or params["differentiated"]})
    else:
        barrier = state["barrier"] or (None if kind in ENTERED else kind)
        for inner in subjaxprs(eqn):
            yield from walk(inner, frames, state | {"barrier": barrier})


def named_params(name: str) -> dict[str, Any]:
    """The parameters of a site that `jax.ad_checkpoint.checkpoint_name` declares, which knows only its name."""
    return {"name": name, "layer": None, "axes": None, "offset_axes": (), "marks": ()} | {
        "mapped": (),
        "loops": None,
        "differentiated": False,
    }


# Primitives besides scan, cond and remat that the interpreter evaluates step by step.
CALLS = frozenset({"closed_call", "core_call", "eval_jaxpr"})
CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
REMAT = frozenset({"remat2", "remat", "checkpoint"})
ENTERED = CALLS | CUSTOM | {"jit", "pjit", "while", "shard_map"}


def _either(branches: Sequence[Any], frames: tuple[Span, ...], state: dict[str, Any]) -> Iterator[Found]:
    """The sites of a cond: those of its branches, each told once."""
    seen = set()
    for branch in branches:
        found_here = list(walk(branch, frames, state))
        yield from (found for found in found_here if (found.name, found.spans) not in seen)
        seen |= {(found.name, found.spans) for found in found_here}


def overlap(a: tuple[Span, ...], b: tuple[Span, ...]) -> bool:
    """Whether two sites have an iteration of all their loops in common."""
    return len(a) != len(b) or all(
        x.start < y.start + y.length and y.start < x.start + x.length for x, y in zip(a, b, strict=True)
    )
