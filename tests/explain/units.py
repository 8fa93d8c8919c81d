"""Texts of units whose rule is known, by hand: words drawn at random, and a function that says where the unit fires."""

from collections.abc import Callable, Sequence

import numpy as np

from interp_jax.explain import Evidence, Excerpt

WORDS = tuple(f" {word}" for word in "the a cat dog king queen ran sat old new red hat in on by".split())
Rule = Callable[[Sequence[str]], Sequence[float]]


def excerpt(tokens: Sequence[str], rule: Rule) -> Excerpt:
    values = tuple(float(x) for x in rule(tokens))
    return Excerpt(tuple(tokens), values, int(np.argmax(values)))


def examples(rule: Rule, *, seed: int = 0, n: int = 10, length: int = 12, n_random: int = 30) -> Evidence:
    """`n` texts each to explain and to test by, and as many on which it is silent."""
    rng = np.random.default_rng(seed)
    firing, silent = [], []
    while len(firing) < 2 * n or len(silent) < n:
        one = excerpt([WORDS[i] for i in rng.integers(len(WORDS), size=length)], rule)
        (firing if max(one.values) > 0 else silent).append(one)
    some = [excerpt([WORDS[i] for i in rng.integers(len(WORDS), size=length)], rule) for _ in range(2 * n_random)]
    return Evidence(
        tuple(firing[:n]), tuple(firing[n : 2 * n]), tuple(silent[:n]), tuple(some[:n_random]), tuple(some[n_random:])
    )


def on_cats(tokens: Sequence[str]) -> list[float]:
    return [{" cat": 4.0, " dog": 2.0}.get(token, 0.0) for token in tokens]


def after_kings(tokens: Sequence[str]) -> list[float]:
    return [0.0] + [3.0 * (token == " king") for token in tokens[:-1]]


def before_hats(tokens: Sequence[str]) -> list[float]:
    return [3.0 * (token == " hat") for token in tokens[1:]] + [0.0]


def even_places(tokens: Sequence[str]) -> list[float]:
    """Fires on whatever word stands an even number of words after "red": no word tells it."""
    start = tokens.index(" red") if " red" in tokens else len(tokens)
    return [2.0 * (i > start and (i - start) % 2 == 0) for i in range(len(tokens))]
