"""Sizes of `interp-jax quickstart`, and how long a run of these sizes takes.

What the user does not give is chosen so that a run takes minutes. The choice follows from the arithmetic of the model
alone, so that it is the same on every machine; the time is told by a first batch.
"""

from dataclasses import dataclass
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from interp_jax.runs import check_counts

if TYPE_CHECKING:
    from interp_jax.cli.subject import Subject

READING, TRAINING, SCORING, STEERING = 3e12, 3.3e12, 1.5e12, 8e11  # multiplications and additions, at most
# How many times longer the same arithmetic takes than in reading: training also chooses features and runs Adam, scoring
# computes the logits of every word, and steering generates one token at a time.
SLOWER_TRAINING, SLOWER_SCORING, SLOWER_STEERING = 3, 2, 6
MOST_TOKENS, MOST_STEPS, MOST_HELD_OUT, MOST_STEERED = 400_000, 2000, 128, 24
WIDE = 256  # dimensions; for a wider site a dictionary has 8 features for each dimension instead of 16
RUNS = 5  # of the model over held-out text: the mean, clean, spliced, and two ablations
OVERHEAD = 40.0  # seconds in which programs are compiled and the page is made


@dataclass(frozen=True)
class Sizes:
    """Sizes of the run."""

    tokens: int | None = None
    """Tokens of text, at most; by default 400,000, and as many as a larger model reads in a minute or so."""
    positions: int = 128
    """Tokens in one sequence, at most."""
    expansion: int | None = None
    """Features of the dictionary for each dimension of the site; by default 16, and 8 of a wide one."""
    k: int | None = None
    """Features that are active for one token; by default one for each 24 dimensions of the site, at least 8."""
    steps: int | None = None
    """Training steps; by default 2,000, and fewer for a larger dictionary."""
    batch: int = 1024
    """Tokens in one step."""


@dataclass(frozen=True)
class Plan:
    """Every size of a run, and the arithmetic of its parts in multiplications and additions.

    Attributes:
      tokens, positions, d_sae, k, steps, batch: as in `Sizes`.
      held_out: sequences that the dictionary is scored on, at most.
      steered: features that are tried for steering, the clearest of which is shown.
      per_token: arithmetic of the model for one token.
      per_step: arithmetic of one training step.
    """

    tokens: int
    positions: int
    d_sae: int
    k: int
    steps: int
    batch: int
    held_out: int
    steered: int
    per_token: float
    per_step: float

    def seconds(self, shape: tuple[int, int], rate: float) -> float:
        """About how many seconds the run takes, for tokens of a shape and a rate of operations a second."""
        read = shape[0] * shape[1] * self.per_token
        scored = RUNS * min(self.held_out, max(1, shape[0] // 10)) * shape[1] * self.per_token
        steered = 2 * self.steered * _per_case(self.per_token)
        work = read + SLOWER_TRAINING * self.steps * self.per_step + SLOWER_SCORING * scored
        return (work + SLOWER_STEERING * steered) / rate + OVERHEAD


def plan(sizes: Sizes, model: Any, d_in: int) -> Plan:
    """The sizes of a run on a model's site of width `d_in`.

    Raises:
      ValueError: a size is below 1, or there are more active features than features.
    """
    import jax

    check_counts(**{f"--sizes.{name}": given for name, given in vars(sizes).items()})

    n_parameters = sum(leaf.size for leaf in jax.tree.leaves(model.blocks))
    per_token = 2.0 * (n_parameters + model.config.d_model * model.config.d_vocab)
    positions = min(sizes.positions, model.config.n_ctx)
    d_sae = (sizes.expansion or (16 if d_in <= WIDE else 8)) * d_in
    per_step = 6.0 * sizes.batch * d_in * d_sae
    if (k := sizes.k or max(8, d_in // 24)) > d_sae:
        raise ValueError(f"--sizes.k {k}: k={k} is larger than d_sae={d_sae}, the features of the dictionary")
    return Plan(
        tokens=sizes.tokens or max(32 * positions, min(MOST_TOKENS, int(READING / per_token))),
        positions=positions,
        d_sae=d_sae,
        k=k,
        steps=sizes.steps or max(50, min(MOST_STEPS, int(TRAINING / per_step))),
        batch=sizes.batch,
        held_out=max(8, min(MOST_HELD_OUT, int(SCORING / (RUNS * positions * per_token)))),
        steered=max(3, min(MOST_STEERED, int(STEERING / (2 * _per_case(per_token))))),
        per_token=per_token,
        per_step=per_step,
    )


def _per_case(per_token: float) -> float:
    """The arithmetic of one steered feature: six prompts of some ten tokens go on for thirty and are read once more."""
    return 6 * 2 * 40 * per_token


def rate(subject: "Subject", tokens: np.ndarray, mask: np.ndarray, per_token: float) -> float:
    """How many operations a second the model does on a first batch, after its program is compiled."""
    from interp_jax.cli import subject as on

    batch, mask = tokens[: on.BATCH], mask[: on.BATCH]
    on.activations(subject, batch, mask, shown=False)
    begun = time.monotonic()
    on.activations(subject, batch, mask, shown=False)
    return batch.size * per_token / max(time.monotonic() - begun, 1e-6)
