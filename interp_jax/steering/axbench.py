"""AxBench's protocol: how well a direction detects a concept, and how well an edit steers towards it.

    detection: AUROC of the maximum over a text's tokens, hard negatives among the negatives
    steering:  strength = factor * the maximum on texts that have the concept; each continuation scores the harmonic
               mean of concept, instruction and fluency, 0 if any is 0; one half of the instructions choose the factor,
               the other half score it

Wu et al. 2025, arXiv:2501.17148. Caveat: the harmonic mean is of each continuation, so that its mean over instructions
is below the harmonic mean of the three means.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from interp_jax.steering.judges import Judge, Unrated

FACTORS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0)
CLAMPS = (0.4, 0.8, 1.2, 1.6, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 100.0)  # of a dictionary's feature


class Detection(NamedTuple):
    """AUROC of the texts that have the concept, against all others and against the hard ones alone."""

    auroc: float
    hard: float


class Outcome(NamedTuple):
    """What steering came to, on the instructions that did not choose the factor.

    Attributes:
      factor: that was chosen.
      concept, instruction, fluency: mean scores, 0 to 2.
      harmonic: the mean of their harmonic means.
      unrated: the share of all continuations for which a judge gave no rating, which are left out.
    """

    factor: float
    concept: float
    instruction: float
    fluency: float
    harmonic: float
    unrated: float


def detection(activations: Any, mask: Any, positive: Any, hard: Any = None) -> Detection:
    """How well the largest activation of a text tells whether it has the concept.

    Args:
      activations: `[text position]`, such as `x @ direction`, or `ReFTr1.detect(x)`.
      mask: bool `[text position]`, True at tokens that count.
      positive: bool `[text]`, which have the concept.
      hard: bool `[text]`, which of the others are hard negatives; None: none.

    Raises:
      ValueError: shapes that do not fit, no text of one side, a text without tokens, numbers that are not finite.

    Example:
      >>> import numpy as np
      >>> from interp_jax.steering import axbench
      >>> activations = np.array([[0.1, 3.0], [2.0, 0.0], [0.5, 0.4], [2.5, 9.0]])
      >>> mask = np.array([[True, True], [True, True], [True, True], [True, False]])
      >>> positive, hard = np.array([True, True, False, False]), np.array([False, False, False, True])
      >>> axbench.detection(activations, mask, positive, hard)
      Detection(auroc=0.75, hard=0.5)
    """
    from sklearn.metrics import roc_auc_score  # seconds to import

    a, real = np.asarray(activations, np.float64), np.asarray(mask).astype(bool)
    positive = np.asarray(positive).astype(bool)
    hard = np.zeros_like(positive) if hard is None else np.asarray(hard).astype(bool)
    if a.shape != real.shape or a.ndim != 2 or positive.shape != a.shape[:1] or hard.shape != positive.shape:
        raise ValueError(
            f"axbench.detection: activations {list(a.shape)}, mask {list(real.shape)}, positive "
            f"{list(positive.shape)}, hard {list(hard.shape)}: give [text position] twice and [text] twice"
        )
    if positive.all() or not positive.any() or (hard & positive).any():
        raise ValueError("axbench.detection: give texts that have the concept and others, hard ones among the others")
    if not real.any(1).all() or not np.isfinite(a[real]).all():
        raise ValueError("axbench.detection: a text has no token that counts, or activations are not finite")
    largest = np.where(real, a, -np.inf).max(1)
    some = positive | hard
    alone = float(roc_auc_score(positive[some], largest[some])) if hard.any() else float("nan")
    return Detection(float(roc_auc_score(positive, largest)), alone)


def judged(
    judge: Judge, instructions: Sequence[str], continuations: Sequence[Sequence[str]], concept: str
) -> np.ndarray:
    """The scores of each continuation, `[factor instruction 3]`: concept, instruction, fluency.

    Args:
      judge: `(instruction, continuation, concept) -> Scores`.
      instructions: what was asked.
      continuations: for each factor one for each instruction.
      concept: in words, as the judge knows it.

    Returns:
      float64, nan where the judge gave no rating, which `score` leaves out and counts.

    Raises:
      ValueError: continuations that are not one for each instruction, a score outside 0 to 2.
    """
    if any(len(row) != len(instructions) for row in continuations):
        raise ValueError(f"axbench.judged: give a continuation for each of the {len(instructions)} instructions")
    scores = np.full((len(continuations), len(instructions), 3), np.nan)
    for i, row in enumerate(continuations):
        for j, (instruction, continuation) in enumerate(zip(instructions, row, strict=True)):
            try:
                scores[i, j] = judge(instruction, continuation, concept)
            except Unrated:
                continue
    _check(scores)
    return scores


def harmonic(scores: Any) -> np.ndarray:
    """The harmonic mean of the last axis, 0 where any is 0, nan where any is.

    Example:
      >>> from interp_jax.steering import axbench
      >>> axbench.harmonic([[2.0, 1.0, 2.0], [2.0, 0.0, 2.0]]).round(3).tolist()
      [1.5, 0.0]
    """
    scores = np.asarray(scores, np.float64)
    none = (scores == 0).any(-1)
    inverse = 1 / np.where(none[..., None], 1, scores)
    return np.where(none & ~np.isnan(scores).any(-1), 0.0, scores.shape[-1] / inverse.sum(-1))


def score(factors: Sequence[float], scores: Any, choosing: Any = None) -> Outcome:
    """Chooses the factor on some of the instructions, and scores it on the others.

    Args:
      factors: `[factor]`, such as `FACTORS`.
      scores: `[factor instruction 3]` from `judged`.
      choosing: bool `[instruction]`, those that choose; by default the first half. Of factors that are equally good
        there the smallest in the list's order is chosen.

    Raises:
      ValueError: shapes that do not fit, no instruction on one side, or none that was rated.

    Example:
      >>> import numpy as np
      >>> from interp_jax.steering import axbench
      >>> scores = np.array([[[0.0, 2, 2], [0, 2, 2]], [[2, 1, 2], [1, 2, 2]]])  # two factors, two instructions
      >>> outcome = axbench.score((0.2, 0.4), scores)
      >>> outcome.factor, outcome.concept, outcome.harmonic
      (0.4, 1.0, 1.5)
    """
    scores = np.asarray(scores, np.float64)
    n = scores.shape[1] if scores.ndim == 3 else 0
    choosing = np.arange(n) < n // 2 if choosing is None else np.asarray(choosing).astype(bool)
    if scores.shape != (len(factors), n, 3) or choosing.shape != (n,) or choosing.all() or not choosing.any():
        raise ValueError(
            f"axbench.score: scores {list(scores.shape)} of {len(factors)} factors: give [factor instruction 3], and "
            "instructions both to choose the factor and to score it"
        )
    _check(scores)
    means = harmonic(scores)
    rated = ~np.isnan(means)
    if not rated[:, choosing].any(1).all() or not rated[:, ~choosing].any(1).all():
        raise ValueError("axbench.score: the judge rated no continuation of a factor: look at what it answers")
    best = int(np.nanmean(means[:, choosing], axis=1).argmax())
    concept, instruction, fluency = np.nanmean(np.where(rated[..., None], scores, np.nan)[best, ~choosing], axis=0)
    total = float(np.nanmean(means[best, ~choosing]))
    share = float(1 - rated.mean())
    return Outcome(float(factors[best]), float(concept), float(instruction), float(fluency), total, share)


def _check(scores: np.ndarray) -> None:
    if (scores < 0).any() or (scores > 2).any():
        raise ValueError("axbench: scores are 0 to 2")
