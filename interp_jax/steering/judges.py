"""Judges of a continuation: has it the concept, does it answer the instruction, is it fluent; 0, 1 or 2 each.

A judge is any function `(instruction, continuation, concept) -> Scores`: exact where a world says what is right, or a
language model that is asked three questions and ends its answer with "Rating: [[x]]", as in AxBench (Wu et al. 2025,
arXiv:2501.17148). Caveat: an answer that has no such rating is refused, not taken for 0; `axbench.judged` counts them.
"""

from collections.abc import Callable, Sequence
import re
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

RATINGS = (0, 1, 2)
_RATING = re.compile(r"Rating:\s*\[\[\s*([^\[\]]*?)\s*\]\]")


class Scores(NamedTuple):
    """Of one continuation, from 0 to 2 each."""

    concept: float
    instruction: float
    fluency: float


class Questions(NamedTuple):
    """The prompts by which a language model is asked for each score."""

    concept: str
    instruction: str
    fluency: str


@runtime_checkable
class Judge(Protocol):
    """What scores a continuation. It raises `Unrated` where it cannot."""

    def __call__(self, instruction: str, continuation: str, concept: str) -> Scores: ...


class Unrated(ValueError):
    """An answer without a rating, which is not a rating of 0."""


def questions(instruction: str, continuation: str, concept: str) -> Questions:
    """The prompts by which a language model is asked for each of the scores.

    Example:
      >>> from interp_jax.steering import judges
      >>> print(judges.questions("Name a fruit.", "Apple, ahoy!", "pirates").concept.splitlines()[-1])
      End with your rating in exactly this form: "Rating: [[score]]".
    """
    text = f"[Text]\n{continuation}\n[End of text]"
    asked = {
        "concept": (
            "how clearly the text below has the concept below, whatever its grammar and sense",
            "it has nothing of the concept",
            "it touches the concept",
            "the concept is clearly part of it",
            f"[Concept]\n{concept}\n[End of concept]\n\n{text}",
        ),
        "instruction": (
            "how far the text below answers the instruction below, whatever its grammar and its other contents",
            "it has nothing to do with the instruction",
            "it has to do with it, but answers it badly or in part",
            "it answers it",
            f"[Instruction]\n{instruction}\n[End of instruction]\n\n{text}",
        ),
        "fluency": (
            "how fluent the text below is, whatever it says and whether it is finished",
            "it cannot be understood, or repeats itself",
            "it can be read, with errors or unnatural phrases",
            "it is fluent, nearly without fault",
            text,
        ),
    }
    return Questions(**{score: _question(*parts) for score, parts in asked.items()})


def _question(what: str, none: str, some: str, full: str, about: str) -> str:
    return (
        f"You are an impartial judge. Rate {what}.\n0: {none}.\n1: {some}.\n2: {full}.\n\n{about}\n\n"
        'First give a reason in one or two sentences.\nEnd with your rating in exactly this form: "Rating: [[score]]".'
    )


def rating(answer: str) -> float:
    """The rating that an answer ends with.

    Raises:
      Unrated: there is none, there are several that differ, or it is not 0, 1 or 2.

    Example:
      >>> from interp_jax.steering import judges
      >>> judges.rating("It names a ship. Rating: [[2]]")
      2.0
    """
    found = set(_RATING.findall(answer))
    if len(found) != 1 or not found <= {str(x) for x in RATINGS} | {f"{x}.0" for x in RATINGS}:
        said = " ".join(answer.split())[-80:]
        raise Unrated(f'judge: the answer has not one "Rating: [[0]]", [[1]] or [[2]]: ...{said!r}')
    return float(found.pop())


def by_answer(ask: Callable[[str], str]) -> Judge:
    """A judge that is asked in words and answers in words.

    Args:
      ask: prompt -> answer: `interp_jax.io.endpoint.ask(model)`, or a model of one's own.

    Example:
      >>> from interp_jax.steering import judges
      >>> judges.by_answer(lambda prompt: "Fine. Rating: [[2]]")("Name a fruit.", "Apple, ahoy!", "pirates")
      Scores(concept=2.0, instruction=2.0, fluency=2.0)
    """

    def judge(instruction: str, continuation: str, concept: str) -> Scores:
        return Scores(*(rating(ask(prompt)) for prompt in questions(instruction, continuation, concept)))

    return judge


def by_probability(log_probs: Callable[[str, Sequence[str]], Sequence[float]]) -> Judge:
    """A judge whose score is the expected rating, for small models, whose own words are less to be trusted.

    Args:
      log_probs: `(prompt, endings) -> [ending]`, the log probability of each ending after the prompt, in nats; the
        endings are 'Rating: [[0]]', 'Rating: [[1]]' and 'Rating: [[2]]'.

    Example:
      >>> from interp_jax.steering import judges
      >>> judge = judges.by_probability(lambda prompt, endings: [-9.0, -1.0, -1.0])
      >>> round(judge("Name a fruit.", "Apple, ahoy!", "pirates").concept, 3)
      1.5
    """
    endings = [f"Rating: [[{x}]]" for x in RATINGS]

    def expected(prompt: str) -> float:
        given = np.asarray(log_probs(prompt, endings), np.float64)
        if given.shape != (len(RATINGS),) or not np.isfinite(given).any() or np.isnan(given).any():
            raise Unrated(
                f"judge: log probabilities {given.tolist()} of {len(RATINGS)} endings: give one number for each"
            )
        weights = np.exp(given - given.max())
        return float(weights @ RATINGS / weights.sum())

    def judge(instruction: str, continuation: str, concept: str) -> Scores:
        return Scores(*map(expected, questions(instruction, continuation, concept)))

    return judge
