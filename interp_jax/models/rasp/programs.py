"""Programs of the papers on RASP (arXiv:2106.06981) and tracr (arXiv:2301.05062), and induction."""

from collections.abc import Hashable

from interp_jax.models.rasp.language import Aggregate, Expression, Fraction, Map, Select, SelectorWidth, indices, tokens


def _equal(key: Hashable, query: Hashable) -> bool:
    return key == query


def length() -> Expression:
    """How long the input is. Not causal: each position sees all."""
    return SelectorWidth(Select(tokens, tokens, lambda key, query: True))


def histogram(of: Expression = tokens) -> Expression:
    """How often each position's value occurs."""
    return SelectorWidth(Select(of, of, _equal))


def double_histogram() -> Expression:
    """How many positions hold a token that occurs as often as this one's."""
    return histogram(histogram())


def reverse() -> Expression:
    """The input from its end. Not causal."""
    opposite = Map(lambda n, i: n - 1 - i, length(), indices)
    return Aggregate(Select(indices, opposite, _equal), tokens)


def sort_unique() -> Expression:
    """The tokens in their order, of inputs in which each occurs once. Not causal."""
    smaller = SelectorWidth(Select(tokens, tokens, lambda key, query: key < query))
    return Aggregate(Select(smaller, indices, _equal), tokens)


def frac_prevs(token: Hashable) -> Expression:
    """The share of a token among the positions up to each."""
    before = Select(indices, indices, lambda key, query: key <= query)
    return Fraction(before, Map(lambda other: other == token, tokens))


def pair_balance(opening: Hashable = "(", closing: Hashable = ")") -> Expression:
    """The share of opening brackets among the positions up to each, less that of closing ones."""
    return Map(lambda x, y: round(x - y, 6), frac_prevs(opening), frac_prevs(closing))


def induction() -> Expression:
    """What stood after the earlier occurrence of this token, of inputs in which it stands once: a head that looks one
    back, then one that looks for the token that it wrote (Elhage et al. 2021). None where there is no such token.

    Example:
      >>> from interp_jax.models import rasp
      >>> rasp.evaluate(rasp.induction(), "abca", causal=True)
      [None, None, None, 'b']
    """
    previous = Aggregate(Select(indices, indices, lambda key, query: key == query - 1), tokens)
    return Aggregate(Select(previous, tokens, _equal), tokens)
