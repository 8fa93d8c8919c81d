"""Sentences of a world with labelled spans, as edge probes take them.

Reference: Tenney et al. (2019), "What do you learn from context? Probing for sentence structure in contextualized word
representations", https://arxiv.org/abs/1905.06316.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
import itertools
import random
from typing import Any

import jax
import numpy as np

from interp_jax.data.examples import check_within
from interp_jax.data.prompts import check_tokenizer
from interp_jax.data.trees import Labels, Span
from interp_jax.data.world import World
from interp_jax.data.worlds import WORLDS

KINDS = ("pos", "constituents", "roles", "entities", "coreference")


@dataclass(frozen=True)
class Labelled:
    """Sentences, and items in them: a span, or two spans, with a label.

    Attributes:
      tokens: int32 `[batch position]`, padded on the left.
      mask: bool `[batch position]`, False at padding.
      rows: int32 `[item]`, the index of each item's sentence in the batch.
      spans, others: int32 `[item 2]`, columns at which a span starts and stops, stop not included. Of roles they are
        the verb and the argument, of coreference the later mention and the earlier one; of other kinds both are one.
      labels: int32 `[item]`, indices into `names`.
      names: the world's labels of this kind, sorted, whether or not they occur; of coreference "different" and "same".
    """

    tokens: jax.Array
    mask: jax.Array
    rows: jax.Array
    spans: jax.Array
    others: jax.Array
    labels: jax.Array
    names: tuple[str, ...]


def labelled(
    key: jax.Array, tokenizer: Any, n: int = 64, *, kind: str, world: str = "microworld", split: str = "heldout"
) -> Labelled:
    """Draws sentences with all their labelled spans of one kind.

    Args:
      key: a jax PRNG key.
      tokenizer: of the world's model.
      n: number of sentences. Sentences without a label of this kind are drawn again.
      kind: "pos", "constituents", "roles", "entities" or "coreference".
      world: a name of `WORLDS`.
      split: "heldout" or "train".

    Raises:
      ValueError: n is below 1, an unknown kind, world or split, or a word that is not one token of this tokenizer.

    Example:
      >>> from interp_jax import models
      >>> _, tokenizer = models.load("microworld")
      >>> batch = labelled(jax.random.key(0), tokenizer, n=8, kind="roles")
      >>> batch.spans.shape == batch.others.shape, "agent" in batch.names
      (True, True)
    """
    if kind not in KINDS or world not in WORLDS:
        raise ValueError(
            f"labelled: kind {kind!r} of world {world!r}; there are {', '.join(KINDS)} of {', '.join(WORLDS)}"
        )
    check_within("labelled: n", n, 1)
    check_tokenizer(tokenizer)
    rng = random.Random(int(jax.random.bits(key)))
    drawn = list(itertools.islice(_sentences(rng, WORLDS[world], kind, split), n))
    ids = [tokenizer.encode(" ".join(words)) for words, _ in drawn]
    prefix = len(tokenizer.encode(""))
    whole = [
        len(row) == len(words) + prefix and tokenizer.unk_id not in row
        for (words, _), row in zip(drawn, ids, strict=True)
    ]
    if not all(whole):
        words = drawn[whole.index(False)][0]
        raise ValueError(
            f"labelled: {' '.join(words)!r} is not one token a word in this tokenizer; use that of {world}"
        )
    tokens, mask, first = padded(ids, tokenizer.pad_id)
    items = [item for _, found in drawn for item in found]
    rows = np.repeat(np.arange(n, dtype=np.int32), [len(found) for _, found in drawn])
    names = label_names(world, kind)
    starts = (first + prefix)[rows, None]
    spans, others = (np.array([pair[i][:2] for *pair, _ in items], np.int32) + starts for i in (0, 1))
    labels = np.array([names.index(label) for _, _, label in items], np.int32)
    return Labelled(*map(jax.numpy.asarray, (tokens, mask, rows, spans, others, labels)), names=names)


def padded(ids: list[list[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of tokens of one width, padded on the left.

    Returns:
      tokens int32 and mask bool `[batch position]`, and first int32 `[batch]`, the column of each row's first token.

    >>> tokens, mask, first = padded([[5, 6, 7], [8]], pad_id=0)
    >>> tokens.tolist(), first.tolist()
    ([[5, 6, 7], [0, 0, 8]], [0, 2])
    """
    lengths = np.array([len(line) for line in ids], np.int32)
    first = lengths.max() - lengths
    mask = np.arange(lengths.max()) >= first[:, None]
    tokens = np.full(mask.shape, pad_id, np.int32)
    tokens[mask] = np.concatenate(ids)
    return tokens, mask, first


