"""A page of heads: how each scores among all, what it looks at and writes, and examples by interval. No network.

Luger et al. 2026, "HeadVis", https://transformer-circuits.pub/2026/headvis: six scores of every head as maps, and for a
chosen head the texts where it looks hardest at one token, then some by chance from each fifth of its range, since the
highest alone mislead about what it mostly does.
Caveat: words that a head writes are its direct path to the logits at those places.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp_jax.explain import Excerpt
from interp_jax.heads import Examples, Survey
from interp_jax.report.dashboard import share
from interp_jax.report.rendering import render

NEAR, AROUND = 4, 2  # tokens shown on each side of the one that looks, and of those that it looks at
ENOUGH = 0.2  # of the peak: a key that gets less is shaded where it is in view, and no reason to show its surroundings
GAP = " … "


@dataclass(frozen=True)
class HeadExample:
    """A token that looks, with the attention that it gives to the tokens around, and the words written there."""

    excerpt: Excerpt
    written: tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """What a page shows of one head.

    Attributes:
      layer, head: which.
      share: of its attention, what does not go to the first token.
      scores: `(name, value, rank among all heads)` as they are shown.
      top: examples with the highest peaks.
      intervals: `(low, high, examples)` of the peaks, from the highest fifth down.
      looks_from, looks_at, writes: `(word, share)` over its examples, the most first.
    """

    layer: int
    head: int
    share: float
    scores: tuple[tuple[str, str, str], ...]
    top: tuple[HeadExample, ...]
    intervals: tuple[tuple[float, float, tuple[HeadExample, ...]], ...]
    looks_from: tuple[tuple[str, float], ...]
    looks_at: tuple[tuple[str, float], ...]
    writes: tuple[tuple[str, float], ...]


def describe_head(
    survey: Survey,
    layer: int,
    head: int,
    tokens: Any,
    strings: Sequence[str],
    *,
    mask: Any = None,
    written: Mapping[tuple[int, int], Sequence[str]] | None = None,
    n_words: int = 8,
) -> Head:
    """Gathers what the page shows of one head.

    Args:
      survey: from `heads.survey`.
      layer, head: which head.
      tokens: int `[sequence position]`, the texts of the survey in their order.
      strings: the text of every token of the vocabulary.
      mask: bool `[sequence position]`, False at padding, which is not shown.
      written: the words that the head makes likelier, by (sequence, position) of its examples
        (`survey.places(layer, head)`), such as `weights.top_tokens_written` of `heads.head_output`.
      n_words: words in each list.

    Raises:
      ValueError: a head that the survey does not have, or texts that are not those of the survey.
    """
    shape = survey.share.shape
    if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
        raise ValueError(f"describe_head: head {layer}.{head} of {shape[0]} layers of {shape[1]} heads")
    tokens = np.asarray(tokens)
    if len(tokens) != survey.n_sequences:
        raise ValueError(
            f"describe_head: {len(tokens)} texts for a survey of {survey.n_sequences}; give the texts that it has read"
        )
    real = np.ones(tokens.shape, bool) if mask is None else np.asarray(mask, bool)
    words = written or {}
    seen: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def gathered(examples: Examples, *at: int) -> tuple[HeadExample, ...]:
        found: list[HeadExample] = []
        for i, sequence in enumerate(examples.sequence[layer, head, *at]):
            if sequence < 0:
                continue
            place = (int(sequence), int(examples.position[layer, head, *at, i]))
            keys, weights = (x[layer, head, *at, i] for x in (examples.keys, examples.weights))
            seen[place] = keys[weights > 0], weights[weights > 0]
            row = tokens[place[0]], real[place[0]]
            shown = _excerpt(*row, place[1], *seen[place], strings)
            if all(shown.tokens != other.excerpt.tokens for other in found):  # texts that repeat are shown once
                found.append(HeadExample(shown, tuple(words.get(place, ()))))
        return tuple(found)

    top = gathered(survey.top)
    n = survey.sampled.sequence.shape[2]
    intervals = tuple((i / n, (i + 1) / n, gathered(survey.sampled, i)) for i in reversed(range(n)))
    looks_from, looks_at, writes = (defaultdict[str, float](float) for _ in range(3))
    for (sequence, position), (keys, weights) in seen.items():
        looks_from[strings[int(tokens[sequence, position])]] += 1
        for key, weight in zip(keys, weights, strict=True):
            looks_at[strings[int(tokens[sequence, key])]] += float(weight)
        for word in words.get((sequence, position), ()):
            writes[word] += 1
    return Head(
        layer,
        head,
        float(survey.share[layer, head]),
        tuple(_scored(name.replace("_", " "), values, layer, head) for name, values in survey.scores.items()),
        top,
        intervals,
        *(_shares(counts, n_words) for counts in (looks_from, looks_at, writes)),
    )


def _scored(name: str, values: np.ndarray, layer: int, head: int) -> tuple[str, str, str]:
    value = values[layer, head]
    if not np.isfinite(value):
        return name, "–", ""
    return name, f"{value:.2f}", f"{int(np.nansum(values > value)) + 1} of {values.size}"


def _shares(counts: Mapping[str, float], n: int) -> tuple[tuple[str, float], ...]:
    total = sum(counts.values())
    return tuple((word, count / total) for word, count in sorted(counts.items(), key=lambda pair: -pair[1])[:n])


def _excerpt(
    tokens: np.ndarray, real: np.ndarray, position: int, keys: np.ndarray, weights: np.ndarray, strings: Sequence[str]
) -> Excerpt:
    """The text around the token that looks and around the tokens that it looks at, what lies between left out."""
    given = dict(zip(keys.tolist(), weights.tolist(), strict=True))
    least = ENOUGH * max(given.values(), default=0.0)
    shown = set(range(position - NEAR, position + NEAR + 1))
    for key, weight in given.items():
        shown |= set(range(key - AROUND, key + AROUND + 1)) if weight >= least else set()
    pieces: list[tuple[str, float]] = []
    focus, last = 0, None
    for place in sorted(p for p in shown if 0 <= p < len(tokens) and real[p]):
        if last is not None and place > last + 1:
            pieces.append((GAP, 0.0))
        focus = len(pieces) if place == position else focus
        pieces.append((strings[int(tokens[place])], round(given.get(place, 0.0), 3)))
        last = place
    return Excerpt(tuple(text for text, _ in pieces), tuple(value for _, value in pieces), focus)


def heads_page(heads: Sequence[Head], survey: Survey, *, title: str, facts: Mapping[str, str] | None = None) -> str:
    """The page, as one HTML text that needs nothing else. Whatever it shows is escaped.

    Args:
      heads: from `describe_head`.
      survey: from `heads.survey`, for the maps of all heads.
      title: the heading.
      facts: name -> value, shown in a row under it.

    Example:
      >>> import jax
      >>> from interp_jax import heads, models, report
      >>> model, tokenizer = models.load("microworld")
      >>> texts = jax.random.randint(jax.random.key(0), (4, 12), 3, 641)
      >>> found = heads.survey(models.forward)(model, [texts])
      >>> strings = tokenizer.to_str_tokens(range(tokenizer.d_vocab))
      >>> html = report.heads_page([report.describe_head(found, 1, 2, texts, strings)], found, title="<heads>")
      >>> "&lt;heads&gt;" in html, "Head 1.2" in html, "http" in html
      (True, True, False)
    """
    here = {(one.layer, one.head) for one in heads}
    return render(
        "heads.html",
        heads=heads,
        title=title,
        facts=facts or {},
        maps=[_map(name.replace("_", " "), values, here) for name, values in survey.scores.items()],
        share=share,
    )


def _map(name: str, values: np.ndarray, here: set[tuple[int, int]]) -> dict[str, Any]:
    """A score of all heads as shades between its lowest and its highest."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)
    width = high - low if high > low else 1.0
    cells = [
        {
            "layer": layer,
            "head": head,
            "shade": (float(value) - low) / width if np.isfinite(value) else 0.0,
            "here": (layer, head) in here,
            "title": f"head {layer}.{head}: {value:.3f}" if np.isfinite(value) else f"head {layer}.{head}: –",
        }
        for (layer, head), value in np.ndenumerate(values)
    ]
    height = 10 if values.shape[0] <= 16 else 5
    shown = {"lowest": f"{low:.2f}", "highest": f"{high:.2f}"} if len(known) else {"lowest": "–", "highest": "–"}
    return {"name": name, "shape": values.shape, "cells": cells, "height": height} | shown
