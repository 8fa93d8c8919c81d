"""Explanations of a set of labelled texts: proposed in words, computed for each text, checked by deletion.

An explanation says what texts of one class have. Token statistics propose words that tell the classes apart; a language
model proposes whatever it sees in a few texts of each class, and says of each text whether it has that. An explanation
is faithful to a process that labels texts if the process changes its mind as told when what the explanation names is
deleted, further than it moves, either way, when as many other words are.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
import re
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

Texts = Sequence[str]  # words and marks with spaces around
Judge = Callable[[Texts], np.ndarray]  # how strongly each text is of class 1, `[text]`
STEM = 5  # letters that words share which are proposed together
QUESTION = """Texts of group A:
{ours}

Texts of group B:
{others}

What do the texts of group A have that those of group B have not? Write {n} short properties, one a line."""
ASKED = "Text: {text}\nProperty: {property}\nDoes the text have this property? Answer Yes or No."


class Explanation(NamedTuple):
    """What texts of a class have, in words, and the words that it names; none where a language model judges."""

    text: str
    words: frozenset[str] = frozenset()


class Check(NamedTuple):
    """How far a process moves when words are deleted; it does as told where the whole interval is above 0."""

    n: int  # texts
    named: float  # as told, where the named words go
    others: float  # either way, where as many others go
    low: float  # the interval of the difference, 95 % over texts
    high: float


def by_statistics(texts: Texts, labels: np.ndarray, n: int, least: int) -> list[Explanation]:
    """The n families of words that tell two classes apart the most surely.

    They are ordered by the z-score of their log odds ratio under a Dirichlet prior of the words' own frequencies
    (Monroe et al. 2008, "Fightin' words").

    Args:
      texts, labels: the examples, of class 0 or 1.
      n: how many are proposed.
      least: texts that a family stands in, at least.
    """
    families: dict[str, set[str]] = defaultdict(set)
    counts = Counter(), Counter()
    for text, label in zip(texts, labels, strict=True):
        words = {word for word in text.split() if word.isalpha()}
        for word in words:
            families[word[:STEM]].add(word)
        counts[int(label)].update({word[:STEM] for word in words})
    totals = [sum(count.values()) for count in counts]
    scores = {}
    for stem in families:
        prior = counts[0][stem] + counts[1][stem]
        if prior < least:
            continue
        own = [count[stem] + prior for count in counts]
        odds = [np.log(a / (total + sum(totals) - a)) for a, total in zip(own, totals, strict=True)]
        scores[stem] = abs(odds[1] - odds[0]) / np.sqrt(1 / own[0] + 1 / own[1])
    best = sorted(scores, key=lambda stem: -scores[stem])[:n]
    return [Explanation("says " + " or ".join(sorted(families[stem])), frozenset(families[stem])) for stem in best]


def by_asking(
    ask: Callable[[str], str], texts: Texts, labels: np.ndarray, n: int, n_shown: int, rng: np.random.Generator
) -> list[Explanation]:
    """What a language model proposes, that sees `n_shown` texts of each class, once for either class."""
    found: dict[str, None] = {}
    for ours in (1, 0):
        shown = [rng.permutation(np.flatnonzero(labels == label))[:n_shown] for label in (ours, 1 - ours)]
        lists = ["\n".join(f"- {texts[i]}" for i in some) for some in shown]
        answer = ask(QUESTION.format(ours=lists[0], others=lists[1], n=-(-n // 2)))
        lines = [re.sub(r"^[\s\d.)*-]+", "", line).strip() for line in answer.splitlines()]
        found |= dict.fromkeys([line for line in lines if line][: -(-n // 2)])
    return [Explanation(line) for line in found]


def present(explanations: Sequence[Explanation], texts: Texts) -> np.ndarray:
    """Whether texts have the words that explanations name, float `[text explanation]`."""
    words = [set(text.split()) for text in texts]
    return np.array([[float(bool(own & one.words)) for one in explanations] for own in words])


def asked(odds: Callable[[Sequence[str]], np.ndarray], explanations: Sequence[Explanation], texts: Texts) -> np.ndarray:
    """How much rather a language model says Yes than No when it is asked for each property, `[text explanation]`."""
    prompts = [ASKED.format(text=text, property=one.text) for text in texts for one in explanations]
    return odds(prompts).reshape(len(texts), len(explanations))


def without(text: str, words: frozenset[str]) -> str:
    """The text with these words deleted."""
    return " ".join(word for word in text.split() if word not in words)


def decisive(compute: Callable[[Texts], np.ndarray], text: str) -> frozenset[str]:
    """The word of a text by whose deletion what is computed falls the most: what a property rests on there."""
    words = list(dict.fromkeys(text.split()))
    values = compute([text, *(without(text, frozenset([word])) for word in words)])
    return frozenset([words[int((values[0] - values[1:]).argmax())]])


def checked(process: Judge, texts: Texts, named: Sequence[frozenset[str]], towards: float, seed: int) -> Check:
    """Whether a process moves as an explanation says when what it names is deleted.

    Args:
      process: what is explained.
      texts: that have what the explanation says.
      named: the words of each that it names.
      towards: the explanation's weight, above 0 where it speaks for class 1: then deletion should lower the process.
      seed: of the other words, which are as many, and of the interval, 95 % over texts.
    """
    rng = np.random.default_rng(seed)
    others = []
    for text, words in zip(texts, named, strict=True):
        rest = sorted(set(text.split()) - words)
        n = min(len(words & set(text.split())), len(rest))
        others.append(without(text, frozenset(rng.choice(rest, n, replace=False).tolist() if rest else [])))
    before = process(texts)
    after = process([without(text, words) for text, words in zip(texts, named, strict=True)])
    by_named = (before - after) * np.sign(towards)
    by_others = np.abs(before - process(others))
    each = by_named - by_others
    low = high = float(each.mean())
    if np.ptp(each) > 0:
        told = bootstrap((each,), np.mean, method="percentile", rng=rng, n_resamples=1000)
        low, high = map(float, told.confidence_interval)
    return Check(len(texts), float(by_named.mean()), float(by_others.mean()), low, high)
