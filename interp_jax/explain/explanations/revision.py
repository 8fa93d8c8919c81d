"""Revision: an explanation is tried on sentences that it would have the unit fire on, and mended by what they show.

    sentences that the explanation fits  ->  what the unit really does on them  ->  another explanation

Bills et al. 2023: https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html. A revision need not be
better: score both, on texts that neither was made from.
"""

from collections.abc import Callable, Sequence
import re

from interp_jax.explain.explanations.answers import explanation, refuses
from interp_jax.explain.explanations.asking import Question, ask
from interp_jax.explain.explanations.evidence import Evidence, levels, marked, on_one_line, strong
from interp_jax.explain.explanations.explainers import MARK
from interp_jax.explain.records.excerpts import Excerpt
from interp_jax.io.chat import Chat, Reply, says

N_SENTENCES = 10
_NUMBERED = re.compile(r"^\s*\d+[.):]\s*(.+?)\s*$", re.MULTILINE)


def sentences(text: str, n: int = N_SENTENCES) -> Question[list[str]]:
    """Asks for sentences on which a unit of this explanation would fire; as many as can be used, at most `n`.

    Example:
      >>> from interp_jax import explain
      >>> from interp_jax.io.chat import Reply
      >>> explain.sentences("cats").read([Reply("1. A cat slept.\\n2. No cat c")])
      ['A cat slept.', 'No cat c']
    """
    request = says(
        f"You are told what a unit of a neural network reacts to. Write {n} different sentences, on which it would "
        "react strongly if that is true, of as many kinds as you can think of. Number them, one a line.",
        f"The unit reacts to: {text}",
        max_tokens=60 * n,
    )

    def read(replies: Sequence[Reply]) -> list[str]:
        return [] if refuses(replies[0].text) else _NUMBERED.findall(replies[0].text)[:n]

    return Question((request,), read)


def revised(text: str, evidence: Evidence, tried: Sequence[Excerpt]) -> Question[str | None]:
    """Asks for a better explanation, beside the first one's texts and what the unit did on those that were tried."""
    maximum = evidence.maximum
    shown = [_shown(one, maximum) for one in (*evidence.strongest[:5], *tried)]
    request = says(
        "You study one unit of a neural network that reads text. Somebody has said what it reacts to, and the examples "
        "show what it does: the tokens to which it reacts stand between << and >>, with their strengths, from 0 to 10. "
        "Some were written to try what was said, and may show that it is too wide, too narrow or wrong. Say in one "
        "short sentence what the unit reacts to, the same as before only if the examples bear it out. Begin with "
        f'"{MARK}".',
        f"{MARK} {text}\n\n" + "\n".join(shown),
        max_tokens=200,
    )
    return Question((request,), lambda replies: explanation(replies[0], MARK))


def revise(
    chat: Chat,
    text: str,
    evidence: Evidence,
    fire: Callable[[Sequence[str]], Sequence[Excerpt]],
    *,
    shown: bool = False,
) -> tuple[str, tuple[Excerpt, ...]]:
    """Revises an explanation once.

    Args:
      chat: a chat model.
      text: the explanation.
      evidence: those that it was made from.
      fire: from sentences to what the unit does on each, in the model itself.
      shown: whether progress is shown.

    Returns:
      The revised explanation, the same one where nothing usable was said; and the sentences that were tried.
    """
    asked = ask(chat, sentences(text), what="sentences to try", shown=shown)
    tried = tuple(fire(asked)) if asked else ()
    if not tried:
        return text, ()
    return ask(chat, revised(text, evidence, tried), what="revising", shown=shown) or text, tried


def _shown(one: Excerpt, maximum: float) -> str:
    # On a sentence that was tried, weak firings are no evidence that the explanation is right.
    marks = [mark and level > 0 for mark, level in zip(strong(one), levels(one.values, maximum), strict=True)]
    told = zip(one.tokens, levels(one.values, maximum), marks, strict=True)
    strengths = ", ".join(f"{on_one_line(token).strip()} {level}" for token, level, mark in told if mark)
    return f"{on_one_line(marked(one.tokens, marks)).strip()}\nStrengths: {strengths or 'none'}"
