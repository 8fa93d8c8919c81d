"""Templates with their grammar in them: one string tells words, parts of speech, constituents, roles and coreference.

`(S (NP:agent {giver}) (VP gave/VERB (NP:theme a {object}) (PP:recipient to (NP`

- A word stands for itself; `{slot}` is one word that is given later. `/TAG` overrides the word's usual part of speech.
- `(NP` opens a constituent and `)` at the end of a word closes it. With `:role` it is an argument of the verb of the
  smallest `S` around it. What is still open at the end closes after the last word, before a full stop.
- `she=slot` says that the word means the same as the word in that slot.

Parts of speech are Universal Dependencies' (UPOS), constituents the Penn Treebank's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
import re
from typing import NamedTuple

UPOS = frozenset("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
_TOKEN = re.compile(
    r"(?:\((?P<open>[A-Z]+)(?::(?P<role>\w+))?"
    r"|(?P<word>\S[^\s/=)]*)(?:/(?P<tag>[A-Z]+))?(?:=(?P<slot>\w+))?(?P<close>\)*))(?=\s|$)"
)


def tagged(text: str) -> dict[str, str]:
    """The part of speech of each word, from lines that begin with the part of speech.

    >>> tagged("DET the a\\nADP of")
    {'the': 'DET', 'a': 'DET', 'of': 'ADP'}
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return {word: tag for tag, *words in lines for word in words}


FUNCTION_WORDS = tagged("""
    DET the a an my this some
    ADP of in to at from on for with under near behind beside above about by around
    PRON he she it i you who what where they we me
    AUX is are was were has have will am be
    CCONJ and or but
    SCONJ when while after once that
    ADV so then here now together how not never too
    PUNCT . , ; : / ?
    SYM + = <
""")


class Span(NamedTuple):
    """The words from start to stop, stop not included, with a label."""

    start: int
    stop: int
    label: str


@dataclass(frozen=True)
class Labels:
    """What is known of a sentence. Indices are of words, as in `Example`.

    Attributes:
      pos: the part of speech of every word.
      constituents: spans labelled S, NP, VP, ...; they nest.
      roles: (verb, argument), the argument labelled with its role.
      entities: mentions, labelled with their kind.
      coreference: (mention, an earlier mention of the same thing).
    """

    pos: tuple[str, ...]
    constituents: tuple[Span, ...]
    roles: tuple[tuple[Span, Span], ...]
    entities: tuple[Span, ...]
    coreference: tuple[tuple[Span, Span], ...]


@lru_cache(maxsize=8192)
def plain(tree: str) -> str:
    """The words and slots of a tree, without its grammar.

    >>> plain("(S (NP:agent {giver}) (VP gave/VERB (NP a {object}")
    '{giver} gave a {object}'
    """
    return " ".join(token["word"] for token in _tokens(tree) if token["word"])


def closed(tree: str) -> str:
    """The tree with all its constituents closed, so that another sentence may follow.

    >>> closed("(S (NP box A")
    '(S (NP box A))'
    """
    return tree + ")" * sum(1 if token["open"] else -len(token["close"]) for token in _tokens(tree))


def label(tree: str, words: tuple[str, ...], tags: Mapping[str, str], entities: Mapping[str, str]) -> Labels:
    """The labels of a sentence.

    Args:
      tree: its tree; "" for words without grammar.
      words: those of the sentence, the slots filled.
      tags: word -> its usual part of speech.
      entities: word -> kind of entity, for the words that name one.

    Raises:
      ValueError: words and tree differ, a word has no part of speech, or a role has no verb.
    """
    tokens = [token for token in _tokens(tree or " ".join(words)) if token["word"]]
    if len(tokens) != len(words):
        raise ValueError(f"label: {len(words)} words do not fill the tree {tree!r}, which has {len(tokens)}")
    if missing := [w for w, t in zip(words, tokens, strict=True) if not t["tag"] and w not in tags]:
        raise ValueError(f"label: no part of speech for {', '.join(missing)} in {tree!r}")
    pos = tuple(token["tag"] or tags[word] for word, token in zip(words, tokens, strict=True))
    constituents, roles = _brackets(tree, pos, len(words) - (words[-1] == "."))
    mentions = tuple(Span(i, i + 1, entities[word]) for i, word in enumerate(words) if tree and word in entities)
    coreference = _same_word(words, mentions) + _pronouns(tokens)
    return Labels(pos, constituents, roles, mentions, tuple(sorted(coreference)))


@lru_cache(maxsize=8192)
def _tokens(tree: str) -> tuple[re.Match[str], ...]:
    tokens = tuple(_TOKEN.finditer(tree))
    if [token.group() for token in tokens] != tree.split():
        raise ValueError(f"{tree!r}: its tokens are such as (NP:agent, the, {{slot}}, near/ADJ, she=slot) and word))")
    return tokens


def _brackets(tree: str, pos: tuple[str, ...], end: int) -> tuple[tuple[Span, ...], tuple[tuple[Span, Span], ...]]:
    """Constituents, in the order in which they open, and (verb, argument) pairs."""
    spans: list[Span] = []  # open ones reach to the end
    arguments: list[tuple[int, int | None, str]] = []  # (constituent, the clause around it, role)
    clause_of: list[int | None] = []  # word -> the clause around it
    opened: list[int] = []
    for token in _tokens(tree):
        clause = next((number for number in reversed(opened) if spans[number].label == "S"), None)
        if token["open"]:
            if token["role"]:
                arguments.append((len(spans), clause, token["role"]))
            opened.append(len(spans))
            spans.append(Span(len(clause_of), end, token["open"]))
        else:
            clause_of.append(clause)
            for _ in token["close"]:
                number = opened.pop()
                spans[number] = spans[number]._replace(stop=len(clause_of))
    pairs = [(_verb(clause, clause_of, pos), spans[number]._replace(label=role)) for number, clause, role in arguments]
    return tuple(spans), tuple(sorted((Span(verb, verb + 1, "V"), argument) for verb, argument in pairs))


def _verb(clause: int | None, clause_of: list[int | None], pos: tuple[str, ...]) -> int:
    """The clause's verb: its first full verb, else its first auxiliary."""
    inside = [i for i, around in enumerate(clause_of) if around == clause]
    for wanted in ("VERB", "AUX"):
        for i in inside:
            if pos[i] == wanted:
                return i
    raise ValueError(f"label: a role in a clause without a verb ({' '.join(pos)})")


def _same_word(words: tuple[str, ...], mentions: tuple[Span, ...]) -> tuple[tuple[Span, Span], ...]:
    """Each mention with the one before it that has the same word."""
    last: dict[str, Span] = {}
    pairs = []
    for mention in mentions:
        word = words[mention.start]
        if word in last:
            pairs.append((mention, last[word]))
        last[word] = mention
    return tuple(pairs)


def _pronouns(tokens: list[re.Match[str]]) -> tuple[tuple[Span, Span], ...]:
    """Each word that names a slot with the slot's first place, the later of the two first."""
    where = {token["word"]: i for i, token in reversed(list(enumerate(tokens)))}
    pairs = []
    for i, token in enumerate(tokens):
        if token["slot"]:
            j = where["{" + token["slot"] + "}"]
            earlier, later = sorted((i, j))
            pairs.append((Span(later, later + 1, "same"), Span(earlier, earlier + 1, "same")))
    return tuple(pairs)
