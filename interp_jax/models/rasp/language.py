"""The language: expressions over the tokens and the indices of a sequence, and what they say in plain Python.

Weiss et al. 2021, "Thinking like transformers" (RASP), arXiv:2106.06981; the words are those of its compiler, tracr
(Lindner et al. 2023, arXiv:2301.05062). Every expression has a value at each position. An expression is its object: one
that is used twice is computed once, and two that are written alike are two.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
import itertools
from typing import Any


@dataclass(frozen=True, eq=False)
class Expression:
    """A value at each position of a sequence. `tokens` and `indices`, from 0, are those that are given."""

    @property
    def parts(self) -> tuple["Expression", ...]:
        """The expressions that it is computed from."""
        return ()


@dataclass(frozen=True, eq=False)
class Select:
    """Which positions each position looks at: those whose key, with its query, makes `predicate(key, query)` true.

    Attributes:
      keys, queries: expressions.
      predicate: a function (key, query) -> bool.

    Raises:
      ValueError: keys or queries that are no expressions; a predicate that cannot be called.
    """

    keys: Expression
    queries: Expression
    predicate: Callable[[Any, Any], bool]

    def __post_init__(self) -> None:
        check_expressions("Select", self.keys, self.queries)
        check_callable("Select: predicate", self.predicate)


@dataclass(frozen=True, eq=False)
class _Looking(Expression):
    selector: Select

    def __post_init__(self) -> None:
        if not isinstance(self.selector, Select):
            raise ValueError(f"{type(self).__name__}: the selector must be a Select, not {self.selector!r}")

    @property
    def parts(self) -> tuple[Expression, ...]:
        return self.selector.keys, self.selector.queries


@dataclass(frozen=True, eq=False)
class Map(Expression):
    """`fn` of the values of some expressions at the same position: RASP's elementwise operations.

    Example:
      >>> from interp_jax.models import rasp
      >>> rasp.evaluate(rasp.Map(lambda token, i: token * i, rasp.tokens, rasp.indices), "abc")
      ['', 'b', 'cc']
    """

    fn: Callable[..., Hashable]
    args: tuple[Expression, ...]

    def __init__(self, fn: Any, *args: Any):  # of any type, and checked here
        check_callable("Map: fn", fn)
        if not args:
            raise ValueError("Map: give at least one expression after fn")
        check_expressions("Map", *args)
        object.__setattr__(self, "fn", fn)
        object.__setattr__(self, "args", args)

    @property
    def parts(self) -> tuple[Expression, ...]:
        return self.args


@dataclass(frozen=True, eq=False)
class Aggregate(_Looking):
    """The value at the selected positions, which must be one: of a single position, or the same at all.

    Attributes:
      selector: a `Select`.
      values: an expression.
      default: the value where nothing is selected.

    Example:
      >>> from interp_jax.models import rasp
      >>> previous = rasp.Select(rasp.indices, rasp.indices, lambda key, query: key == query - 1)
      >>> rasp.evaluate(rasp.Aggregate(previous, rasp.tokens), "abc")
      [None, 'a', 'b']
    """

    values: Expression
    default: Hashable = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_expressions("Aggregate", self.values)

    @property
    def parts(self) -> tuple[Expression, ...]:
        return *super().parts, self.values


@dataclass(frozen=True, eq=False)
class Fraction(_Looking):
    """The share of the selected positions at which `values` is true; 0 where nothing is selected.

    It is RASP's aggregate of numbers, for those that are 0 or 1.

    Example:
      >>> from interp_jax.models import rasp
      >>> before = rasp.Select(rasp.indices, rasp.indices, lambda key, query: key <= query)
      >>> rasp.evaluate(rasp.Fraction(before, rasp.Map(lambda token: token == "a", rasp.tokens)), "ab")
      [1.0, 0.5]
    """

    values: Expression

    def __post_init__(self) -> None:
        super().__post_init__()
        check_expressions("Fraction", self.values)

    @property
    def parts(self) -> tuple[Expression, ...]:
        return *super().parts, self.values


@dataclass(frozen=True, eq=False)
class SelectorWidth(_Looking):
    """How many positions are selected.

    Example:
      >>> from interp_jax.models import rasp
      >>> same = rasp.Select(rasp.tokens, rasp.tokens, lambda key, query: key == query)
      >>> rasp.evaluate(rasp.SelectorWidth(same), "aba")
      [2, 1, 2]
    """


tokens = Expression()
indices = Expression()


def check_expressions(name: str, *given: Any) -> None:
    """Raises ValueError where something is not an `Expression`, in the name of what it was given to."""
    for one in given:
        if not isinstance(one, Expression) or (type(one) is Expression and one is not tokens and one is not indices):
            raise ValueError(f"{name}: wants an expression (tokens, indices, Map, Aggregate, ...), not {one!r}")


def check_callable(name: str, fn: Any) -> None:
    """Raises ValueError where something cannot be called."""
    if not callable(fn):
        raise ValueError(f"{name} must be a function, not {fn!r}")


def in_order(*programs: Expression) -> tuple[Expression, ...]:
    """Every expression that some programs are made of, each once, after what it is computed from."""
    found: dict[Expression, None] = {}

    def visit(one: Expression) -> None:
        if one not in found:
            for part in one.parts:
                visit(part)
            found[one] = None

    for program in programs:
        visit(program)
    return tuple(found)


def evaluate(program: Expression, inputs: Sequence[Hashable], *, causal: bool = False) -> list[Hashable]:
    """The value of a program at each position of an input, in plain Python: what its model must say.

    Args:
      program: an expression.
      inputs: the tokens.
      causal: whether a position selects only among those up to itself.

    Raises:
      ValueError: no expression; an `Aggregate` whose selected positions hold several values, or a `Fraction` of values
        other than 0 and 1.

    Example:
      >>> from interp_jax.models import rasp
      >>> rasp.evaluate(rasp.reverse(), "abc")
      ['c', 'b', 'a']
    """
    check_expressions("evaluate", program)
    known: dict[Expression, list[Any]] = {tokens: list(inputs), indices: list(range(len(inputs)))}
    for one in in_order(program):
        if isinstance(one, Map):
            known[one] = list(itertools.starmap(one.fn, zip(*(known[arg] for arg in one.args), strict=True)))
        elif isinstance(one, _Looking):
            known[one] = [_looked_up(one, chosen, known) for chosen in _chosen(one.selector, known, causal)]
    return known[program]


def _chosen(selector: Select, known: dict[Expression, list[Any]], causal: bool) -> Iterator[list[int]]:
    """The positions that each position selects."""
    keys = known[selector.keys]
    for i, query in enumerate(known[selector.queries]):
        seen = keys[: i + 1] if causal else keys
        yield [j for j, key in enumerate(seen) if selector.predicate(key, query)]


def _looked_up(one: _Looking, chosen: list[int], known: dict[Expression, list[Any]]) -> Any:
    if isinstance(one, SelectorWidth):
        return len(chosen)
    assert isinstance(one, Aggregate | Fraction)
    values = [known[one.values][j] for j in chosen]
    if isinstance(one, Fraction):
        if others := [value for value in values if value not in (0, 1)]:
            raise ValueError(f"Fraction: values must be 0 or 1, not {others[0]!r}: make them so by a Map")
        return sum(values) / max(1, len(values))
    if len(set(values)) > 1:
        raise ValueError(
            f"Aggregate: the values {', '.join(map(repr, dict.fromkeys(values)))} are selected at once: select one "
            "position, or take the Fraction of what is 0 or 1"
        )
    return values[0] if values else one.default
