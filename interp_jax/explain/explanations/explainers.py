"""Explanations by a language model: what a unit fires on, in words, from texts that show it.

    by_activations   token and level, 0 to 10, of the strongest texts        Bills et al. 2023
    by_marks         texts with << >> around strong tokens, and their levels   Paulo et al. 2024 (delphi)
    by_contrast      those, beside texts on which it does not fire though one could think so

Each makes a question (`explain.ask`), whose answer is a text, or None where the model gave none that can be used.
References: https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html, https://arxiv.org/abs/2410.13928.
"""

from collections.abc import Callable, Sequence

from interp_jax.explain.explanations.answers import explanation
from interp_jax.explain.explanations.asking import Question
from interp_jax.explain.explanations.evidence import Evidence, levels, marked, on_one_line, strong
from interp_jax.explain.records.excerpts import Excerpt
from interp_jax.io.chat import says

Explainer = Callable[[Evidence], Question[str | None]]
N_STRONGEST = 5  # texts that are shown with a level at each token
SPARSE = 0.2  # where fewer tokens fire, they are listed a second time without the others
MARK = "Explanation:"
MAX_TOKENS = 200

_TASK = (
    "You study one unit of a neural network that reads text, token by token. It reacts to something in the text, and "
    "to how much of it there is. Say what that is in one short sentence, as specific as the examples allow: a word or "
    "a kind of words, a meaning, a construction, what comes before or after. Describe the pattern; do not list the "
    f'examples. End with a line that begins with "{MARK}".'
)
_LEVELS = (
    "Each example is a table: a token, a tab, and how strongly the unit reacts to that token where it stands, from 0 "
    "for not at all to 10."
)
_MARKS = (
    "In the examples the tokens to which the unit reacts stand between << and >>, and after each example their "
    "strengths, from 0 to 10. Never mention the marks."
)
_SHOT_LEVELS = (
    "Unit 1\n<example>\nWe\t0\n met\t0\n in\t0\n March\t10\n,\t0\n not\t0\n in\t0\n May\t9\n</example>\n",
    "months named as the date of an event",
)
_SHOT_MARKS = (
    "Unit 1\nExample 1: We met in<< March>>, not in<< May>>.\nStrengths: March 10, May 9\n",
    "months named as the date of an event",
)


def by_activations(evidence: Evidence, n: int = N_STRONGEST) -> Question[str | None]:
    """Shows the `n` strongest texts as lists of tokens and levels; where few tokens fire, once more without zeros.

    Example:
      >>> from interp_jax import explain
      >>> one = explain.Excerpt((" a", " cat"), (0.0, 2.0), 1)
      >>> question = explain.by_activations(explain.Evidence((one,), (one,), ()))
      >>> print(question.requests[0].messages[-1]["content"].splitlines()[-3:])
      [' cat\\t10', '</example>', 'Explanation:']
    """
    shown, maximum = evidence.strongest[:n], evidence.maximum
    parts = ["Unit 2", *(_table(one, maximum) for one in shown)]
    values = [value for one in shown for value in levels(one.values, maximum)]
    if sum(value > 0 for value in values) < SPARSE * len(values):
        parts += ["The same without zeros:", *(_table(one, maximum, zeros=False) for one in shown)]
    return _explained(f"{_TASK}\n\n{_LEVELS}", _SHOT_LEVELS, "\n".join(parts))


def by_marks(evidence: Evidence) -> Question[str | None]:
    """Shows all texts that explain, with their strong tokens between marks and the levels of these."""
    return _explained(f"{_TASK}\n\n{_MARKS}", _SHOT_MARKS, "Unit 2\n" + _list(evidence.train, evidence.maximum))


def by_contrast(evidence: Evidence) -> Question[str | None]:
    """Shows those, and hard texts on which the unit does not fire; without any such it is `by_marks`."""
    if not evidence.hard:
        return by_marks(evidence)
    told = (
        f"{_TASK}\n\n{_MARKS} After them stand counterexamples, to which the unit does not react at all, though they "
        "are like the others: what you say must not be true of them."
    )
    quiet = "\n".join(f"Counterexample {i}: {_text(one)}" for i, one in enumerate(evidence.hard, 1))
    return _explained(told, _SHOT_MARKS, f"Unit 2\n{_list(evidence.train, evidence.maximum)}\n{quiet}")


def _explained(system: str, shot: tuple[str, str], shown: str) -> Question[str | None]:
    request = says(system, "", max_tokens=MAX_TOKENS)
    turns = (
        {"role": "user", "content": shot[0] + MARK},
        {"role": "assistant", "content": f"{MARK} {shot[1]}"},
        {"role": "user", "content": f"{shown}\n{MARK}"},
    )
    request = request._replace(messages=(request.messages[0], *turns))
    return Question((request,), lambda replies: explanation(replies[0], MARK))


def _table(one: Excerpt, maximum: float, zeros: bool = True) -> str:
    rows = zip(one.tokens, levels(one.values, maximum), strict=True)
    lines = [f"{on_one_line(token)}\t{level}" for token, level in rows if zeros or level]
    return "\n".join(["<example>", *lines, "</example>"])


def _list(shown: Sequence[Excerpt], maximum: float) -> str:
    lines = []
    for i, one in enumerate(shown, 1):
        marks = strong(one)
        told = zip(one.tokens, levels(one.values, maximum), marks, strict=True)
        strengths = ", ".join(f"{on_one_line(token).strip()} {level}" for token, level, mark in told if mark)
        lines += [f"Example {i}: {on_one_line(marked(one.tokens, marks)).strip()}", f"Strengths: {strengths}"]
    return "\n".join(lines)


def _text(one: Excerpt) -> str:
    return on_one_line("".join(one.tokens)).strip()
