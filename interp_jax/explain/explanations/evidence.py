"""The texts by which a unit is explained, and others by which the explanation is tried.

Sizes are delphi's: windows of 32 tokens, 40 that explain and 50 that test, drawn over ten quantiles of the activation,
50 on which the unit is silent, and a unit that fires on fewer than 200 tokens is not explained
(https://arxiv.org/abs/2410.13928). Levels from 0 to 10 are those of Bills et al. 2023,
https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import itertools

import numpy as np

from interp_jax.explain.records.excerpts import Excerpt
from interp_jax.explain.records.records import Records

LEAST, WIDTH = 200, 32  # firings of a unit; tokens of a text
N_TRAIN, N_TEST, N_QUIET, N_RANDOM = 40, 50, 50, 50
MOST = 10  # the level of the largest activation
N_HARD, N_WORDS = 10, 20  # hard texts; tokens whose silent occurrences are hard
STRONG = 0.3  # of the largest activation of a text: tokens above it are marked


@dataclass(frozen=True)
class Evidence:
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


class TooFew(ValueError):
    """There are too few texts on which a unit fires to explain it by; it is skipped."""


def gather(
    records: Records, unit: int, strings: Sequence[str], *, least: int = LEAST, width: int = WIDTH, seed: int = 22
) -> Evidence:
    """The evidence of one unit of records, of delphi's sizes: as much of each as there is.

    Args:
      records: `Records`.
      unit: its number.
      strings: the text of every token of the vocabulary.
      least: firings below which a unit is not explained.
      width: tokens of a text, at most.
      seed: of what is drawn.

    Raises:
      TooFew: the unit fires on fewer tokens than `least`, or there are not two texts of it.
    """
    n = int(records.counts[records.check(unit)])
    if n < max(least, 1):
        raise TooFew(f"unit {unit} never fires" if not n else f"unit {unit} fires on {n} tokens, fewer than {least}")
    both = records.sampled(unit, strings, N_TRAIN + N_TEST, seed, width=width)
    if len(both) < 2:
        raise TooFew(f"unit {unit} fires in one text alone")
    # Strongest first, they are dealt out, so that both have all of the range. A text that explains does not test.
    dealt = [-(-i * N_TRAIN // (N_TRAIN + N_TEST)) for i in range(len(both) + 1)]
    explains = [after > before for before, after in zip(dealt[:-1], dealt[1:], strict=True)]
    train = tuple(one for one, first in zip(both, explains, strict=True) if first)
    known = {one.tokens for one in train}
    test = tuple(one for one, first in zip(both, explains, strict=True) if not first and one.tokens not in known)
    some = records.random(unit, strings, 2 * N_RANDOM, seed, width=width)
    quiet = records.quiet(unit, strings, N_QUIET, seed, width=width)
    return Evidence(train, test, quiet, some[::2], some[1::2], hard(records, unit, strings, width=width, seed=seed))


def hard(
    records: Records, unit: int, strings: Sequence[str], n: int = N_HARD, *, width: int = WIDTH, seed: int = 22
) -> tuple[Excerpt, ...]:
    """Texts on which a unit is silent though one could think that it fires.

    In turn: the token of one of its frequent firings stands there, or a unit fires there that is near to it by decoder
    rows or fires alike. From the rows of the corpus of which all firings are known.

    Args:
      records, unit, strings: as `gather`.
      n: how many, at most.
      width: tokens of a text, at most.
      seed: of what is drawn.
    """
    silent = records.held.dense(records.check(unit)) <= 0
    rows = records.held_rows
    counted, tokens = records.mask[rows], records.tokens[rows]
    same = np.isin(tokens, records.fired_on(unit)[0][:N_WORDS]) & counted & silent
    alike = [(records.held.dense(other) > 0) & counted for other in _neighbours(records, unit)]
    drawn: dict[int, Excerpt] = {}  # by row
    for place in _in_turn([same, *alike], np.random.default_rng((seed, unit, 2))):
        row, at = divmod(place, tokens.shape[1])
        first = max(0, min(at - 3 * width // 4, tokens.shape[1] - width))
        here = slice(first, first + width)
        if len(drawn) == n:
            break
        if row not in drawn and silent[row, here].all():
            kept = counted[row, here]
            shown = tuple(strings[int(token)] for token in tokens[row, here][kept])
            drawn[row] = Excerpt(shown, (0.0,) * len(shown), int(kept[: at - first].sum()))
    return tuple(drawn.values())


def _in_turn(masks: Sequence[np.ndarray], rng: np.random.Generator) -> Iterator[int]:
    """The places where each mask is True, in an order by chance, one of each mask after the other."""
    queues = [rng.permutation(np.flatnonzero(mask)).tolist() for mask in masks]
    for several in itertools.zip_longest(*queues):
        yield from (place for place in several if place is not None)


def _neighbours(records: Records, unit: int) -> list[int]:
    """Units of the same records with a like decoder row, then those that fire alike."""
    ranked = [one for one in (records.nearest, records.correlated.get(records.name)) if one is not None]
    near = [int(other) for found, likeness in ranked for other in found[unit][likeness[unit] > 0]]
    return [other for other in dict.fromkeys(near) if other != unit]


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
