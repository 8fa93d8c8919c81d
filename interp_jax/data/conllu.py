"""Treebanks in the CoNLL-U format of Universal Dependencies: words, parts of speech, and who depends on whom.

Reference: Nivre et al. (2020), "Universal Dependencies v2", https://arxiv.org/abs/2004.10643; the format stands at
https://universaldependencies.org/format.html.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
import random
import re
from typing import Any

import jax
import numpy as np

from interp_jax.data.spans import Labelled, padded
from interp_jax.data.trees import UPOS

RELATIONS = tuple(
    """
    acl advcl advmod amod appos aux case cc ccomp clf compound conj cop csubj dep det discourse dislocated expl fixed
    flat goeswith iobj list mark nmod nsubj nummod obj obl orphan parataxis punct reparandum vocative xcomp
""".split()
)  # without root, which is of no pair
NAMES = {"pos": tuple(sorted(UPOS)), "arcs": ("arc", "none"), "relations": RELATIONS}
KINDS = tuple(NAMES)
_ID = re.compile(r"(\d+)(?:([-.])(\d+))?")


@dataclass(frozen=True)
class Sentence:
    """A sentence of a treebank.

    words: its syntactic words; "don't" is two.
    pos: the universal part of speech of each.
    heads: the index of the word on which each depends, -1 of the root.
    relations: how it depends on it, without subtypes.
    text: the words with the spaces of the original.
    characters: [start, stop) of each word in the text.
    """

    words: tuple[str, ...]
    pos: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]
    text: str
    characters: tuple[tuple[int, int], ...]


def read(file: str | Path) -> list[Sentence]:
    """The sentences of a CoNLL-U file.

    Words of one written token stand in the text as it is written, if that is they one after the other; otherwise each
    by itself (of French "du", "de" and "le"). Empty nodes, and columns that `Sentence` has not, are left out.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is no CoNLL-U, or words, heads or parts of speech are none; names the line.

    Example:
      >>> import tempfile
      >>> lines = ["1-2 don't _ _ _ _ _ _ _ _", "1 do do AUX _ _ 0 root _ _", "2 n't not PART _ _ 1 advmod _ _"]
      >>> with tempfile.NamedTemporaryFile("w") as file:
      ...     _ = file.write("\\n".join(lines).replace(" ", "\\t"))
      ...     file.flush()
      ...     (sentence,) = read(file.name)
      >>> sentence.text, sentence.words, sentence.heads, sentence.characters
      ("don't", ('do', "n't"), (-1, 0), ((0, 2), (2, 5)))
    """
    sentences = []
    lines: list[tuple[int, str]] = []
    with open(file, encoding="utf-8") as stream:
        try:
            for number, line in enumerate([*stream, ""], 1):
                if line.strip():
                    lines += [(number, line.rstrip("\r\n"))] if line[0] != "#" else []
                elif lines:
                    sentences.append(_sentence(file, lines))
                    lines = []
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not CoNLL-U, which is UTF-8: {error}") from None
    if not sentences:
        raise ValueError(f"{file}: has no sentence; give a CoNLL-U file")
    return sentences


def _sentence(file: str | Path, lines: list[tuple[int, str]]) -> Sentence:
    rows: list[list[str]] = []
    last = lines[0][0]  # line of the file
    written: dict[int, tuple[int, str, str]] = {}  # first word of a written token -> its last word, form, notes
    for last, line in lines:
        where, row = f"{file}: line {last}", line.split("\t")
        found = _ID.fullmatch(row[0])
        if len(row) != 10 or not found or (found[2] == "-" and int(found[3]) <= int(found[1])):
            raise ValueError(
                f"{where} is no CoNLL-U: {line[:40]!r} is not ten columns by tabs, of which the first is a number"
            )
        first, kind, other = found.groups()
        if kind == "-":
            written[int(first) - 1] = int(other) - 1, row[1], row[9]
        elif kind is None:
            if int(first) != len(rows) + 1:
                raise ValueError(f"{where}: word {first} stands where word {len(rows) + 1} should")
            if row[3] not in UPOS or not row[6].isdecimal():
                raise ValueError(f"{where}: {row[3]!r} is no part of speech of UD, or {row[6]!r} no head")
            rows.append(row)
    heads = tuple(int(row[6]) - 1 for row in rows)
    if not rows or max(heads) >= len(rows) or any(i == head for i, head in enumerate(heads)):
        raise ValueError(
            f"{file}: the sentence that ends at line {last} has no words, or a head that is none of its others"
        )
    text, characters = _written(rows, written)
    relations = tuple(row[7].split(":")[0] for row in rows)
    return Sentence(tuple(row[1] for row in rows), tuple(row[3] for row in rows), heads, relations, text, characters)


def _written(
    rows: list[list[str]], written: dict[int, tuple[int, str, str]]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text, and where each word stands in it."""
    text, characters, i = "", [], 0
    while i < len(rows):
        last, form, notes = written.get(i, (i, rows[i][1], rows[i][9]))
        words = [row[1] for row in rows[i : last + 1]]
        between = "" if "".join(words) == form else " "
        for word in words:
            characters.append((len(text), len(text) + len(word)))
            text += word + between
        text = text.removesuffix(between) + ("" if "SpaceAfter=No" in notes else " ")
        i = last + 1
    return text.rstrip(), tuple(characters)


