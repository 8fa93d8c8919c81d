"""The texts by which a unit is explained, and others by which the explanation is tried.

Sizes are delphi's: windows of 32 tokens, 40 that explain and 50 that test, drawn over ten quantiles of the activation,
50 without any, at least 200 where there are as many (https://arxiv.org/abs/2410.13928); levels from 0 to 10 are those
of Bills et al. 2023, https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp_jax.explain.excerpts import Excerpt

N_TRAIN, N_TEST, N_QUIET, N_RANDOM = 40, 50, 50, 50
MOST = 10  # the level of the largest activation
STRONG = 0.3  # of the largest activation of a text: tokens above it are marked


@dataclass(frozen=True)
class Examples:
    """Texts of one unit. None stands both among those that explain and among those that test.

    Attributes:
      train: texts on which it fires, over all of its range, by which it is explained.
      test: such texts, by which the explanation is tried.
      quiet: texts on which it does not fire, for the test.
      random: any texts, for the test.
      background: any texts beside `train`, which say what is common anyway.
      hard: texts on which it does not fire though one could think so: others like it do, or the words are the same.
      maximum: its largest activation in `train`, which is level 10.
    """

    train: tuple[Excerpt, ...]
    test: tuple[Excerpt, ...]
    quiet: tuple[Excerpt, ...]
    random: tuple[Excerpt, ...] = ()
    background: tuple[Excerpt, ...] = ()
    hard: tuple[Excerpt, ...] = ()

    @property
    def maximum(self) -> float:
        return max((max(one.values, default=0.0) for one in self.train), default=0.0)

    @property
    def strongest(self) -> tuple[Excerpt, ...]:
        """Those of `train`, the strongest first."""
        return strongest(self.train)


def strongest(excerpts: Sequence[Excerpt]) -> tuple[Excerpt, ...]:
    """Excerpts by their largest activation, the largest first."""
    return tuple(sorted(excerpts, key=lambda one: -max(one.values, default=0.0)))


def levels(values: Sequence[float], maximum: float, most: int = MOST) -> tuple[int, ...]:
    """Activations as whole numbers from 0 to `most`, rounded down, negative ones as 0.

    Example:
      >>> from interp_jax import explain
      >>> explain.levels([-1.0, 0.0, 0.99, 2.0, 4.0], maximum=4.0)
      (0, 0, 2, 5, 10)
    """
    scaled = np.maximum(np.asarray(values, np.float64), 0) * most / max(maximum, 1e-12)
    return tuple(int(level) for level in np.minimum(np.floor(scaled + 1e-9), most))


def strong(one: Excerpt) -> tuple[bool, ...]:
    """Which tokens of an excerpt are marked: those above 0.3 of its largest activation; none where it is silent."""
    largest = max(one.values, default=0.0)
    return tuple(largest > 0 and value > STRONG * largest for value in one.values)


def marked(tokens: Sequence[str], marks: Sequence[bool]) -> str:
    """The text with `<<` and `>>` around marked tokens, those that stand together within one pair.

    Example:
      >>> from interp_jax import explain
      >>> explain.marked(["The", " old", " cat", " ran"], [False, True, True, False])
      'The<< old cat>> ran'
    """
    text, inside = [], False
    for token, mark in zip(tokens, marks, strict=True):
        if mark != inside:
            text.append("<<" if mark else ">>")
        text.append(token)
        inside = mark
    return "".join(text) + (">>" if inside else "")


def on_one_line(text: str) -> str:
    """A text or a token without breaks: a table or a list of lines stays one."""
    return text.replace("\n", "↵").replace("\t", "⇥").replace("\r", "")
