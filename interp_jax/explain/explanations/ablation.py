"""The ablation score: does a model with a unit's activations as an explanation simulates them write as it did?

    score = 1 - sum JSD(simulated, original) / sum JSD(ablated, original)

over all tokens; simulated: the unit has its simulated activation, mapped to the real ones by least squares; ablated:
it has its mean. 1: the model does what it did; 0: no better than without the unit. JSD: the Jensen-Shannon divergence
of the next-token distributions.
Bills et al. 2023, https://openaipublic.blob.core.windows.net/neuron-explainer/paper/index.html.
Caveat: where the unit hardly matters, both divergences are close to rounding errors, and the interval is wide.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Bool, Float
import numpy as np

from interp_jax.core import intervene, transform
from interp_jax.explain.explanations.estimates import Score, of_sums
from interp_jax.interventions import add

ROUNDING = 1e-9  # nats a token: what a divergence may be of two outputs that are the same
NEAR = 0.1  # below it, three terms of a series are as good as float32


def ablation(f: Callable[..., Any], where: str) -> Callable[..., Score | None]:
    """The ablation score of one unit, over texts.

    Args:
      f: `(model, tokens [text position]) -> logits [text position d_vocab]`.
      where: address of the site that the unit writes to, such as `"blocks.2.mlp.post"` for a neuron of it, or
        `"blocks.2.resid_post"` for a feature of a dictionary of it.

    Returns:
      `g(model, tokens, direction, real, simulated, mask=None) -> score`: `direction` `[d]` is what one of the unit's
      activation is at the site: a row of the dictionary's `W_dec`, or for a neuron 1 at its number and 0 elsewhere;
      `real` and `simulated` are float `[text position]`, `mask` is False at tokens that do not count. None where the
      unit does nothing: its ablation changes no more than rounding does.

    Raises:
      ValueError: (when called) activations of another shape than the tokens.

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np
      >>> from interp_jax import explain, models
      >>> model, _ = models.load("microworld")
      >>> tokens, real = jnp.array([[1, 5, 9, 7]]), np.array([[0.0, 3.0, 0.0, 1.0]])
      >>> score = explain.ablation(models.forward, "blocks.1.mlp.post")
      >>> direction = np.eye(model.config.d_mlp)[3]
      >>> round(score(model, tokens, direction, real, 2 * real + 1).value, 2)
      1.0
    """
    run = transform(_divergences, where, f)

    def score(
        model: Any,
        tokens: Any,
        direction: Float[np.ndarray | Array, " d"],
        real: np.ndarray,
        simulated: np.ndarray,
        mask: Bool[np.ndarray, "text position"] | None = None,
    ) -> Score | None:
        shape = np.shape(tokens)
        counted = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
        if not shape == np.shape(real) == np.shape(simulated) == counted.shape:
            raise ValueError(
                f"ablation: real {np.shape(real)} and simulated activations {np.shape(simulated)} for tokens {shape}; "
                "give one of each for every token"
            )
        changes = [calibrated(simulated, real, counted) - real, real[counted].mean() - real]
        change = np.where(counted, np.stack(changes), 0).astype(np.float32)
        found = np.asarray(run(model, jnp.asarray(tokens), jnp.asarray(direction, jnp.float32), jnp.asarray(change)))
        sums = np.where(counted, found, 0).sum(-1).T.astype(np.float64)  # [text simulated-or-ablated]
        if sums[:, 1].sum() <= ROUNDING * counted.sum():
            return None
        return of_sums(sums, lambda n: 1 - n[..., 0] / n[..., 1], [0] * len(sums))

    return score


def calibrated(simulated: np.ndarray, real: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Simulated activations on the scale of real ones, by least squares; the real mean where they do not vary."""
    x, y = simulated[counted], real[counted]
    spread = np.square(x - x.mean()).sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > 0 else 0.0
    return y.mean() + slope * (simulated - x.mean())


def _divergences(where: str, f: Any, model: Any, tokens: Array, direction: Array, change: Array) -> Array:
    """At every token, how far the model's output goes when the unit is changed in each of several ways."""
    original = f(model, tokens)

    def one(change: Array) -> Array:
        moved = intervene(f, {where: add(change[..., None] * direction)})(model, tokens)
        return jensen_shannon(moved, original)

    return jnp.stack([one(some) for some in change])


def jensen_shannon(a: Float[Array, "*batch d_vocab"], b: Float[Array, "*batch d_vocab"]) -> Float[Array, "*batch"]:
    """The Jensen-Shannon divergence of two distributions given as logits, in nats, at most log 2.

    Example:
      >>> import jax.numpy as jnp
          >>> from interp_jax.explain.explanations.ablation import jensen_shannon
      >>> round(float(jensen_shannon(jnp.array([0.0, -1e9]), jnp.array([-1e9, 0.0]))), 4)
      0.6931
    """
    p, q = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (a, b))
    # With the mean m and p, q = m (1 - t), m (1 + t) no term is negative: nothing cancels where they are almost alike.
    t = jnp.tanh(jnp.where(p == q, 0, q - p) / 2)
    near = jnp.square(t) * (1 / 2 + jnp.square(t) * (1 / 12 + jnp.square(t) / 30))  # the series of the other
    far = (xlogy(1 - t, 1 - t) + xlogy(1 + t, 1 + t)) / 2
    return ((jnp.exp(p) + jnp.exp(q)) / 2 * jnp.where(jnp.abs(t) < NEAR, near, far)).sum(-1)
