"""The sites of a cond that a vmap has turned into a select: they stand side by side, and a select takes one of them."""

from itertools import combinations
from typing import Any

from jax.extend.core import Literal

from interp_jax.core.jaxprs import closed, subjaxprs


def are_alternatives(jaxpr: Any, name: str) -> bool:
    """Whether wherever a body of the jaxpr declares a site several times, these are the branches of a select."""
    eqns = closed(jaxpr).jaxpr.eqns
    here = [i for i, eqn in enumerate(eqns) if _declares(eqn, name)]
    if len(here) == 1:
        return all(are_alternatives(inner, name) for inner in subjaxprs(eqns[here[0]]))
    cases = _cases(eqns)
    return all(any(_chosen(a, b, case) for case in cases) for a, b in combinations(here, 2))


def _declares(eqn: Any, name: str) -> bool:
    if eqn.primitive.name == "site":
        return eqn.params["name"] == name
    return any(_declares(inside, name) for inner in subjaxprs(eqn) for inside in closed(inner).jaxpr.eqns)


def _cases(eqns: Any) -> list[list[set[int]]]:
    """For each select, the equations that each of its cases is made of."""
    made: dict[Any, set[int]] = {}
    found = []
    for i, eqn in enumerate(eqns):
        read = [made.get(var, set()) for var in eqn.invars if not isinstance(var, Literal)]
        made.update(dict.fromkeys(eqn.outvars, {i}.union(*read)))
        if eqn.primitive.name == "select_n":
            found.append([set() if isinstance(v, Literal) else made.get(v, set()) for v in eqn.invars[1:]])
    return found


def _chosen(a: int, b: int, cases: list[set[int]]) -> bool:
    """Whether one case alone is made of `a` and another alone of `b`."""
    of_a, of_b = ([i for i, case in enumerate(cases) if eqn in case] for eqn in (a, b))
    return len(of_a) == len(of_b) == 1 and of_a != of_b
