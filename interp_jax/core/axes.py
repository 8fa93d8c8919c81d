"""Which axes of the values in a jaxpr go together, place by place, and which are mixed (see `flows`)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
import math
from typing import Any

import jax
import jax.core
from jax.extend.core import Literal
import jax.numpy as jnp
import numpy as np

from interp_jax.core.flows import NONE, SHORT, SMALL, Flow, Torn, constant, plain, source
from interp_jax.core.jaxprs import closed, expansion, scan_counts, subjaxprs
from interp_jax.core.primitives import rule_of


class Following:
    """Follows the axes through a jaxpr.

    Attributes:
      sites: name of a site -> the flow of its value, whose axes are sources, too: `((name, "site"), axis)`; none where
        `from_sites` is false.
      unknown: the primitives of which it is not known what they do to axes.
    """

    def __init__(self, *, from_sites: bool = True) -> None:
        self._from_sites = from_sites
        self.sites: dict[str, Flow] = {}
        self.unknown: dict[str, None] = {}

    def run(self, jaxpr: Any, flows: Sequence[Flow]) -> list[Flow]:
        """The flows of the outputs, given those of the inputs."""
        jaxpr = closed(jaxpr)
        env: dict[Any, Flow] = dict(zip(jaxpr.jaxpr.invars, flows, strict=True))
        for var, const in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
            env[var] = constant(const, ("constant", id(const)))

        def read(var: Any) -> Flow:
            return constant(var.val, "literal") if isinstance(var, Literal) else env[var]

        for eqn in jaxpr.jaxpr.eqns:
            env.update(zip(eqn.outvars, self._equation(eqn, list(map(read, eqn.invars))), strict=True))
        return [read(var) for var in jaxpr.jaxpr.outvars]

    def _equation(self, eqn: Any, flows: list[Flow]) -> list[Flow]:
        kind, inner = eqn.primitive.name, subjaxprs(eqn)
        if kind == "site":
            name = eqn.params["name"]
            if not self._from_sites:
                return flows[:1]
            here = flows[0] | source(eqn.invars[0].aval.shape, (name, "site"))
            self.sites[name] = here if name not in self.sites else _either(self.sites[name], here)
            return [here]
        if kind == "scan":
            return self._scan(eqn, flows)
        if kind == "while":
            return self._while(eqn, flows)
        if kind == "cond":
            branches = [self.run(branch, flows[1:]) for branch in eqn.params["branches"]]
            decided = Flow(mixed=flows[0].all_mixed())
            return [_join(outs, decided) for outs in zip(*branches, strict=True)]
        if kind == "detail":
            self.run(eqn.params["detailed"], flows[eqn.params["n_outs"] :])  # for its sites
            return flows[: eqn.params["n_outs"]]
        if kind == "custom_linear_solve":
            return self._linear_solve(eqn, flows)
        if rule_of(kind) is None:
            inside = inner[0] if inner and _takes_the_same(inner[0].jaxpr, eqn) else expansion(eqn)
            if inside is not None:
                return self.run(inside, flows)
            if flows:
                self.unknown[kind] = None
        return [_carried(eqn, var.aval, flows) for var in eqn.outvars]

    def _scan(self, eqn: Any, flows: list[Flow]) -> list[Flow]:
        """A carry follows what it follows in every iteration. What an iteration takes of the scanned inputs reaches its
        own outputs, and later ones through a carry alone."""
        n_consts, n_carry = scan_counts(eqn)
        consts, carry, xs = flows[:n_consts], flows[n_consts : n_consts + n_carry], flows[n_consts + n_carry :]
        iteration = frozenset({("iteration", id(eqn))})
        taken = NONE.union(*(x.axes[0] for x in xs))
        sliced = [Flow(x.axes[1:], x.mixed | iteration) for x in xs]
        for _ in range(2 + n_carry):
            outs = self.run(eqn.params["jaxpr"], [*consts, *carry, *sliced])
            again = [_join((a, b), Flow()) for a, b in zip(carry, outs[:n_carry], strict=True)]
            if again == carry:
                break
            carry = again
        carried = any(iteration & c.all_mixed() for c in carry)
        count = frozenset({(("count", id(eqn)), 0)}) if n_carry else NONE  # a carry may count the iterations
        ys = [
            Flow((count | taken if iteration & y.all_mixed() else count, *y.axes), y.mixed - iteration)
            for y in outs[n_carry:]
        ]
        mixed = taken if carried else NONE
        return [*(Flow(c.axes, (c.mixed - iteration) | mixed) for c in carry), *(y.mixing(mixed) for y in ys)]

    def _linear_solve(self, eqn: Any, flows: list[Flow]) -> list[Flow]:
        """The operands of a linear solve: what each of its functions closes over, then the right-hand sides."""
        lengths = eqn.params["const_lengths"]
        before, total = lengths.matvec + lengths.vecmat, sum(lengths)
        return self.run(eqn.params["jaxprs"].solve, [*flows[before : before + lengths.solve], *flows[total:]])

    def _while(self, eqn: Any, flows: list[Flow]) -> list[Flow]:
        n_cond, n_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        cond, body, carry = flows[:n_cond], flows[n_cond : n_cond + n_body], flows[n_cond + n_body :]
        for _ in range(2 + len(carry)):
            (go,) = self.run(eqn.params["cond_jaxpr"], [*cond, *carry])
            outs = self.run(eqn.params["body_jaxpr"], [*body, *carry])
            again = [_join((a, b), Flow(mixed=go.all_mixed())) for a, b in zip(carry, outs, strict=True)]
            if again == carry:
                break
            carry = again
        return carry


def _carried(eqn: Any, aval: Any, flows: list[Flow]) -> Flow:
    """The flow of one result of an equation, given those of its operands."""
    shape, kind = tuple(getattr(aval, "shape", ())), eqn.primitive.name
    if (known := _evaluated(eqn, aval, flows)) is not None:
        return constant(known, (kind, id(eqn)))
    shapes = [tuple(getattr(var.aval, "shape", ())) for var in eqn.invars]
    own, rule = source(shape, (kind, id(eqn))).axes, rule_of(kind)
    if rule is None or not flows:  # whatever it is, it is another thing at each place
        return Flow(own).mixing(NONE.union(*(flow.all_mixed() for flow in flows)))
    axes = tuple(own[a] if s is None else s for a, s in enumerate(rule(eqn.params, flows, shapes, shape)))
    torn = plain(frozenset(s.source for sources in axes for s in sources if isinstance(s, Torn)))
    kept = plain(NONE.union(*axes))
    flow = Flow(axes).mixing(torn, *(flow.all_mixed() - (kept - flow.mixed) for flow in flows))
    if kind == "concatenate" and eqn.params["dimension"] == len(shape) - 1:
        flow = replace(flow, columns=_columns(flows, shapes) if shape[-1] <= SHORT else ())  # type: ignore[misc]
    return flow


def _columns(flows: list[Flow], shapes: list[tuple[int, ...]]) -> tuple[Flow, ...]:
    each = [f.columns or (Flow(f.axes[:-1], f.mixed),) * s[-1] for f, s in zip(flows, shapes, strict=True)]
    return tuple(column for columns in each for column in columns)


def _evaluated(eqn: Any, aval: Any, flows: list[Flow]) -> Any:
    """A small array of integers that is made of known ones, or of nothing."""
    dtype = getattr(aval, "dtype", None)
    if eqn.primitive.multiple_results or eqn.effects or not isinstance(dtype, np.dtype) or dtype.kind not in "biu":
        return None
    if math.prod(aval.shape) > SMALL or any(flow.known is None for flow in flows) or eqn.primitive.name not in _FOLDED:
        return None
    with jax.ensure_compile_time_eval():
        args = [jnp.asarray(f.known, v.aval.dtype) for f, v in zip(flows, eqn.invars, strict=True)]
        return np.asarray(eqn.primitive.bind(*args, **eqn.params))


_FOLDED = frozenset(
    "iota add sub mul lt le gt ge eq ne and or not select_n convert_element_type broadcast_in_dim reshape squeeze "
    "transpose concatenate rem min max clamp".split()
)


def _takes_the_same(inner: Any, eqn: Any) -> bool:
    """Whether a function inside an equation is called with its operands, and gives what it gives."""
    if len(inner.invars) != len(eqn.invars) or len(inner.outvars) != len(eqn.outvars):
        return False
    pairs = [*zip(inner.invars, eqn.invars, strict=True), *zip(inner.outvars, eqn.outvars, strict=True)]
    shapes = [[getattr(var.aval, "shape", None) for var in pair] for pair in pairs]
    return eqn.primitive.name == "shard_map" or all(a == b for a, b in shapes)


def _join(flows: Sequence[Flow], also: Flow) -> Flow:
    joined = flows[0]
    for flow in flows[1:]:
        joined = joined | flow
    return joined.mixing(also.mixed)


def _either(a: Flow, b: Flow) -> Flow:
    """The flow of a site that stands in several places: what it follows in all, where their axes are the same."""
    return a | b if len(a.axes) == len(b.axes) else Flow(mixed=a.all_mixed() | b.all_mixed())


class Followed:
    """A function of arrays that was traced once, with what its result follows of its arguments: call it with others.

    Attributes:
      args: the arguments that it was traced with.
      flow: of its result; the sources are `(number of the argument, axis)`.
      unknown: the primitives in it of which nothing is known.
    """

    def __init__(self, jaxpr: Any, args: Sequence[Any]):
        self.args = args
        self._jaxpr = jaxpr
        following = Following(from_sites=False)
        (self.flow,) = following.run(jaxpr, [source(np.shape(x), i) for i, x in enumerate(args)])
        self.unknown = tuple(following.unknown)

    def __call__(self, *args: Any) -> Any:
        args = (*args, *self.args[len(args) :])
        (out,) = jax.core.eval_jaxpr(self._jaxpr.jaxpr, self._jaxpr.consts, *args)
        return out

    def is_uniform(self, axis: int, places: Mapping[int, int]) -> bool:
        """Whether the result is the same function at each place along an axis (negative), of that place alone along
        `places`, an axis (negative) of each argument."""
        own = frozenset((i, at % np.ndim(self.args[i])) for i, at in places.items() if np.ndim(self.args[i]) >= -at)
        others = (sources for a, sources in enumerate(self.flow.axes) if a != axis % len(self.flow.axes))
        return self.flow.axes[axis] <= own and not own & self.flow.mixed.union(*map(plain, others))

    def is_local(self, axes: Sequence[int], args: Iterable[int] = (0,)) -> bool:
        """Whether each place of the result along `axes` (negative) depends on that place of some arguments alone."""
        out = len(self.flow.axes)
        each = [(i, axis) for i in args for axis in axes if np.ndim(self.args[i]) >= -axis]
        return all(self.flow.keeps(axis % out, (i, axis % np.ndim(self.args[i]))) for i, axis in each)


def follow(fn: Callable[..., Any], *args: Any) -> Followed:
    """Traces `fn(*args)`, which is one array."""
    return Followed(jax.make_jaxpr(fn)(*args), args)
