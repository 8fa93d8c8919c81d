"""Inference-time intervention: the heads that tell two kinds of text apart best are shifted along what tells them.

    z[l, h] <- z[l, h] + alpha sigma[l, h] theta[l, h]   at the K heads whose probes are the most accurate

with theta the unit direction of a probe, or of the difference of means, and sigma the standard deviation of the head's
outputs along it. Li et al. 2023, "Inference-time intervention: eliciting truthful answers from a language model",
arXiv:2306.03341 (LLaMA-7B: K = 48 of 1,024 heads, alpha = 15).
"""

from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float

Outputs = Float[Typed, "layer head example d_head"]
Directions = Float[Typed, "layers heads d"]
Scores = Float[Typed, "n_layers n_heads"]


def head_shifts(x: Outputs, directions: Directions, scores: Scores, n_heads: int) -> Directions:
    """One standard deviation along a direction at each of the best heads, and 0 at the others.

    Args:
      x: outputs of heads `[layer head example d_head]`, of any float dtype, over which deviations are taken.
      directions: `[layer head d_head]` of any norm, such as `probes.logistic(x, y).direction`.
      scores: `[layer head]`, the larger the better, such as the probes' accuracy on examples held out.
      n_heads: K, how many heads are shifted.

    Returns:
      float32 `[layer head d_head]`, for `{"blocks.attn.z": per_layer(add(alpha * shifts))}`.

    Raises:
      ValueError: arrays that do not fit, or another number of heads than there can be.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import models, steering
      >>> from interp_jax.interventions import add, per_layer
      >>> model, _ = models.load("microworld")
      >>> x = jax.random.normal(jax.random.key(0), (4, 4, 10, 32))
      >>> shifts = steering.head_shifts(x, x[:, :, 0], jnp.arange(16.0).reshape(4, 4), 2)
      >>> [int(n) for n in jnp.abs(shifts).sum(-1).astype(bool).sum(1)]
      [0, 0, 0, 2]
      >>> f = ij.intervene(models.forward, {"blocks.attn.z": per_layer(add(15 * shifts))})
      >>> f(model, jnp.array([[1, 5, 9]])).shape
      (1, 3, 641)
    """
    if directions.shape != (*x.shape[:2], x.shape[-1]) or scores.shape != x.shape[:2]:
        raise ValueError(
            f"steering.head_shifts: outputs {list(x.shape)}, directions {list(directions.shape)}, scores "
            f"{list(scores.shape)}: give [layer head example d_head], [layer head d_head] and [layer head]"
        )
    if not 1 <= n_heads <= scores.size:
        raise ValueError(f"steering.head_shifts: n_heads={n_heads} of {scores.size} heads")
    unit = directions.astype(jnp.float32)
    norm = jnp.linalg.norm(unit, axis=-1, keepdims=True)
    unit = unit / jnp.where(norm == 0, 1, norm)
    deviation = jnp.einsum("lhed,lhd->lhe", x.astype(jnp.float32), unit, precision="highest").std(-1)
    return unit * (deviation * best_heads(scores, n_heads))[..., None]


def best_heads(scores: Array, n_heads: int) -> Array:
    """1 at the heads of the largest scores and 0 at the others, float32 `[layer head]`."""
    best = lax.top_k(scores.ravel(), n_heads)[1]
    return jnp.zeros(scores.size).at[best].set(1).reshape(scores.shape)
