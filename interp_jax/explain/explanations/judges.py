"""Judges of texts: does a unit of this explanation react to this text, or to the marked tokens of it?

A judge is asked of many texts and gives a verdict on each. A model is shown a few at once, as entries with numbers, so
that an answer that is cut off or has too few entries loses those alone; or a simulator's levels are taken.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from interp_jax.explain.explanations.answers import entries
from interp_jax.explain.explanations.asking import Question, together
from interp_jax.explain.explanations.evidence import MOST, marked, on_one_line
from interp_jax.explain.explanations.simulators import Simulated, Simulator
from interp_jax.io.chat import Reply, says

AT_ONCE = 5  # texts in one prompt
TOP = 5  # likeliest tokens that are asked for


class Shown(NamedTuple):
    """A text as a judge sees it; without marks, the question is of the text as a whole.

    Attributes:
      tokens: the texts of its tokens.
      marks: which of them are marked; None: none are, and it is asked of the text.
    """

    tokens: tuple[str, ...]
    marks: tuple[bool, ...] | None = None


class Verdict(NamedTuple):
    """Whether the unit reacts, as it was said, and how probable that is to the judge: P(1) / (P(0) + P(1))."""

    yes: bool
    probability: float


Judge = Callable[[Sequence[Shown]], Question[list[Verdict | None]]]

_TASK = "A unit of a neural network reads texts. You are told what it reacts to, and judge {n} texts, each by itself: "
_WHOLE = "1 if there is something in the text to which the unit reacts, 0 if there is not."
_MARKED = "1 if the unit reacts to just the tokens between << and >>, 0 if these are not what it reacts to."
_FORM = ' Answer with one entry for each text and nothing else, such as {"1": 0, "2": 1}.'


def by_chat(explanation: str, *, at_once: int = AT_ONCE) -> Judge:
    """A judge that is a language model, shown `at_once` texts in one prompt; the last ones may be fewer.

    Without log probabilities, a verdict's probability is 0 or 1, as it was said.
    """

    def judge(shown: Sequence[Shown]) -> Question[list[Verdict | None]]:
        parts = [shown[i : i + at_once] for i in range(0, len(shown), at_once)]
        return together([_judged(explanation, part) for part in parts]).then(lambda lists: sum(lists, []))

    return judge


def _judged(explanation: str, shown: Sequence[Shown]) -> Question[list[Verdict | None]]:
    whole = shown[0].marks is None
    system = _TASK.format(n=len(shown)) + (_WHOLE if whole else _MARKED) + _FORM
    texts = (one.tokens if one.marks is None else (marked(one.tokens, one.marks),) for one in shown)
    lines = [f"{i}: {on_one_line(''.join(text)).strip()}" for i, text in enumerate(texts, 1)]
    request = says(system, f"The unit reacts to: {explanation}\n\n" + "\n".join(lines), top=TOP, max_tokens=64)

    def read(replies: Sequence[Reply]) -> list[Verdict | None]:
        said = entries(replies[0], len(shown), 1)
        return [Verdict(bool(said[i][0]), said[i][1]) if i in said else None for i in range(len(shown))]

    return Question((request,), read)


def by_simulator(simulate: Simulator) -> Judge:
    """A judge that follows a simulator: it says yes where the level is not 0 when it is rounded.

    The level is the largest of the text, or the mean over the marked tokens; a tenth of it is the probability.
    """

    def judge(shown: Sequence[Shown]) -> Question[list[Verdict | None]]:
        def read(simulated: Simulated) -> list[Verdict | None]:
            return [_by_levels(one, levels) for one, levels in zip(shown, simulated, strict=True)]

        return simulate([one.tokens for one in shown]).then(read)

    return judge


def _by_levels(shown: Shown, levels: np.ndarray | None) -> Verdict | None:
    if levels is None:
        return None
    of = levels if shown.marks is None else levels[np.array(shown.marks)]
    if not np.isfinite(of).any():
        return None
    level = float(np.nanmax(of) if shown.marks is None else np.nanmean(of))
    return Verdict(level >= 0.5, min(level / MOST, 1.0))