def labelled(
    key: jax.Array, tokenizer: Any, sentences: Sequence[Sentence], *, kind: str, n_positions: int = 64
) -> Labelled:
    """The labelled spans of a treebank's sentences, in the tokens of any tokenizer.

    A word's span is all tokens that stand for a character of it; words for which none stands have no items.

    Args:
      key: a jax PRNG key, of the pairs that are no arcs.
      tokenizer: of `models.load`.
      sentences: from `read`.
      kind: "pos", the part of speech of each word; "relations", how a word depends on its head, the word first;
        "arcs", whether the second word is the head of the first: each word with its head ("arc"), and with a word as
        near on the other side, or another at random where there is none ("none").
      n_positions: sentences of more tokens, and those without such items, are left out.

    Raises:
      ValueError: an unknown kind; a relation that is not universal; no sentence is left.

    Example:
      >>> from interp_jax import models
      >>> sentence = Sentence(("See", "it"), ("VERB", "PRON"), (-1, 0), ("root", "obj"), "See it", ((0, 3), (4, 6)))
      >>> batch = labelled(jax.random.key(0), models.load("microworld-bert")[1], [sentence], kind="relations")
      >>> batch.spans.tolist(), batch.others.tolist(), batch.names[batch.labels[0]]
      ([[2, 3]], [[1, 2]], 'obj')
    """
    if kind not in NAMES:
        raise ValueError(f"labelled: kind {kind!r}; there are {', '.join(KINDS)}")
    rng, names = random.Random(int(jax.random.bits(key))), NAMES[kind]
    ids, items = [], []
    for sentence in sentences:
        spans = _tokens_of(tokenizer.offsets(sentence.text), sentence.characters)
        found = [(spans[i], spans[j], label) for i, j, label in _items(rng, sentence, kind) if spans[i] and spans[j]]
        row = tokenizer.encode(sentence.text)
        if found and len(row) <= n_positions:
            ids.append(row)
            items.append(found)
    if not ids:
        raise ValueError(f"labelled: none of {len(sentences)} sentences has {kind} and at most {n_positions} tokens")
    if unknown := {label for found in items for *_, label in found}.difference(names):
        raise ValueError(f"labelled: {', '.join(sorted(unknown))} is no universal relation")
    tokens, mask, first = padded(ids, tokenizer.pad_id)
    rows = np.repeat(np.arange(len(ids), dtype=np.int32), [len(found) for found in items])
    flat = [item for found in items for item in found]
    spans, others = (np.array([item[i] for item in flat], np.int32) + first[rows, None] for i in (0, 1))
    labels = np.array([names.index(label) for *_, label in flat], np.int32)
    return Labelled(*map(jax.numpy.asarray, (tokens, mask, rows, spans, others, labels)), names=names)


def _tokens_of(offsets: np.ndarray, characters: Iterable[tuple[int, int]]) -> list[tuple[int, int] | None]:
    """The tokens [start, stop) that stand for each word; None where none does."""
    found: list[tuple[int, int] | None] = []
    for start, stop in characters:
        covering = np.flatnonzero((offsets[:, 0] < stop) & (offsets[:, 1] > start))
        found.append((int(covering[0]), int(covering[-1]) + 1) if covering.size else None)
    return found


def _items(rng: random.Random, sentence: Sentence, kind: str) -> Iterator[tuple[int, int, str]]:
    for i, (tag, head, relation) in enumerate(zip(sentence.pos, sentence.heads, sentence.relations, strict=True)):
        if kind == "pos":
            yield i, i, tag
        elif head >= 0 and kind == "relations":
            yield i, head, relation
        elif head >= 0:
            others = [j for j in range(len(sentence.words)) if j not in (i, head)]
            if others:
                yield i, head, "arc"
                yield i, 2 * i - head if 2 * i - head in others else rng.choice(others), "none"
