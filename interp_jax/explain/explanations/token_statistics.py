"""An explanation without a language model: the words on which a unit fires, or before or after which, and how strongly.

It is the honest baseline of all others, and what is done offline: a text, and a simulator that does what it says.
Caveat: it knows words and their neighbours. A unit that is about the context is described by the words that are
commonest there, and its scores say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp_jax.explain.explanations.asking import Question, known
from interp_jax.explain.explanations.evidence import MOST, Evidence
from interp_jax.explain.records.excerpts import Excerpt
from interp_jax.explain.records.firings import Firings
from interp_jax.explain.records.labels import RELATIONS, Words, label, words

N_WORDS = 10  # that are named, at most


@dataclass(frozen=True)
class TokenStatistics:
    """What a unit does on words, or on tokens before or after them.

    Attributes:
      relation: `"on"` these words, or `"before"` or `"after"` them.
      levels: word -> the mean level there, above 0 and at most 10, the weightiest word first.
    """

    relation: str
    levels: dict[str, float]

    def __str__(self) -> str:
        told = ", ".join(f"{word} {level:.0f}" for word, level in self.levels.items())
        return f"{self.relation}: {told}"

    def simulate(self, texts: Sequence[tuple[str, ...]]) -> Question[list[np.ndarray | None]]:
        """The level at each token of each text, float `[token]`, as `simulators` have it; nothing is asked."""
        said = _words(texts)
        numbers = np.array([self.levels.get(word, 0.0) for word in said.strings] + [0.0])  # -1: no word
        levels = numbers[_related(said, said.ordinal, self.relation)]
        return known([row[: len(tokens)] for row, tokens in zip(levels, texts, strict=True)])


def by_statistics(evidence: Evidence) -> Question[TokenStatistics | None]:
    """Explains a unit by the words of the texts that explain it, beside those of the background.

    Where the text is split into words as `explain.words` does it, and the choice of words and of the relation is that
    of `explain.label`; levels are means over all occurrences in these texts, so that a word on which the unit fires
    only now and then has a low one.

    Returns:
      A question without requests. Its answer is None where the unit does not fire in `train`.

    Example:
      >>> from interp_jax import explain
      >>> fires = explain.Excerpt((" the", " old", " cat"), (0.0, 0.0, 2.0), 2)
      >>> silent = explain.Excerpt((" a", " dog", " ran", " to", " me"), (0.0,) * 5, 0)
      >>> evidence = explain.Evidence((fires,) * 9, (), (), background=(silent,) * 9)
      >>> found = explain.ask(None, explain.by_statistics(evidence))
      >>> str(found), found.simulate([(" my", " cat")]).read(())[0].tolist()
      ('on: cat 10', [0.0, 10.0])
    """
    return known(fit((*evidence.train, *evidence.background), evidence.maximum))


def fit(excerpts: Sequence[Excerpt], maximum: float) -> TokenStatistics | None:
    """The statistics of these excerpts, at levels of which 10 is `maximum`; None where nothing fires."""
    if maximum <= 0:
        return None
    said = _words([one.tokens for one in excerpts])
    values = np.zeros(said.ids.shape, np.float32)
    for row, one in zip(values, excerpts, strict=True):
        row[: len(one.values)] = np.maximum(one.values, 0)
    places = np.flatnonzero(values.reshape(-1) > 0).astype(np.int32)
    fired = values.reshape(-1)[places]
    mask = said.ids >= 0
    batch = (np.zeros(len(places), np.int64), places, fired)
    found = label(Firings.of_batches([batch], 1, mask), said, 0)
    related = _related(said, said.ordinal.reshape(-1), found.relation)
    known_word = related >= 0
    n = len(said.strings)
    counts = np.bincount(related[known_word], minlength=n)
    sums = np.bincount(related[known_word], np.minimum(values.reshape(-1)[known_word] / maximum, 1.0), minlength=n)
    index = {word: i for i, word in enumerate(said.strings)}
    named = [index[word] for word in found.words[:N_WORDS]]
    levels = {said.strings[i]: float(MOST * sums[i] / counts[i]) for i in named if counts[i]}
    told = {word: level for word, level in levels.items() if round(level)}
    return TokenStatistics(found.relation, told or dict(list(levels.items())[:1]))


def _words(texts: Sequence[tuple[str, ...]]) -> Words:
    """The words of texts that are given as tokens."""
    strings: dict[str, int] = {}
    tokens = np.zeros((len(texts), max(map(len, texts), default=0)), np.int32)
    mask = np.zeros(tokens.shape, bool)
    for i, text in enumerate(texts):
        mask[i, : len(text)] = True
        tokens[i, : len(text)] = [strings.setdefault(_piece(token), len(strings)) for token in text]
    return words(tokens, mask, list(strings))


def _piece(token: str) -> str:
    """The token, or a mark in place of an empty one, which belongs to no word."""
    return token or "�"


def _related(said: Words, ordinals: np.ndarray, relation: str) -> np.ndarray:
    """The word on, before or after which each token stands, -1 where there is none."""
    at = ordinals + RELATIONS[relation]
    inside = (ordinals >= 0) & (at >= 0) & (at < len(said.running))
    return np.where(inside, said.running[np.clip(at, 0, len(said.running) - 1)], -1)