def by_sentence(batch: Labelled, n_spans: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The items of each sentence side by side, as edge probes take them.

    Args:
      batch: sentences and their items.
      n_spans: 2 for pairs of spans; 1 takes the first of each item alone, for kinds where both are one.

    Returns:
      spans int32 `[sentence item span 2]`, and labels int32 `[sentence item]`, -1 where a sentence has no more items.

    >>> from interp_jax import models
    >>> batch = labelled(jax.random.key(0), models.load("microworld")[1], n=8, kind="roles")
    >>> spans, labels = by_sentence(batch)
    >>> spans.shape[::3], int((labels >= 0).sum()) == len(batch.labels)
    ((8, 2), True)
    """
    rows = np.asarray(batch.rows)
    counts = np.bincount(rows, minlength=len(batch.tokens))
    order = np.argsort(rows, kind="stable")
    column = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    spans = np.zeros((len(counts), counts.max(), n_spans, 2), np.int32)
    labels = np.full(spans.shape[:2], -1, np.int32)
    both = np.stack([batch.spans, batch.others], axis=1)[:, :n_spans]
    spans[rows[order], column], labels[rows[order], column] = both[order], np.asarray(batch.labels)[order]
    return spans, labels


def label_names(world: str, kind: str) -> tuple[str, ...]:
    """The labels of a kind (one of `KINDS`) that the sentences of a world have, sorted.

    >>> label_names("microworld-sums", "entities")
    ('DATE', 'PERSON')
    """
    return _names_of(world)[kind]


@cache
def _names_of(world: str) -> dict[str, tuple[str, ...]]:
    rng = random.Random("label names")
    names: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for make in WORLDS[world].phenomena.values():
        for _ in range(100):  # templates are few: each comes up many times
            labels = WORLDS[world].labels(make(rng, "train"))
            for kind, found in names.items():
                found |= {name for _, _, name in _items(rng, labels, kind)}
    return {kind: tuple(sorted(found)) for kind, found in names.items()}


_Item = tuple[Span, Span, str]  # spans in words, and the label


def _sentences(
    rng: random.Random, world: World, kind: str, split: str
) -> Iterator[tuple[tuple[str, ...], list[_Item]]]:
    for example in world.examples(rng, split=split):
        items = _items(rng, world.labels(example), kind) if example.tree or kind == "pos" else []
        if items:
            yield example.words, items


def _items(rng: random.Random, labels: Labels, kind: str) -> list[_Item]:
    """The labelled spans of one kind; of coreference a random choice of the pairs that differ."""
    if kind == "pos":
        return [(Span(i, i + 1, tag), Span(i, i + 1, tag), tag) for i, tag in enumerate(labels.pos)]
    if kind == "roles":
        return [(verb, argument, argument.label) for verb, argument in labels.roles]
    if kind == "coreference":
        return _pairs(rng, labels)
    return [(span, span, span.label) for span in (labels.entities if kind == "entities" else labels.constituents)]


def _pairs(rng: random.Random, labels: Labels) -> list[_Item]:
    """All pairs of mentions of one thing, and as many random pairs of mentions of two, if there are so many."""
    thing = {span.start: span.start for span in labels.entities}  # mention -> the first one of the same thing
    for later, earlier in labels.coreference:
        thing[later.start] = thing.setdefault(earlier.start, earlier.start)
    mentions = [Span(start, start + 1, "") for start in sorted(thing)]
    pairs = [(b, a) for a, b in itertools.combinations(mentions, 2)]
    same = [pair for pair in pairs if thing[pair[0].start] == thing[pair[1].start]]
    different = [pair for pair in pairs if pair not in same]
    chosen = rng.sample(different, min(len(same), len(different)))
    return [(a, b, "same") for a, b in same] + [(a, b, "different") for a, b in chosen]
