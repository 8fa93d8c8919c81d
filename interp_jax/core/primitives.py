"""How each primitive carries on what the axes of its operands follow (see `flows`)."""

from collections.abc import Callable, Iterable, Sequence
import math
from typing import Any

import numpy as np

from interp_jax.core.flows import NONE, Flow, Merged, Sources, Torn

# One rule a family of primitives: (params, flows of the operands, their shapes, shape of the result) -> its axes: what
# each follows, or None where it is another thing at each place. What the operands' axes follow and none of the result's
# does is mixed.

_ELEMENTWISE = frozenset(
    """abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex
    conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma
    igamma_grad_a igammac imag integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul ne neg
    nextafter not or polygamma polynomial population_count pow random_gamma_grad real reduce_precision
    regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign
    sin sinh sqrt square stop_gradient sub tan tanh xor mention pvary pcast reshard sharding_constraint
    optimization_barrier zeta""".split()
)
_ALONG = frozenset("cumsum cumprod cummax cummin cumlogsumexp rev sort".split())  # shapes stay, places along `axes` mix
_REDUCED = frozenset(
    "argmax argmin reduce reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum reduce_xor".split()
)
_WINDOWS = frozenset("reduce_window reduce_window_max reduce_window_min reduce_window_sum".split())
_MATRICES = frozenset("cholesky eig eigh geqrf householder_product lu qr schur svd tridiagonal".split())
Rule = Callable[[dict[str, Any], list[Flow], list[tuple[int, ...]], tuple[int, ...]], Iterable[Sources | None]]


def rule_of(kind: str) -> Rule | None:
    """The rule of a primitive, where it has one."""
    if kind in _ELEMENTWISE:
        return _elementwise
    if kind in _ALONG:
        return _along
    if kind in _REDUCED:
        return _reduced
    if kind in _WINDOWS:
        return _windowed
    if kind in _MATRICES:
        return _matrices
    return _RULES.get(kind)


