"""The regularisation path: probes at several penalties, of which the best on held-out examples is taken at each place.

l2* = argmin over l2 of the log loss on the examples that were held out
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from interp_jax.probes.linear import Activations
from interp_jax.probes.regression import logistic
from interp_jax.probes.scoring import Scores, scores


@partial(jax.tree_util.register_dataclass, data_fields=["l2s", "scores", "l2", "probe"], meta_fields=[])
@dataclass(frozen=True)
class Path:
    """Probes along a regularisation path. It is a pytree.

    Attributes:
      l2s: float32 `[l2]`, the penalties.
      scores: `Scores` on the held-out examples, each `[l2 *axes]`.
      l2: float32 `[*axes]`, the penalty with the smallest held-out log loss at each place.
      probe: the probe of that penalty.
    """

    l2s: Any
    scores: Scores
    l2: Any
    probe: Any


def path(
    x: Activations,
    y: Any,
    l2s: Sequence[float] | Any,
    *,
    held_out: Any,
    weights: Any = None,
    n_classes: int | None = None,
    fit: Callable[..., Any] = logistic,
    chunk: int | None = None,
) -> Path:
    """Fits probes at several penalties and chooses one at each place by examples that were held out.

    Args:
      x, y, weights, n_classes, chunk: as in `logistic`.
      l2s: the penalties, at least one.
      held_out: bool `[example]` or `[*axes example]`, True at the examples to choose by. The fit does not see them, and
        the choice uses them up: score on others.
      fit: `logistic`, `ridge`, or another function with their arguments.

    Raises:
      ValueError: no penalty; as `logistic`, for either part of the examples.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import probes
      >>> x = jax.random.normal(jax.random.key(0), (3, 80, 5))
      >>> found = probes.path(x, x[0, :, 2] > 0, [0.1, 1.0, 10.0], held_out=jnp.arange(80) >= 60)
      >>> found.scores.accuracy.shape, found.l2.shape, found.probe.W.shape
      ((3, 3), (3,), (3, 2, 5))
    """
    l2s = jnp.asarray(l2s, jnp.float32)
    if l2s.ndim != 1 or not l2s.size:
        raise ValueError(f"probes.path: l2s of shape {list(l2s.shape)}: give a list of at least one penalty")
    held_out = jnp.asarray(held_out, bool)
    counts = jnp.ones(held_out.shape) if weights is None else jnp.asarray(weights, jnp.float32)
    seen, unseen = jnp.where(held_out, 0, counts), jnp.where(held_out, counts, 0)
    probe: Any = [fit(x, y, l2=l2, weights=seen, n_classes=n_classes, chunk=chunk) for l2 in l2s]
    found = [scores(one, x, y, weights=unseen, chunk=chunk) for one in probe]
    probe, found = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts) for parts in (probe, found))
    best = jnp.nanargmin(found.log_loss, 0)

    def chosen(leaf: Any) -> Any:
        index = best.reshape(1, *best.shape, *(1,) * (leaf.ndim - 1 - best.ndim))
        return jnp.take_along_axis(leaf, index, 0)[0]

    return Path(l2s, found, l2s[best], jax.tree.map(chosen, probe))
