"""What of what a call reads may become an argument of a program: a tracer while that is traced."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from interp_jax.core.kinds import Lift, kind_of

Edges = Sequence[tuple[int, int]]


def can_be_argument(x: Any, kind: str) -> bool:
    """Whether a program can have it as an argument. numpy's integers are counts, as Python's are."""
    if kind == "number":
        return isinstance(x, (float, complex, np.inexact))
    return kind != "numpy" or (
        type(x) is np.ndarray and (x.dtype.kind in "biufc" or x.dtype.kind == "V" and _is_of_jax(x))
    )


def _is_of_jax(x: np.ndarray) -> bool:
    """Whether its dtype is one of jax's own, as bfloat16."""
    return x.dtype.kind == "V" and x.dtype.fields is None and jnp.issubdtype(x.dtype, np.number)


def limits(nodes: Sequence[Any], edges: Edges, asking: Mapping[int, Lift]) -> dict[int, Lift]:
    """By node, what may be lifted there: what a function closes over may go to all functions that it reaches.

    Args:
      nodes: what was read; the first is the call.
      edges: which node holds which other.
      asking: the nodes whose code would do another thing with a tracer, and with which.
    """
    reached = dict.fromkeys(range(len(nodes)), Lift.ALL) | dict(asking)
    _spread(reached, edges, lambda a, b: (a, reached[b]))
    found = {n: lift if _is_code(nodes[n]) else Lift.ALL for n, lift in reached.items()}
    _spread(found, edges, lambda a, b: (b, found[a]))
    found[0] = reached[0]  # the arguments go to every function
    return found


def _is_code(x: Any) -> bool:
    """Whether a node passes what it holds on to functions."""
    return kind_of(type(x)) in ("function", "partial", "method", "class") or callable(x)


def _spread(values: dict[int, Lift], edges: Edges, step: Callable[[int, int], tuple[int, Lift]]) -> None:
    """Raises values along edges until nothing changes."""
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            to, value = step(a, b)
            if value > values[to]:
                values[to], changed = value, True
