"""The plan of a compiled program: the values of each expression, which head or MLP computes it, and who reads what.

A map is computed by the first MLP after its arguments, and what looks by a head of the first layer after its parts. How
many positions are selected, or the share of them, is a number, which the MLP of that layer makes one of a list of
values.
Nodes are named as in `interp_jax.nodes`.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
import itertools
from typing import Any

import numpy as np

from interp_jax.models.rasp.language import (
    Aggregate,
    Expression,
    Fraction,
    Map,
    SelectorWidth,
    in_order,
    indices,
    tokens,
)

Looking = Aggregate | Fraction | SelectorWidth
Edge = tuple[str, str]


@dataclass(frozen=True)
class Plan:
    """Where each expression is computed, after those that it needs.

    Attributes:
      order: every expression, each after its parts.
      values: the values that each can have.
      layers: the layer of the head or MLP that computes each, of all but tokens and indices.
      heads: the number of the head within its layer, of each that looks.
      n_heads: how many heads each layer has.
    """

    order: tuple[Expression, ...]
    values: dict[Expression, tuple[Any, ...]]
    layers: dict[Expression, int]
    heads: dict[Expression, int]
    n_heads: int

    @property
    def n_layers(self) -> int:
        return 1 + max(self.layers.values(), default=0)

    def looking(self, layer: int) -> Iterator[Looking]:
        """What heads of a layer compute."""
        return (one for one in self.heads if self.layers[one] == layer and isinstance(one, Looking))

    def writer(self, one: Expression) -> str:
        """The node that writes the values of an expression."""
        if one in (tokens, indices):
            return "embed"
        return self.head(one) if isinstance(one, Aggregate) else f"mlp {self.layers[one]}"

    def head(self, one: Expression) -> str:
        """The node that looks for an expression."""
        return f"head {self.layers[one]}.{self.heads[one]}"

    def matrix(self, one: Looking) -> np.ndarray:
        """Which query selects which key, bool `[query key]`, over the values of both."""
        select = one.selector
        keys, queries = self.values[select.keys], self.values[select.queries]
        return np.array([[bool(_said("predicate", select.predicate, key, query)) for key in keys] for query in queries])

    def edges(self, program: Expression) -> tuple[tuple[Edge, ...], tuple[Edge, ...]]:
        """The edges (sender, receiver) that a program's values go along: all, and those whose values tokens change."""
        found: dict[Edge, bool] = {}
        moving = {tokens: True, indices: False}

        def add(one: Expression, receiver: str) -> bool:
            edge = self.writer(one), receiver
            found[edge] = found.get(edge, False) or moving[one]
            return moving[one]

        for one in in_order(program):
            if isinstance(one, Map):
                moves = [add(arg, self.writer(one)) for arg in one.args]
                moving[one] = any(moves) and len(self.values[one]) > 1
            elif isinstance(one, Looking):
                matrix, head = self.matrix(one), self.head(one)
                reads = []
                if (matrix != matrix[:1]).any():
                    reads.append((one.selector.queries, "q"))
                if (matrix != matrix[:, :1]).any():
                    reads.append((one.selector.keys, "k"))
                if not isinstance(one, SelectorWidth):
                    reads.append((one.values, "v"))
                moves = [add(part, head.replace("head", kind)) for part, kind in reads]
                moving[one] = any(moves)
                if not isinstance(one, Aggregate):
                    found[head, self.writer(one)] = moving[one]
        add(program, "logits")
        return tuple(found), tuple(edge for edge, moves in found.items() if moves)


def plan(
    programs: Sequence[Expression], alphabet: Sequence[Hashable], length: int, rng: np.random.Generator, n_spare: int
) -> Plan:
    """Lays out programs that share one model, for inputs of at most `length` tokens of the alphabet.

    Heads stand in a random order in each layer, with at least `n_spare` among them that compute nothing.
    """
    order = in_order(*programs)
    values: dict[Expression, tuple[Any, ...]] = {tokens: tuple(alphabet), indices: tuple(range(length))}
    ready: dict[Expression, int] = {tokens: -1, indices: -1}  # half-layers: attention is even, an MLP odd
    layers: dict[Expression, int] = {}
    for one in order:
        if one in (tokens, indices):
            continue
        values[one] = _values(one, values, length)
        after = max(ready[part] for part in one.parts) + 1
        half = after + (after + isinstance(one, Map)) % 2
        ready[one] = half + isinstance(one, Fraction | SelectorWidth)
        layers[one] = half // 2
    looking: dict[int, list[Expression]] = {}
    for one in order:
        if isinstance(one, Looking):
            looking.setdefault(layers[one], []).append(one)
    n_heads = max(1, n_spare + max(map(len, looking.values()), default=0))
    heads = {one: int(n) for some in looking.values() for one, n in zip(some, rng.permutation(n_heads), strict=False)}
    return Plan(order, values, layers, heads, n_heads)


def _values(one: Expression, values: dict[Expression, tuple[Any, ...]], length: int) -> tuple[Any, ...]:
    """What an expression can be, each once; numbers of positions and shares from the smallest on."""
    if isinstance(one, Map):
        given = itertools.product(*(values[arg] for arg in one.args))
        return tuple(dict.fromkeys(_said("function of a Map", one.fn, *some) for some in given))
    if isinstance(one, Aggregate):
        return tuple(dict.fromkeys((*values[one.values], one.default)))
    if isinstance(one, SelectorWidth):
        return tuple(range(length + 1))
    assert isinstance(one, Fraction)
    if others := [value for value in values[one.values] if value not in (0, 1)]:
        raise ValueError(f"compile: the values of a Fraction must be 0 or 1, not {others[0]!r}: make them so by a Map")
    return tuple(sorted({n / total for total in range(1, length + 1) for n in range(total + 1)}))


def _said(what: str, fn: Callable[..., Any], *values: Any) -> Any:
    """What a program's function says of values. Raises ValueError where it fails."""
    try:
        return fn(*values)
    except Exception as error:
        raise ValueError(
            f"compile: the {what} fails at {', '.join(map(repr, values))} ({error}): it must take all that it can be "
            "given, with the default of an Aggregate"
        ) from error
