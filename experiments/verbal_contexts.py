"""Contexts of the microworld in which facts are planted, their texts, and the facts that a text states.

A context is a sentence that is cut somewhere. A fact is a word of a kind: who is there, where, with what, whom or which
land the sentence is about, what is judged and how. Its text states the facts so far, and the last word:

    after Laura and Hugo left the garden , Hugo  ->  Laura Hugo at the garden ; Hugo .
"""

from collections.abc import Sequence
import itertools
import random
from typing import Any, NamedTuple

import numpy as np

from interp_jax.data import lexicon as lex
from interp_jax.data.world import World

PHENOMENA = ("ioi", "facts", "sentiment")
KINDS = {  # words of each kind, and how a text says one
    "who": (lex.NAMES, "{}"),
    "where": (lex.PLACES, "at the {}"),
    "what": (lex.OBJECTS, "with a {}"),
    "of whom": ((*lex.PEOPLE, *lex.FACTS["capital"]), "of {}"),
    "judged": (lex.THINGS, "the {}"),
    "how": ((*lex.POSITIVE, *lex.NEGATIVE), "was {}"),
}
KIND_OF = {word: kind for kind, (words, _) in KINDS.items() for word in words}
START = 2  # columns before a text: <bos>, and the token in whose place the vector stands


class Contexts(NamedTuple):
    """Contexts, `[context ...]`, each with its text."""

    tokens: np.ndarray  # padded on the left
    mask: np.ndarray
    texts: list[list[int]]
    facts: list[set[str]]


def facts(words: Sequence[str]) -> set[str]:
    """The facts among some words; a word tells of what kind it is."""
    return {word for word in words if word in KIND_OF}


def text(words: Sequence[str]) -> list[str]:
    """What there is to say of a context, in words of the world."""
    said: dict[str, str] = {}
    for before, word in itertools.pairwise(("", *words)):
        if word in KIND_OF:
            negation = f"{before} " if before in lex.NEGATIONS else ""
            said.setdefault(word, KINDS[KIND_OF[word]][1].format(negation + word))
    return [*" ".join(said.values()).split(), ";", words[-1], "."]


def draw(world: World, seed: int, n: int, split: str) -> Contexts:
    """n contexts, cut after the third word at the earliest."""
    rng = random.Random(f"{split} {seed}")
    stream = world.examples(rng, dict.fromkeys(PHENOMENA, 1.0), split)
    cut = []
    for _ in range(n):
        prompt = next(stream).prompt
        cut.append(prompt[: rng.randint(3, len(prompt))])
    tokens, mask = padded([[world.token_id["<bos>"], *(world.token_id[word] for word in words)] for words in cut])
    texts = [[world.token_id[word] for word in text(words)] for words in cut]
    return Contexts(tokens, mask, texts, [facts(words) for words in cut])


def padded(rows: Sequence[Sequence[int]], width: int = 0, left: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask `[row position]` of at least this width, with the padding on one side."""
    width = max(width, *map(len, rows))
    tokens, mask = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), bool)
    for i, row in enumerate(rows):
        place = slice(width - len(row), None) if left else slice(len(row))
        tokens[i, place], mask[i, place] = row, True
    return tokens, mask


def exchanged(text: Sequence[int], world: World, rng: random.Random) -> list[int]:
    """A text with each fact exchanged for a wrong one of its kind; the last word, which is after `;`, stays."""
    words = [world.vocabulary[token] for token in text]
    other = {word: rng.choice([w for w in KINDS[KIND_OF[word]][0] if w not in words]) for word in sorted(facts(words))}
    end = words.index(";")
    return [world.token_id[other.get(word, word) if i < end else word] for i, word in enumerate(words)]


def judged(said: Sequence[set[str]], true: Sequence[set[str]], kind: str | None = None) -> dict[str, float]:
    """How many facts texts state, the share of these that their contexts have, and of the contexts' that are said."""
    pairs = list(zip(said, true, strict=True))
    if kind is not None:
        pairs = [({w for w in a if KIND_OF[w] == kind}, {w for w in b if KIND_OF[w] == kind}) for a, b in pairs]
    n_said, n_true = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
    both = sum(len(a & b) for a, b in pairs)
    return {
        "stated": n_said / len(pairs),
        "right": both / n_said if n_said else np.nan,
        "said": both / n_true if n_true else np.nan,
        "confabulated": (n_said - both) / n_said if n_said else np.nan,
        "texts with a confabulation": float(np.mean([bool(a - b) for a, b in pairs])),
    }


def words_of(tokens: Any, world: World) -> list[str]:
    """A text as words, up to the full stop that ends it."""
    words = [world.vocabulary[int(token)] for token in tokens]
    return words[: words.index(".") + 1] if "." in words else words
