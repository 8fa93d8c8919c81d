"""Causal tracing: which state, put back, brings the answer back when the subject's embedding is drowned in noise.

    corrupted: embed[subject] + noise of deviation `scale`;  restored[i]: the same, with x[i] of the clean run

Meng et al. 2022, "Locating and editing factual associations in GPT" (ROME), arXiv:2202.05262, whose scale is three
deviations of the embeddings; single layers for the residual stream, windows of ten for attention and MLPs.
Caveat: where a fact is restored is not where an edit of it works best (Hase et al. 2023, arXiv:2301.04213).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.core import capture, intervene, transform
from interp_jax.interventions import at, noise, replace
from interp_jax.patching.sweep import sweep
from interp_jax.runs import check_counts, named, per_example


class Trace(NamedTuple):
    """What causal tracing found, as float32 means over examples and noise.

    clean, corrupted: `[]`, the metric without and with noise; their difference is the total effect.
    restored: with the axes of `over`, the metric with one state put back; less `corrupted`: the indirect effect.
    """

    clean: Array
    corrupted: Array
    restored: Array


def causal_trace(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    where: str,
    over: Sequence[str] = ("layer", "position"),
    *,
    n_samples: int = 10,
    window: int = 1,
    embed: str = "embed",
    chunk: int | None = None,
    plan: str | None = None,
) -> Callable[..., Trace]:
    """Puts the clean run's state back, at each place in turn, in runs whose subject is noise.

    Args:
      f, metric, where, over, chunk, plan: as in `activation_patch`; the metric is usually `metrics.prob(answers)`.
      n_samples: draws of noise, which follow one another.
      window: so many layers around each are restored together.
      embed: address of the embeddings.

    Returns:
      `g(key, subject, scale, model, tokens) -> Trace`: subject bool `[batch position]`, true where noise is added
      (places, as in `at(mask=)`); scale, its standard deviation.

    Raises:
      ValueError: as `activation_patch`; fewer than one sample.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import metrics, models, patching
      >>> model, _ = models.load("microworld")
      >>> f = lambda model, tokens: models.forward(model, tokens)[:, -1]
      >>> trace = patching.causal_trace(f, metrics.prob(jnp.array([7])), "blocks.resid_pre", "layer", n_samples=2)
      >>> tokens, subject = jnp.array([[1, 5, 9]]), jnp.array([[False, True, False]])
      >>> trace(jax.random.key(0), subject, 3.0, model, tokens).restored.shape
      (4,)
    """
    check_counts(n_samples=n_samples)
    inner = (("over", named(over)), ("window", window), ("chunk", chunk), ("plan", plan))
    options = _Options(where, embed, n_samples, inner)
    return transform(_causal_trace, options, (f, metric))


class _Options(NamedTuple):
    where: str
    embed: str
    n_samples: int
    sweep: tuple[tuple[str, Any], ...]


def _causal_trace(options: _Options, arrays: Any, *args: Any, **kwargs: Any) -> Trace:
    (f, metric), (*before, key, subject, scale, model, tokens) = arrays, args
    args, where, examples = (*before, model, tokens), options.where, jnp.shape(tokens)[:-1]
    output, values = capture(f, where)(*args, **kwargs)

    def one(key: Array) -> tuple[Array, Array]:
        noisy = intervene(f, {options.embed: at(noise(key, scale), mask=subject)})
        corrupted = per_example(metric(noisy(*args, **kwargs)), examples).mean()
        return corrupted, sweep(noisy, metric, where, replace(values[where]), **dict(options.sweep))(*args, **kwargs)

    corrupted, restored = jax.lax.map(one, jax.random.split(key, options.n_samples))
    return Trace(per_example(metric(output), examples).mean(), corrupted.mean(0), restored.mean(0))
