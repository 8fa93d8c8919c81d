"""Does an answer rest on what an explanation of it names? What is named is taken away, and so is as much of the rest.

    removal = |s(x) - s(x without the named parts)| - mean over draws of |s(x) - s(x without as many other parts)|

s: how strongly the answer is given, such as its log probability; parts: words of a prompt, steps of a thought,
passages that were retrieved. It is above 0 where the named parts decide more than others do. After the erasure tests of
DeYoung et al. 2020, "ERASER", https://arxiv.org/abs/1911.03429, with other parts as the control. Caveat: where two
parts say the same, taking one of them away changes nothing, though the answer rests on it.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from jaxtyping import Float
import numpy as np
from numpy.typing import ArrayLike

Strength = Callable[[Sequence[str]], ArrayLike]  # texts -> how strongly each gives the answer, [text]


class Removal(NamedTuple):
    """How far an answer moves.

    Attributes:
      named: by taking away what is named.
      others: by taking away as many other parts, float64 `[draw]`.
      alone: by taking away all that is not named.
    """

    named: float
    others: Float[np.ndarray, " draw"]
    alone: float

    @property
    def score(self) -> float:
        """How much further the answer moves without what is named than without as much of the rest."""
        return float(self.named - self.others.mean())

    @property
    def rank(self) -> float:
        """The share of draws of other parts that move it less, ties counting half: 0.5 by chance, 1 at best."""
        return float((self.others < self.named).mean() + 0.5 * (self.others == self.named).mean())


def removal(
    strength: Strength,
    parts: Sequence[str],
    named: Collection[int],
    *,
    fill: Callable[[int], str] | None = None,
    join: Callable[[Sequence[str]], str] = " ".join,
    n_draws: int = 8,
    seed: int = 0,
) -> Removal:
    """Takes away the parts that an explanation names, and as many of the others, drawn several times.

    Args:
      strength: a function from texts to how strongly each gives the answer, `[text]`. All texts come in one call.
      parts: what the text consists of.
      named: indices of the parts that the explanation names; neither none nor all of them.
      fill: a part's index -> what stands in its place; by default nothing does, and the part is left out. It is called
        once for each part, so that all draws have the same.
      join: parts to a text.
      n_draws: how many draws of other parts. If fewer are left than are named, all that are left are taken.
      seed: of the draws.

    Raises:
      ValueError: an index that is not there, or an explanation that names none or all of the parts; a strength that is
        not one number a text.

    Example:
      >>> from interp_jax.explain import removal
      >>> def strength(texts):
      ...     return [text.count("dull") for text in texts]
      >>> found = removal(strength, "a dull film by him".split(), named=[1])
      >>> found.named, found.score, found.rank
      (1.0, 1.0, 1.0)
    """
    chosen = sorted(set(named))
    if not chosen or len(chosen) == len(parts) or not 0 <= chosen[0] <= chosen[-1] < len(parts):
        raise ValueError(f"removal: named={chosen} of {len(parts)} parts: name some of 0 to {len(parts) - 1}, not all")
    others = [i for i in range(len(parts)) if i not in chosen]
    rng = np.random.default_rng(seed)
    n = min(len(chosen), len(others))
    draws = [rng.choice(others, n, replace=False).tolist() for _ in range(n_draws)]
    filled = [fill(i) for i in range(len(parts))] if fill else None

    def without(gone: Sequence[int]) -> str:
        if filled is None:
            return join([part for i, part in enumerate(parts) if i not in gone])
        return join([filled[i] if i in gone else part for i, part in enumerate(parts)])

    texts = [join(parts), without(chosen), without(others), *map(without, draws)]
    told = np.asarray(strength(texts), np.float64)
    if told.shape != (len(texts),):
        raise ValueError(f"removal: strength gave {list(told.shape)} for {len(texts)} texts: give one number for each")
    moved = np.abs(told[0] - told[1:])
    return Removal(float(moved[0]), moved[2:], float(moved[1]))
