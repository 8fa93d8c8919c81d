"""RASP: programs that are compiled to decoders, so that their circuits are known before any method looks for them."""

from interp_jax.models.rasp.compiler import Compiled, compile
from interp_jax.models.rasp.language import (
    Aggregate,
    Expression,
    Fraction,
    Map,
    Select,
    SelectorWidth,
    evaluate,
    indices,
    tokens,
)
from interp_jax.models.rasp.programs import (
    double_histogram,
    frac_prevs,
    histogram,
    induction,
    length,
    pair_balance,
    reverse,
    sort_unique,
)

__all__ = [
    "Aggregate",
    "Compiled",
    "Expression",
    "Fraction",
    "Map",
    "Select",
    "SelectorWidth",
    "compile",
    "double_histogram",
    "evaluate",
    "frac_prevs",
    "histogram",
    "indices",
    "induction",
    "length",
    "pair_balance",
    "reverse",
    "sort_unique",
    "tokens",
]
