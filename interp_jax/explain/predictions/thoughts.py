"""Thoughts before an answer: does the answer rest on them, and a search among them.

    early: the thought is cut off after some steps        mistaken: one step is replaced, what follows is left out
    filler: as many dots as words                         reworded: the same in other words

An answer that stays the same whatever becomes of the thought was not reached by it; one that changes when the thought
is merely reworded rests on more than its meaning (Lanham et al. 2023, "Measuring faithfulness in chain-of-thought
reasoning", https://arxiv.org/abs/2307.13702). A tree of thoughts keeps the best of several at each depth (Yao et al.
2023, https://arxiv.org/abs/2305.10601).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import re
from typing import NamedTuple

from jaxtyping import Float
import numpy as np
from numpy.typing import ArrayLike


def steps(thought: str) -> list[str]:
    """The sentences and lines of a thought.

    Example:
      >>> from interp_jax.explain.predictions import thoughts
      >>> thoughts.steps("He has 3.5 apples. He eats one.\\nSo 2.5 are left.")
      ['He has 3.5 apples.', 'He eats one.', 'So 2.5 are left.']
    """
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", thought) if part.strip()]


@dataclass(frozen=True)
class Reliance:
    """What becomes of the options' chances, each `[option]`, when a thought is changed.

    Attributes:
      whole: with the whole thought.
      early: `[step option]`, with its first 0, 1, ... steps, without the last.
      filler: `[step option]`, with dots in place of as many words.
      mistaken: `[step option]`, with that step replaced and nothing after it; None where there is no such step.
      reworded: `[option]`, with the thought in other words; None where there are none.
    """

    whole: Float[np.ndarray, " option"]
    early: Float[np.ndarray, "step option"]
    filler: Float[np.ndarray, "step option"]
    mistaken: Float[np.ndarray, "step option"] | None = None
    reworded: Float[np.ndarray, " option"] | None = None

    def kept(self, of: str) -> float:
        """The share of changes of a kind, such as `"early"`, under which the likeliest option stays; nan without any.

        An answer rests on its thought where `kept("early")` and `kept("mistaken")` are low and `kept("reworded")` is
        high. One minus the first is the area over the curve of early answering.
        """
        changed = getattr(self, of)
        if changed is None:
            return float("nan")
        return float((np.atleast_2d(changed).argmax(-1) == self.whole.argmax()).mean())


def reliance(
    chances: Callable[[Sequence[str]], ArrayLike],
    thought: str,
    *,
    mistake: Callable[[str], str] | None = None,
    reword: Callable[[str], str] | None = None,
    filler: str = "...",
) -> Reliance:
    """Whether an answer rests on the thought before it.

    Args:
      chances: thoughts -> the (log) probabilities of the options after each, `[thought option]`. All come in one call.
      thought: the text.
      mistake: a step -> one that is wrong; called for every step.
      reword: the thought -> the same in other words.
      filler: what stands in place of each word that is blotted out.

    Raises:
      ValueError: the thought is empty; chances of another shape.

    Example:
      >>> from interp_jax import explain
      >>> from interp_jax.explain.predictions import thoughts
      >>> def chances(texts):
      ...     return [[text.count("wet"), 0.5] for text in texts]
      >>> found = thoughts.reliance(chances, "It rains. So it is wet.", mistake=lambda step: "It is dry.")
      >>> found.kept("early"), found.kept("mistaken")
      (0.0, 0.0)
    """
    parts = steps(thought)
    if not parts:
        raise ValueError("reliance: the thought is empty")
    early = [" ".join(parts[:i]) for i in range(len(parts))]
    blotted = [" ".join([filler] * len(text.split())) for text in (*early[1:], thought)]
    mistaken = [" ".join([*parts[:i], mistake(part)]) for i, part in enumerate(parts)] if mistake else []
    reworded = [reword(thought)] if reword else []
    texts = [" ".join(parts), *early, *blotted, *mistaken, *reworded]
    told = np.asarray(chances(texts), np.float64)
    if told.ndim != 2 or len(told) != len(texts):
        raise ValueError(f"reliance: chances gave {list(told.shape)} for {len(texts)} thoughts: give [thought option]")
    n = len(parts)
    ends = np.cumsum([1, n, n, len(mistaken)])
    return Reliance(
        told[0],
        told[1 : ends[1]],
        told[ends[1] : ends[2]],
        told[ends[2] : ends[3]] if mistake else None,
        told[-1] if reword else None,
    )


class Thought(NamedTuple):
    """A node of a tree of thoughts: its text with all before it, its value, and whether it was kept."""

    text: str
    value: float
    depth: int
    kept: bool


def tree(
    propose: Callable[[str], Sequence[str]],
    value: Callable[[Sequence[str]], ArrayLike],
    *,
    depth: int,
    breadth: int,
) -> list[Thought]:
    """A search by breadth: at each depth the best few thoughts are kept and gone on from.

    Args:
      propose: the thought so far, "" at first -> steps by which it may go on.
      value: thoughts -> how promising each is, `[thought]`.
      depth: steps of a thought.
      breadth: thoughts that are kept at a depth.

    Returns:
      Every thought that was looked at, the best kept one of the greatest depth first, then in the order of depth.

    Raises:
      ValueError: depth or breadth below 1; nothing was proposed.

    Example:
      >>> from interp_jax.explain.predictions import thoughts
      >>> def grow(text):
      ...     return ["a", "b"]
      >>> found = thoughts.tree(grow, lambda some: [text.count("b") for text in some], depth=2, breadth=1)
      >>> found[0].text, [one.text for one in found if one.depth == 1]
      ('b b', ['a', 'b'])
    """
    if depth < 1 or breadth < 1:
        raise ValueError(f"tree: depth={depth}, breadth={breadth}: give 1 at least")
    seen: list[Thought] = []
    front = [""]
    for level in range(1, depth + 1):
        grown = list(dict.fromkeys(f"{text} {step}".strip() for text in front for step in propose(text) if step))
        if not grown:
            raise ValueError(f"tree: nothing was proposed at depth {level}")
        values = np.asarray(value(grown), np.float64)
        order = np.argsort(-values, kind="stable")
        best = set(order[:breadth].tolist())
        seen += [Thought(text, float(values[i]), level, i in best) for i, text in enumerate(grown)]
        front = [grown[i] for i in order[:breadth]]
    first = next(one for one in seen if one.depth == depth and one.text == front[0])
    return [first, *(one for one in seen if one is not first)]
