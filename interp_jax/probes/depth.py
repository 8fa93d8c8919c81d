"""Concept depth: the layer at which a probe's accuracy jumps, and the one at which it has converged.

    beta_l = accuracy_l / accuracy_(l-1);   jump: the first l with beta_l >= 1.1;
    converged: the first l after which |beta - 1| < 0.03 at every layer

Jin et al. 2024, "Exploring concept depth", arXiv:2404.07066. Jumps and rates are theirs; of convergence this is the
reading by which a layer that stands still for a moment, before accuracy rises, has not converged.
Caveat: a ratio of accuracies asks for less, the lower they are: 0.50 to 0.55 is a jump, 0.85 to 0.93 is not.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import ArrayLike, Float, Int

Accuracies = Float[ArrayLike, "*axes layer"] | Sequence[float]


def jump_layer(accuracies: Accuracies, *, rate: float = 1.1) -> Int[Typed, "*axes"]:
    """The first layer whose accuracy is at least `rate` times that of the layer before; -1 where there is none.

    Args:
      accuracies: of the probes of every layer, the embeddings as layer 0.
      rate: what counts as a jump.

    Raises:
      ValueError: fewer than two layers.

    Example:
      >>> from interp_jax import probes
      >>> int(probes.jump_layer([0.5, 0.51, 0.8, 0.9])), int(probes.jump_layer([0.9, 0.91]))
      (2, -1)
    """
    jumps = _rates("jump_layer", accuracies) >= rate
    return jnp.where(jumps.any(-1), jumps.argmax(-1).astype(jnp.int32) + jnp.int32(1), jnp.int32(-1))


def converged_layer(accuracies: Accuracies, *, tolerance: float = 0.03) -> Int[Typed, "*axes"]:
    """The first layer after which no layer's accuracy differs from that of the layer before by the tolerance or more.

    Args:
      accuracies: as in `jump_layer`.
      tolerance: of the ratio of two accuracies.

    Raises:
      ValueError: fewer than two layers.

    Example:
      >>> from interp_jax import probes
      >>> int(probes.converged_layer([0.5, 0.51, 0.8, 0.9, 0.91])), int(probes.converged_layer([0.9, 0.91]))
      (3, 0)
    """
    moves = jnp.abs(_rates("converged_layer", accuracies) - 1) >= tolerance
    last = moves.shape[-1] - moves[..., ::-1].argmax(-1)
    return jnp.where(moves.any(-1), last, 0).astype(jnp.int32)


def _rates(name: str, accuracies: Accuracies) -> Float[Typed, "*axes step"]:
    values = jnp.asarray(accuracies, jnp.float32)
    if not values.ndim or values.shape[-1] < 2:
        raise ValueError(f"{name}: accuracies {list(values.shape)}: give one for each layer, two or more")
    return values[..., 1:] / values[..., :-1]
