"""Reading what chat models answer, entry by entry: what can be used is used, however the rest looks.

Entries are numbered, `{"1": 0, "2": 1}`, so that an answer that was cut off, or has too few or too many of them, loses
those alone that are not there.
"""

from collections.abc import Mapping
import math
import re

from interp_jax.io.chat import Reply, Token

_ENTRY = re.compile(r"""["']?(\d+)["']?\s*[:=]\s*["']?(\d+)(?=["'\s,;}\]]|$)""")
_DIGITS = re.compile(r"\d+")


def entries(reply: Reply, n: int, most: int) -> dict[int, tuple[int, float]]:
    """The numbers that an answer gives to entries 1 to n.

    An entry that stands there twice with different numbers, or whose number is above `most`, is none.

    Args:
      reply: of a model that was asked for `{"1": number, ...}`.
      n: how many entries there are.
      most: the largest number that is meant.

    Returns:
      Index from 0 -> the number as it was written, and the expected number over the likeliest tokens at its place: as
      written, where the model gives no probabilities.

    Example:
      >>> from interp_jax.explain.explanations import answers
      >>> from interp_jax.io.chat import Reply
      >>> answers.entries(Reply('Here: {"1": 0, "2": 1, "3": 7, "4"'), 4, 1)
      {0: (0, 0.0), 1: (1, 1.0)}
    """
    found: dict[int, tuple[int, float]] = {}
    differ = set()
    for match in _ENTRY.finditer(reply.text):
        index, number = int(match[1]) - 1, int(match[2])
        if not 0 <= index < n or number > most:
            continue
        if index in found and found[index][0] != number:
            differ.add(index)
        mean = expected(top_at(reply, match.start(2)), most)
        found[index] = (number, float(number) if mean is None else mean)
    return {index: entry for index, entry in sorted(found.items()) if index not in differ}


def number(reply: Reply, most: int) -> tuple[int, float] | None:
    """The first number of an answer that was asked for one, as written and expected; None if there is none up to most.

    Example:
      >>> from interp_jax.explain.explanations import answers
      >>> from interp_jax.io.chat import Reply
      >>> answers.number(Reply("It is 7."), 10), answers.number(Reply("I cannot say."), 10)
      ((7, 7.0), None)
    """
    match = _DIGITS.search(reply.text)
    if match is None or int(match[0]) > most:
        return None
    mean = expected(top_at(reply, match.start()), most)
    return int(match[0]), float(match[0]) if mean is None else mean


def top_at(reply: Reply, place: int) -> Mapping[str, float]:
    """The log probabilities of the likeliest tokens where the character `place` of the answer stands."""
    end = 0
    for token in reply.tokens:
        end += len(token.text)
        if place < end:
            return token.top or {token.text: token.log_prob}
    return {}


def expected(top: Mapping[str, float], most: int) -> float | None:
    """The mean number over tokens that are one, weighted by their probabilities; None where none is.

    Example:
      >>> import math
      >>> from interp_jax.explain.explanations import answers
      >>> answers.expected({"2": math.log(0.3), " 4": math.log(0.1), "the": math.log(0.5)}, 10)
      2.5
    """
    total = mean = 0.0
    for text, log_prob in top.items():
        said = text.strip(" \t\n\"':,.}]")
        if said.isascii() and said.isdigit() and int(said) <= most:
            total += math.exp(log_prob)
            mean += math.exp(log_prob) * int(said)
    return mean / total if total > 0 else None


def explanation(reply: Reply, mark: str) -> str | None:
    """The explanation that an answer ends with: what follows the last `mark`, or its only line; None if there is none.

    Example:
      >>> from interp_jax.explain.explanations import answers
      >>> from interp_jax.io.chat import Reply
      >>> answers.explanation(Reply("They are sums.\\nExplanation: numbers that are added."), "Explanation:")
      'numbers that are added'
    """
    before, found, after = reply.text.rpartition(mark)
    lines = [line.strip() for line in after.strip().splitlines() if line.strip()]
    if not lines or (not found and len(lines) > 1):
        return None
    said = lines[0].strip("*_ \"'").removesuffix(".")
    return None if not said or (not found and refuses(said)) else said


def refuses(text: str) -> bool:
    """Whether a text is a refusal: it opens with what models say when they will not answer."""
    openings = ("i cannot", "i can't", "i can not", "i'm sorry", "i am sorry", "sorry", "i'm unable", "i am unable")
    openings += ("as an ai", "i won't", "i will not", "i'm not able", "i am not able")
    return text.strip().casefold().replace("’", "'").startswith(openings)


def tokens_at(tokens: tuple[Token, ...], places: list[int]) -> list[Mapping[str, float]]:
    """The likeliest tokens at several characters, in rising order, of a text that was read."""
    found, end, rest = [], 0, list(places)
    for token in tokens:
        end += len(token.text)
        while rest and rest[0] < end:
            found.append(token.top)
            rest.pop(0)
    return found + [{} for _ in rest]
