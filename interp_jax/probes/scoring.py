"""How a probe does on examples that it was not fitted to: accuracy, AUC, calibration, log loss.

    AUC = P(score of a positive > score of a negative) + P(equal) / 2
    calibration = sum over bins of share_bin * |accuracy_bin - mean confidence_bin|

Fawcett 2006 (AUC); Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599 (the expected
calibration error). Caveat: a calibration error has a positive bias on few examples; compare at one number of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp

from interp_jax.probes.examples import each_place, examples
from interp_jax.probes.linear import Activations

N_BINS = 15


@partial(jax.tree_util.register_dataclass, data_fields=["accuracy", "auc", "calibration", "log_loss"], meta_fields=[])
@dataclass(frozen=True)
class Scores:
    """Scores at each place. It is a pytree.

    Attributes:
      accuracy: float32 `[*axes]`, the share of examples whose likeliest class is theirs.
      auc: area under the ROC curve, 0.5 at chance whatever the classes' sizes; of more than two classes the mean over
        classes of each against the rest. Classes without examples do not count, and with a single class it is nan.
      calibration: expected calibration error of the likeliest class, in 15 bins of confidence, from 0 to 1.
      log_loss: mean negative log probability of the right class, in nats.
    """

    accuracy: Any
    auc: Any
    calibration: Any
    log_loss: Any


def scores(
    probe: Callable[[Any], Array], x: Activations, y: Any, *, weights: Any = None, chunk: int | None = None
) -> Scores:
    """Scores a probe, mostly on examples that were held out.

    Args:
      probe: any of this room, or a function `x -> logits [*axes example class]`.
      x: activations `[*axes example d_in]`.
      y: labels `[example]` or `[*axes example]`.
      weights: how much each example counts, as in `logistic`; 0 leaves it out.
      chunk: how many places are scored at once, by default as in `logistic`.

    Raises:
      ValueError: labels or weights of another length than the examples, or of a class that the probe does not have.

    Example:
      >>> import jax
      >>> from interp_jax import probes
      >>> x = jax.random.normal(jax.random.key(0), (3, 80, 5))
      >>> y = x[0, :, 2] > 0
      >>> found = probes.scores(probes.logistic(x, y), x, y)
      >>> found.auc.shape, bool(found.auc[0] > 0.9)
      ((3,), True)
    """
    logits = probe(x)
    here = examples("probes.scores", logits, y, weights, logits.shape[-1], several=False)
    return each_place(_scores, here, chunk=chunk)


def _scores(logits: Array, y: Array, weights: Array, *, n_classes: int) -> Scores:
    total = jnp.maximum(weights.sum(), 1e-30)
    log_p = jax.nn.log_softmax(logits)
    p, guess = jnp.exp(log_p), logits.argmax(-1)
    right = (guess == y).astype(jnp.float32)
    confidence = p.max(-1)
    bins = jnp.clip(jnp.ceil(confidence * N_BINS).astype(jnp.int32) - 1, 0, N_BINS - 1)
    gap = jax.ops.segment_sum(weights * (right - confidence), bins, N_BINS)
    own = jnp.take_along_axis(log_p, y[:, None], 1)[:, 0]
    return Scores(
        accuracy=weights @ right / total,
        auc=_auc_two(logits, y, weights) if n_classes == 2 else _auc_rest(p, y, weights, n_classes),
        calibration=jnp.abs(gap).sum() / total,
        log_loss=-jnp.where(weights > 0, weights * own, 0).sum() / total,
    )


def _auc_two(logits: Array, y: Array, weights: Array) -> Array:
    return auc(logits[:, 1] - logits[:, 0], y == 1, weights)


def _auc_rest(p: Array, y: Array, weights: Array, n_classes: int) -> Array:
    each = jax.vmap(lambda scores, k: auc(scores, y == k, weights), (1, 0))(p, jnp.arange(n_classes))
    return jnp.nanmean(each)


def auc(values: Array, positive: Array, weights: Array) -> Array:
    """The area under the ROC curve of one score: `values`, `positive` (bool) and `weights` are `[example]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax.probes.scoring import auc
      >>> float(auc(jnp.array([0.1, 0.4, 0.4, 0.9]), jnp.array([False, False, True, True]), jnp.ones(4)))
      0.875
    """
    values, positive, weights = lax.sort((values, positive, weights), num_keys=1)
    negative, positive = jnp.where(positive, 0, weights), jnp.where(positive, weights, 0)
    upto = jnp.cumsum(negative)
    # Equal values are a group, all of which has the negatives before its start below it, and those in it beside it.
    new = values[1:] != values[:-1]
    below = lax.cummax(jnp.where(jnp.concatenate([jnp.ones(1, bool), new]), upto - negative, 0))
    through = lax.cummin(jnp.where(jnp.concatenate([new, jnp.ones(1, bool)]), upto, jnp.inf), reverse=True)
    pairs = positive.sum() * negative.sum()
    return jnp.where(pairs > 0, (positive * (below + through) / 2).sum() / pairs, jnp.nan)