def _elementwise(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """Of scalars and of axes of one place there is nothing to follow."""
    full = [(f, s) for f, s in zip(flows, shapes, strict=True) if len(s) == len(shape)]
    return [NONE.union(*(f.axes[a] for f, s in full if s[a] == n)) for a, n in enumerate(shape)]


def _recast(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """A number may become several narrower ones along a new last axis, or these one."""
    return [flows[0].axes[a] if a < len(shapes[0]) else None for a in range(len(shape))]


def _along(params: Any, flows: list[Flow], shapes: Any, shape: tuple[int, ...]) -> Any:
    at = params.get("axis", params.get("dimension", params.get("dimensions")))
    at = at if isinstance(at, tuple) else (at,)
    return (None if a in at else NONE.union(*(f.axes[a] for f in flows)) for a in range(len(shape)))


def _reduced(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    over = params.get("axes", params.get("dimensions"))
    each = flows[: len(flows) // 2 or 1]
    return [NONE.union(*(f.axes[a] for f in each)) for a in range(len(shapes[0])) if a not in over]


def _windowed(params: Any, flows: list[Flow], shapes: Any, shape: tuple[int, ...]) -> Any:
    """Axes along which a window has one place."""
    n, each = len(shape), flows[: len(flows) // 2 or 1]
    for a in range(n):
        steps = [params.get(name) or (1,) * n for name in ("window_dimensions", "window_strides", "base_dilation")]
        alone = all(step[a] == 1 for step in steps) and not any(params["padding"][a])
        yield NONE.union(*(f.axes[a] for f in each)) if alone else None


def _matrices(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """All axes but the last two of the first operand are those of a batch."""
    n = len(shapes[0]) - 2
    return [NONE.union(*(f.axes[a] for f in flows)) if a < n else None for a in range(len(shape))]


def _solved(params: Any, flows: list[Flow], shapes: Any, shape: tuple[int, ...]) -> Any:
    """As a batch of matrices, but that each column (from the left), or row, is solved for by itself."""
    axes = [a | b for a, b in zip(flows[0].axes[:-2], flows[1].axes[:-2], strict=True)]
    return [*axes, None, flows[1].axes[-1]] if params["left_side"] else [*axes, flows[1].axes[-2], None]


def _transformed(params: Any, flows: list[Flow], shapes: Any, shape: tuple[int, ...]) -> Any:
    n = len(shape) - len(params["fft_lengths"])
    return [s if a < n else None for a, s in enumerate(flows[0].axes)]


def _convolved(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """Examples stay apart, and so do places along which the kernel has one."""
    numbers, axes = params["dimension_numbers"], [None] * len(shape)
    (left, *seen), (right, _, *kernel), (out, features, *to) = numbers
    if params["batch_group_count"] == 1:
        axes[out] = flows[0].axes[left]
    if params["feature_group_count"] == params["batch_group_count"] == 1:
        axes[features] = flows[1].axes[right]
    for i, (a, of, k) in enumerate(zip(to, seen[1:], kernel, strict=True)):
        steps = [params[name][i] for name in ("window_strides", "lhs_dilation", "rhs_dilation")]
        if shapes[1][k] == 1 and steps == [1, 1, 1] and tuple(params["padding"][i]) == (0, 0):
            axes[a] = flows[0].axes[of]
    return axes


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
        if not any(sources for _, sources in old):
            return [NONE]
        return [frozenset({Merged(tuple(n for n, _ in old), tuple(sources for _, sources in old))})]
    following = [NONE] * len(new)
    for s in NONE.union(*(sources for _, sources in old)):
        fits = len(old) == 1 and isinstance(s, Merged) and list(s.sizes) == new
        parts = s.parts if fits and isinstance(s, Merged) else [frozenset({Torn(s, i)}) for i in range(len(new))]
        following = [a | b for a, b in zip(following, parts, strict=True)]
    return following


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
        None if a == params["dimension"] and len(flows) > 1 else NONE.union(*(f.axes[a] for f in flows))
        for a in range(len(shape))
    )


def _sliced(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """An axis that is taken whole stays, and one that is the same everywhere."""
    return (s if shapes[0][a] == shape[a] or not s else None for a, s in enumerate(flows[0].axes))


def _updated(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    whole = (n == shapes[1][a] for a, n in enumerate(shape))
    return [flows[0].axes[a] | flows[1].axes[a] if kept else None for a, kept in enumerate(whole)]


def _padded(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    return [
        s if tuple(by) == (0, 0, 0) else None for s, by in zip(flows[0].axes, params["padding_config"], strict=True)
    ]


def _split(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    return [None if a == params["axis"] and s else s for a, s in enumerate(flows[0].axes)]


def _top_k(params: Any, flows: list[Flow], shapes: Any, shape: Any) -> Any:
    at = params.get("reduction_dimension", params.get("axis", params.get("dimension", -1))) % len(shape)
    return [None if a == at else s for a, s in enumerate(flows[0].axes)]


def _tiled(params: Any, flows: list[Flow], shapes: Any, shape: tuple[int, ...]) -> Any:
    lead = len(shape) - len(shapes[0])
    return [
        NONE if a < lead else s if shapes[0][a - lead] == shape[a] else None
        for a, s in enumerate((NONE,) * lead + flows[0].axes)
    ]


def _stacked(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """One more axis, or one less."""
    at = params["axis"] % max(len(shape), len(shapes[0]))
    axes = [NONE.union(*(f.axes[a] for f in flows)) for a in range(len(shapes[0]))]
    return [*axes[:at], None, *axes[at:]] if len(shape) > len(axes) else [*axes[:at], *axes[at + 1 :]]


def _counted(flow: Flow, operand_axes: Sequence[Any], shape: tuple[int, ...]) -> dict[int, int]:
    """Column of the indices -> the axis of these along which it counts all places of its axis of the operand."""
    found = {}
    for column, (flow_of, a) in enumerate(zip(flow.columns, operand_axes, strict=False)):
        known = flow_of.known
        if known is None:
            continue
        for axis, n in enumerate(known.shape):
            count = np.arange(n).reshape(-1, *(1,) * (known.ndim - axis - 1))
            if n == shape[a] > 1 and (known == count).all():
                found[column] = axis
    return found


def _indexed(flow: Flow, axis: Any, counted: dict[int, int]) -> Sources:
    """What an axis of the indices follows, but for the columns that count along it."""
    if not flow.columns:
        return flow.axes[axis]
    return NONE.union(*(c.axes[axis] for column, c in enumerate(flow.columns) if counted.get(column) != axis))


def _gathered(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """Axes of the operand that are taken whole, and those that go with an axis of the indices."""
    numbers = params["dimension_numbers"]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    axes = dict.fromkeys(range(len(shape)))
    for to, a in zip(numbers.offset_dims, (a for a in range(len(shapes[0])) if a not in gone), strict=True):
        if params["slice_sizes"][a] == shapes[0][a]:
            axes[to] = flows[0].axes[a]
    counted = _counted(flows[1], numbers.start_index_map, shapes[0])
    taken = {of: numbers.start_index_map[column] for column, of in counted.items()}
    taken |= dict(zip(numbers.start_indices_batching_dims, numbers.operand_batching_dims, strict=True))
    for of, to in enumerate(a for a in range(len(shape)) if a not in numbers.offset_dims):
        axes[to] = _indexed(flows[1], of, counted) | (flows[0].axes[taken[of]] if of in taken else NONE)
    return axes.values()


def _scattered(params: Any, flows: list[Flow], shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> Any:
    """Axes of the operand that each update covers whole, and those that go with an axis of the indices."""
    numbers = params["dimension_numbers"]
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    axes = dict.fromkeys(range(len(shape)))
    for of, a in zip(numbers.update_window_dims, (a for a in range(len(shape)) if a not in gone), strict=True):
        if shapes[2][of] == shape[a]:
            axes[a] = flows[0].axes[a] | flows[2].axes[of]
    counted = _counted(flows[1], numbers.scatter_dims_to_operand_dims, shape)
    given = {numbers.scatter_dims_to_operand_dims[column]: of for column, of in counted.items()}
    given |= dict(zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True))
    others = [a for a in range(len(shapes[2])) if a not in numbers.update_window_dims]
    for a, of in given.items():
        axes[a] = flows[0].axes[a] | _indexed(flows[1], of, counted) | flows[2].axes[others[of]]
    return axes.values()


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
    **dict.fromkeys(("top_k", "approx_top_k"), _top_k),
    **dict.fromkeys(("stack", "unstack"), _stacked),
    "bitcast_convert_type": _recast,
    "tile": _tiled,
    "fft": _transformed,
    "conv_general_dilated": _convolved,
    "triangular_solve": _solved,
    "gather": _gathered,
    **dict.fromkeys(("scatter", "scatter-add", "scatter_add", "scatter-mul", "scatter-min", "scatter-max"), _scattered),
}
