"""Metrics: what a run is judged by. Each function takes what to compare with and returns a metric of the logits.

A metric maps logits `[... d_vocab]` to one number per example `[...]`. It is a pytree whose leaves are the arrays
that it compares with, so it may be an argument of `jit` and be mapped by `vmap`. It is computed in float32, or in
float64 where the logits are.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.core import Tracer
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Bool, Float, Int
import numpy as np

Metric = Callable[[Array], Array]


def logit_diff(answers: Int[Array, "*batch"], distractors: Int[Array, "*batch"]) -> Metric:
    """Logit of the right answer minus logit of the wrong one.

    Args:
      answers: int32 `[batch]`, token ids.
      distractors: int32 `[batch]`, token ids.

    Returns:
      A metric: logits `[batch d_vocab]` to float32 `[batch]`.

    Raises:
      ValueError: (from the metric) the logits are not `[batch d_vocab]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import metrics
      >>> metric = metrics.logit_diff(jnp.array([0, 2]), jnp.array([1, 1]))
      >>> metric(jnp.array([[3.0, 1.0, 0.0], [0.0, 1.0, 5.0]])).tolist()
      [2.0, 4.0]
    """
    return Partial(_logit_diff, jnp.asarray(answers), jnp.asarray(distractors))


def log_prob(answers: Int[Array, "*batch"]) -> Metric:
    """Log-probability of the answer, in nats.

    Args:
      answers: int32 `[batch]`, token ids.

    Returns:
      A metric: logits `[batch d_vocab]` to float32 `[batch]`.

    Raises:
      ValueError: (from the metric) the logits are not `[batch d_vocab]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import metrics
      >>> metrics.log_prob(jnp.array([0]))(jnp.zeros((1, 4)))
      Array([-1.3862944], dtype=float32)
    """
    return Partial(_log_prob, jnp.asarray(answers))


def prob(answers: Int[Array, "*batch"]) -> Metric:
    """Probability of the answer.

    Args:
      answers: int32 `[batch]`, token ids.

    Returns:
      A metric: logits `[batch d_vocab]` to float32 `[batch]`.

    Raises:
      ValueError: (from the metric) the logits are not `[batch d_vocab]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import metrics
      >>> metrics.prob(jnp.array([0]))(jnp.zeros((1, 4))).tolist()
      [0.25]
    """
    return Partial(_prob, jnp.asarray(answers))


def log_odds(tokens: Int[Array, " option"]) -> Metric:
    """Log odds that one of some tokens comes next: `log p - log(1 - p)` of their probability together, in nats.

    With tokens that begin a refusal this is the refusal metric of Arditi et al. 2024, arXiv:2406.11717.

    Args:
      tokens: int32 `[option]`, token ids, the same for every example.

    Returns:
      A metric: logits `[... d_vocab]` to float32 `[...]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import metrics
      >>> metrics.log_odds(jnp.array([0, 2]))(jnp.zeros((1, 4))).tolist()
      [0.0]
    """
    return Partial(_log_odds, jnp.asarray(tokens))


def accuracy(answers: Int[Array, "*batch"]) -> Metric:
    """1 where the answer has the highest logit, else 0. Of equal logits, the first in the vocabulary is the highest.

    Args:
      answers: int32 `[batch]`, token ids.

    Returns:
      A metric: logits `[batch d_vocab]` to float32 `[batch]`.

    Raises:
      ValueError: (from the metric) the logits are not `[batch d_vocab]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import metrics
      >>> metrics.accuracy(jnp.array([0, 0]))(jnp.array([[2.0, 1.0], [1.0, 2.0]])).tolist()
      [1.0, 0.0]
    """
    return Partial(_accuracy, jnp.asarray(answers))


def cross_entropy(tokens: Int[Array, "*batch position"], mask: Bool[Array, "*batch position"] | None = None) -> Metric:
    """Next-token loss: mean of -log p(tokens[t + 1]) over the predicted positions of each sequence, in nats.

    Args:
      tokens: int32 `[batch position]`, the tokens that the model read.
      mask: bool `[batch position]`, True at real tokens; None if all are. A prediction counts where both the token
        that it is made at and the token that it is about are real. A sequence without any gives 0.

    Returns:
      A metric: logits `[batch position d_vocab]` to float32 `[batch]`.

    Raises:
      ValueError: (from the metric) the logits are not `[batch position d_vocab]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import metrics
      >>> metrics.cross_entropy(jnp.array([[0, 1, 3]]))(jnp.zeros((1, 3, 4)))
      Array([1.3862944], dtype=float32)
    """
    tokens = jnp.asarray(tokens)
    return Partial(_cross_entropy, tokens, jnp.ones(tokens.shape, bool) if mask is None else jnp.asarray(mask))


def kl(reference_logits: Float[Array, "*batch d_vocab"]) -> Metric:
    """Kullback-Leibler divergence KL(reference || run), in nats.

    Args:
      reference_logits: `[batch d_vocab]` (or with more leading axes, which the result keeps), of the reference run.

    Returns:
      A metric: logits `[batch d_vocab]` to float32 `[batch]`.

    Raises:
      ValueError: (from the metric) the logits are not of the reference's shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import metrics
      >>> metrics.kl(jnp.array([[9.0, 0.0]]))(jnp.array([[0.0, 9.0]])).round(2).tolist()
      [9.0]
    """
    return Partial(_kl, jnp.asarray(reference_logits))


def normalized(metric: Metric, clean: Any, corrupted: Any) -> Metric:
    """Rescales a metric so that the corrupted run gives 0 and the clean run gives 1.

    Args:
      metric: the metric to rescale.
      clean: `[batch]` or a number, the metric's value on the clean run.
      corrupted: `[batch]` or a number, its value on the corrupted run.

    Returns:
      A metric: `(metric(logits) - corrupted) / (clean - corrupted)`, float32 `[batch]`. Where a traced `clean`
      equals `corrupted` it gives nan.

    Raises:
      ValueError: `clean` equals `corrupted` in some example, so there is no scale.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import metrics
      >>> metric = metrics.normalized(metrics.prob(jnp.array([0])), clean=0.75, corrupted=0.25)
      >>> metric(jnp.zeros((1, 2))).tolist()
      [0.5]
    """
    clean, corrupted = _float(jnp.asarray(clean)), _float(jnp.asarray(corrupted))
    known = not isinstance(clean, Tracer) and not isinstance(corrupted, Tracer)
    if known and (flat := np.equal(clean, corrupted)).any():  # by numpy: nothing is compiled for it
        which = f" in examples {np.flatnonzero(flat).tolist()}" if flat.ndim else ""
        raise ValueError(f"normalized: clean equals corrupted{which}; drop them, or normalise by the batch means")
    if jax.tree_util.all_leaves([metric]):  # a plain function: keep it out of the leaves
        metric = Partial(metric)
    return Partial(_normalized, metric, clean, corrupted)


def _logit_diff(answers: Array, distractors: Array, logits: Array) -> Array:
    _check("logit_diff", logits, answers.shape)
    return _pick(_float(logits), answers) - _pick(_float(logits), distractors)


def _log_prob(answers: Array, logits: Array) -> Array:
    _check("log_prob", logits, answers.shape)
    return _pick(jax.nn.log_softmax(_float(logits)), answers)


def _prob(answers: Array, logits: Array) -> Array:
    _check("prob", logits, answers.shape)
    return _pick(jax.nn.softmax(_float(logits)), answers)


def _log_odds(tokens: Array, logits: Array) -> Array:
    within = jnp.zeros(logits.shape[-1], bool).at[tokens].set(True)
    some, others = (jnp.where(chosen, _float(logits), -jnp.inf) for chosen in (within, ~within))
    return jax.nn.logsumexp(some, axis=-1) - jax.nn.logsumexp(others, axis=-1)


def _accuracy(answers: Array, logits: Array) -> Array:
    _check("accuracy", logits, answers.shape)
    return (logits.argmax(-1).astype(answers.dtype) == answers).astype(jnp.float32)


def _cross_entropy(tokens: Array, mask: Array, logits: Array) -> Array:
    _check("cross_entropy", logits, tokens.shape)
    losses = -_pick(jax.nn.log_softmax(_float(logits[..., :-1, :])), tokens[..., 1:])
    counted = mask[..., 1:] & mask[..., :-1]
    return jnp.where(counted, losses, 0).sum(-1) / jnp.maximum(counted.sum(-1), 1).astype(losses.dtype)


def _kl(reference_logits: Array, logits: Array) -> Array:
    _check("kl", logits, reference_logits.shape[:-1])
    reference, run = jax.nn.log_softmax(_float(reference_logits)), jax.nn.log_softmax(_float(logits))
    return jnp.where(jnp.isneginf(reference), 0, jnp.exp(reference) * (reference - run)).sum(-1)


def _normalized(metric: Metric, clean: Array, corrupted: Array, logits: Array) -> Array:
    gap = clean - corrupted
    return (metric(logits) - corrupted) / jnp.where(gap == 0, jnp.nan, gap)


def _float(x: Array) -> Array:
    """`x` in float32, unless it is more exact."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def _pick(values: Array, tokens: Array) -> Array:
    """The value of each token, `[...]` of `[... d_vocab]`; nan where a token is not below d_vocab."""
    return jnp.take_along_axis(values, tokens[..., None], axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]


def _check(name: str, logits: Array, leading: tuple[int, ...]) -> None:
    """Raises ValueError where the logits are not `[*leading d_vocab]`."""
    if logits.shape[:-1] == leading and logits.ndim:
        return
    remedy = ""
    if logits.ndim == len(leading) + 2:
        remedy = "; logits of every position: pass logits_at= to the forward, or pick one position"
    raise ValueError(f"{name}: wants logits of shape {[*leading, 'd_vocab']}, got {list(logits.shape)}{remedy}")
