"""What the axes of a value follow, and how each primitive carries it on.

An axis of a value *follows* a source (an axis of an input, of a constant or of a site) if its place i depends on place
i of the source. A value *mixes* a source if it depends on other places of it, too: after a sum over the axis, or a
shift along it. What is not known of a primitive counts as mixing.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
import math
from typing import Any, NamedTuple

Sources = frozenset[Hashable]
NONE: Sources = frozenset()


@dataclass(frozen=True)
class Flow:
    """The sources that each axis of a value follows, and those that the value mixes."""

    axes: tuple[Sources, ...] = ()
    mixed: Sources = NONE

    def __or__(self, other: "Flow") -> "Flow":
        axes = tuple(a | b for a, b in zip(self.axes, other.axes, strict=True))
        return Flow(axes, self.mixed | other.mixed)

    def all_mixed(self) -> Sources:
        return self.mixed.union(*map(plain, self.axes))

    def mixing(self, *more: Sources) -> "Flow":
        """The same, mixing more: and what two axes follow, since place i of one meets place j of the other."""
        several = {s for i, a in enumerate(self.axes) for b in self.axes[i + 1 :] for s in a & b}
        return Flow(self.axes, self.mixed.union(several, *more))

    def keeps(self, axis: int, source: Hashable) -> bool:
        """Whether each place along an axis depends on a source's same place alone, if on any."""
        others = (plain(sources) for a, sources in enumerate(self.axes) if a != axis)
        return source not in self.mixed.union(*others)


def source(shape: Sequence[int], name: Hashable) -> Flow:
    """Of a value that stands for itself: its axis `a` follows `(name, a)`, unless it has one place only."""
    return Flow(tuple(frozenset({(name, a)}) if n > 1 else NONE for a, n in enumerate(shape)))


class Merged(NamedTuple):
    """What an axis follows that a reshape has made of several: of each, its size and its sources."""

    sizes: tuple[int, ...]
    parts: tuple[Sources, ...]


def plain(sources: Sources) -> Sources:
    """The sources themselves, also of axes that were merged."""
    return NONE.union(*(plain(NONE.union(*s.parts)) if isinstance(s, Merged) else {s} for s in sources))


def carried(eqn: Any, aval: Any, flows: list[Flow]) -> Flow:
    """The flow of one result of an equation, given those of its operands."""
    shape, kind = getattr(aval, "shape", ()), eqn.primitive.name
    shapes = [tuple(getattr(var.aval, "shape", ())) for var in eqn.invars]
    rule = _rule(kind) if flows else None
    if rule is None:  # whatever it is, it is another thing at each place
        return source(shape, (kind, id(eqn))).mixing(NONE.union(*(flow.all_mixed() for flow in flows)))
    axes = tuple(rule(eqn.params, flows, shapes, shape))
    kept = plain(NONE.union(*axes))
    return Flow(axes).mixing(*(flow.all_mixed() - (kept - flow.mixed) for flow in flows))


# One rule a family of primitives: (params, flows of the operands, their shapes, shape of the result) -> its axes. What
# the operands' axes follow and no axis of the result does is mixed.

_ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp clz complex conj
    convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag
    integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or polygamma population_count
    pow real reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin
    sinh sqrt square stop_gradient sub tan tanh xor mention pvary pcast reshard sharding_constraint
    optimization_barrier""".split()
)
_ALONG = frozenset("cumsum cumprod cummax cummin cumlogsumexp rev sort".split())  # shapes stay, places along `axes` mix
Rule = Callable[[dict[str, Any], list[Flow], list[tuple[int, ...]], tuple[int, ...]], Iterable[Sources]]


def _rule(kind: str) -> Rule | None:
    if kind in _ELEMENTWISE:
        return _elementwise
    if kind in _ALONG:
        return _along
    if kind.startswith(("reduce_", "arg")):
        return _reduced
    return _RULES.get(kind)


def _elementwise(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """Of scalars and of axes of one place there is nothing to follow."""
    full = [(f, s) for f, s in zip(flows, shapes, strict=True) if len(s) == len(shape)]
    return [NONE.union(*(f.axes[a] for f, s in full if s[a] == n)) for a, n in enumerate(shape)]


def _along(params: Any, flows: list[Flow], shapes: Any, shape: tuple[int, ...]) -> Any:
    at = params.get("axis", params.get("dimension", params.get("dimensions")))
    at = at if isinstance(at, tuple) else (at,)
    return (NONE if a in at else NONE.union(*(f.axes[a] for f in flows)) for a in range(len(shape)))


def _reduced(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    return (s for a, s in enumerate(flows[0].axes) if a not in params["axes"])


def _transpose(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    return (flows[0].axes[a] for a in params["permutation"])


def _broadcast(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    to = {a: i for i, a in enumerate(params["broadcast_dimensions"]) if shapes[0][i] == shape[a]}
    return (flows[0].axes[to[a]] if a in to else NONE for a in range(len(shape)))


def _reshape(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """Axes that are merged stay together until they are parted again."""
    old = [(n, s) for n, s in zip(shapes[0], flows[0].axes, strict=True) if n != 1]
    new = [n for n in shape if n != 1]
    following: list[Sources] = []
    while new:
        a, b = [old.pop(0)] if old else [], [new.pop(0)]
        while math.prod(n for n, _ in a) != math.prod(b):
            if math.prod(n for n, _ in a) < math.prod(b):
                a.append(old.pop(0))
            else:
                b.append(new.pop(0))
        following += _regrouped(a, b)
    each = iter(following)
    return [NONE if n == 1 else next(each) for n in shape]


def _regrouped(old: list[tuple[int, Sources]], new: list[int]) -> list[Sources]:
    if [n for n, _ in old] == new:
        return [sources for _, sources in old]
    if len(new) == 1:
        return [frozenset({Merged(tuple(n for n, _ in old), tuple(sources for _, sources in old))})]
    parted = [s.parts for s in old[0][1] if len(old) == 1 and isinstance(s, Merged) and list(s.sizes) == new]
    return [NONE.union(*parts) for parts in zip(*parted, strict=True)] if parted else [NONE] * len(new)


def _squeeze(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    dropped = {a % len(shapes[0]) for a in params["dimensions"]}
    return (s for a, s in enumerate(flows[0].axes) if a not in dropped)


def _dot(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: Any) -> Any:
    (contracted, batched) = params["dimension_numbers"]
    yield from (flows[0].axes[a] | flows[1].axes[b] for a, b in zip(*batched, strict=True))
    for flow, used in zip(flows, zip(contracted, batched, strict=True), strict=False):
        yield from (s for a, s in enumerate(flow.axes) if a not in (*used[0], *used[1]))


def _concatenate(params: Any, flows: list[Flow], shapes: Any, shape: tuple[int, ...]) -> Any:
    return (
        NONE if a == params["dimension"] and len(flows) > 1 else NONE.union(*(f.axes[a] for f in flows))
        for a in range(len(shape))
    )


def _sliced(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """An axis that is taken whole stays."""
    return (s if shapes[0][a] == shape[a] else NONE for a, s in enumerate(flows[0].axes))


def _updated(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    whole = (n == shapes[1][a] for a, n in enumerate(shape))
    return [flows[0].axes[a] | flows[1].axes[a] if kept else NONE for a, kept in enumerate(whole)]


def _padded(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    return [
        s if tuple(by) == (0, 0, 0) else NONE for s, by in zip(flows[0].axes, params["padding_config"], strict=True)
    ]


def _split(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    return [NONE if a == params["axis"] else s for a, s in enumerate(flows[0].axes)]


def _top_k(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    return [*flows[0].axes[:-1], NONE]


def _gathered(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """Axes of the operand that are taken whole, and those that are batched with the indices."""
    numbers = params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    axes = [NONE] * len(shape)
    for to, a in zip(numbers.offset_dims, (a for a in range(len(shapes[0])) if a not in gone), strict=True):
        if params["slice_sizes"][a] == shapes[0][a]:
            axes[to] = flows[0].axes[a]
    batched = dict(zip(numbers.start_indices_batching_dims, numbers.operand_batching_dims, strict=True))
    for of, to in enumerate(a for a in range(len(shape)) if a not in numbers.offset_dims):
        axes[to] = flows[1].axes[of] | (flows[0].axes[batched[of]] if of in batched else NONE)
    return axes


def _scattered(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """Axes of the operand that each update covers whole, and those that are batched with the indices."""
    numbers = params["dimension_numbers"]
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    axes = [NONE] * len(shape)
    for of, a in zip(numbers.update_window_dims, (a for a in range(len(shape)) if a not in gone), strict=True):
        if shapes[2][of] == shape[a]:
            axes[a] = flows[0].axes[a] | flows[2].axes[of]
    others = [a for a in range(len(shapes[2])) if a not in numbers.update_window_dims]
    for a, of in zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True):
        axes[a] = flows[0].axes[a] | flows[1].axes[of] | flows[2].axes[others[of]]
    return axes


_RULES: dict[str, Rule] = {
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "dot_general": _dot,
    "concatenate": _concatenate,
    "slice": _sliced,
    "dynamic_slice": _sliced,
    "dynamic_update_slice": _updated,
    "pad": _padded,
    "split": _split,
    "top_k": _top_k,
    "gather": _gathered,
    **dict.fromkeys(("scatter", "scatter-add", "scatter_add", "scatter-mul", "scatter-min", "scatter-max"), _scattered),
}
