"""Simulators: what an explanation says of every token of a text, a level from 0 to 10 as a unit's activation has it.

    in_one_pass    the model reads the text as a table whose levels are all "unknown"; at each of these places the
                   expected number over the likeliest tokens is taken, so that one reading gives all levels
    as_written     the model writes the levels, and the expected number at each that it wrote is taken
    one_by_one     the model is asked for the level of each token by itself

Bills et al. 2023: https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html. Caveats: the first
needs log probabilities of a text that the model has not written, which few endpoints give (`io.chat.Request.answer`); a
level of 10 is one token for some tokenizers and two for others, for which `most=9` is the right scale.
"""

from collections.abc import Callable, Sequence

import numpy as np

from interp_jax.explain.explanations.answers import entries, expected, number, tokens_at
from interp_jax.explain.explanations.asking import Question
from interp_jax.explain.explanations.evidence import MOST, marked, on_one_line
from interp_jax.io.chat import Reply, Request, says

Texts = Sequence[tuple[str, ...]]  # of tokens
Simulated = list[np.ndarray | None]
# Of each text its levels, float `[token]` from 0 to 10, nan at tokens of which nothing usable was said; None where
# nothing was said of the whole text.
Simulator = Callable[[Texts], Question[Simulated]]
TOP = 20  # likeliest tokens that are asked for: endpoints give no more
UNKNOWN = "unknown"

_TASK = (
    "A unit of a neural network reads a text token by token. You are told what it reacts to, and say how strongly it "
    "reacts to each token where it stands, from 0 for not at all to {most}. Most are 0."
)


def in_one_pass(explanation: str, *, most: int = MOST) -> Simulator:
    """A simulator that has a model read all tokens of a text at once.

    Args:
      explanation: what the unit reacts to.
      most: the largest level of the prompt; what is simulated is from 0 to 10 all the same.
    """

    def simulate(texts: Texts) -> Question[Simulated]:
        tables = [_unknowns(text) for text in texts]
        system = f"{_TASK.format(most=most)} The table has a token, a tab and the level."
        requests = tuple(
            says(system, f"The unit reacts to: {explanation}", top=TOP)._replace(answer=table) for table, _ in tables
        )

        def read(replies: Sequence[Reply]) -> Simulated:
            found = []
            for reply, (_, places) in zip(replies, tables, strict=True):
                tops = tokens_at(reply.tokens, places)
                found.append(_levels([expected(top, most) for top in tops], most))
            return found

        return Question(requests, read)

    return simulate


def as_written(explanation: str, *, most: int = MOST) -> Simulator:
    """A simulator that has a model write the levels of all tokens of a text, as entries with numbers.

    An entry that is missing, cut off or no level is nan; what else it wrote is used.
    """

    def simulate(texts: Texts) -> Question[Simulated]:
        system = f'{_TASK.format(most=most)} Answer with one entry for each token and nothing else: {{"1": 0, "2": 0}}'
        requests = []
        for text in texts:
            rows = "\n".join(f"{i}\t{on_one_line(token)}" for i, token in enumerate(text, 1))
            user = f"The unit reacts to: {explanation}\n\nTokens:\n{rows}"
            requests.append(says(system, user, top=TOP, max_tokens=8 * len(text) + 16))

        def read(replies: Sequence[Reply]) -> Simulated:
            found = []
            for reply, text in zip(replies, texts, strict=True):
                said = entries(reply, len(text), most)
                found.append(_levels([said[i][1] if i in said else None for i in range(len(text))], most))
            return found

        return Question(tuple(requests), read)

    return simulate


def one_by_one(explanation: str, *, most: int = MOST) -> Simulator:
    """A simulator that asks a model about each token of a text by itself, with the text up to it."""

    def simulate(texts: Texts) -> Question[Simulated]:
        system = f"{_TASK.format(most=most)} Say it of the token between << and >> alone. Answer with one number."
        requests = tuple(_about(system, explanation, text[: i + 1]) for text in texts for i in range(len(text)))

        def read(replies: Sequence[Reply]) -> Simulated:
            said = [number(reply, most) for reply in replies]
            means = iter([None if one is None else one[1] for one in said])
            return [_levels([next(means) for _ in text], most) for text in texts]

        return Question(requests, read)

    return simulate


def _about(system: str, explanation: str, tokens: tuple[str, ...]) -> Request:
    shown = on_one_line(marked(tokens, [False] * (len(tokens) - 1) + [True]))
    return says(system, f"The unit reacts to: {explanation}\n\nText: {shown}", top=TOP, max_tokens=4)


def _unknowns(text: tuple[str, ...]) -> tuple[str, list[int]]:
    """The table of a text without its levels, and the characters at which these would stand."""
    table, places = "", []
    for token in text:
        table += f"{on_one_line(token)}\t"
        places.append(len(table))
        table += f"{UNKNOWN}\n"
    return table, places


def _levels(means: Sequence[float | None], most: int) -> np.ndarray | None:
    if all(mean is None for mean in means):
        return None
    return np.array([np.nan if mean is None else mean * MOST / most for mean in means])
