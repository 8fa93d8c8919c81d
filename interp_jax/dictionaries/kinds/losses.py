"""What training tells a loss, and what a loss tells training: the terms that are reported, the sum that is minimised.

loss = |x - x'|^2 + a aux + s sparsity    (means over the batch of sums over features)
"""

from dataclasses import dataclass

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float

from interp_jax.dictionaries.kinds.arrays import Parameter

Terms = tuple[Float[Array, ""], dict[str, Array]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossContext:
    """What a loss may ask of training beside its batch; each kind takes of it what it needs.

    Attributes:
      dead: bool `[*features]`, the features that an auxiliary loss is to revive; None where none is to be.
      aux_coefficient: `[]`, the weight of the auxiliary loss, of a kind that has one.
      sparsity_coefficient: `[]`, the weight of the sparsity term, of a kind that has one.
      progress: `[]`, the share of the run that is over, for what is annealed.
    """

    dead: Parameter | None = None
    aux_coefficient: Parameter | float = 0.0
    sparsity_coefficient: Parameter | float = 0.0
    progress: Parameter | float = 0.0


def loss_terms(
    error: Float[Array, "n *out"],
    features: Float[Array, "n *features"],
    context: LossContext,
    *,
    aux: Float[Array, ""] | None = None,
    sparsity: Float[Array, ""] | None = None,
) -> Terms:
    """The loss of a batch and its terms, as `Dictionary.loss` returns them.

    Args:
      error: `x' - x`, `[n *out]`.
      features: `[n *features]`.
      context: the weights of the terms.
      aux: the auxiliary loss before its weight, `[]`; None of a kind that has none.
      sparsity: the sparsity term before its weight, `[]`; None of a kind that has none.

    Returns:
      The loss `[]` and `{"error", "mse", "aux", "sparsity", "l0", "fired" [*features]}`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import dictionaries
      >>> features, error = jnp.array([[0.0, 2.0]]), jnp.array([[3.0, 4.0]])
      >>> context = dictionaries.LossContext(sparsity_coefficient=0.5)
      >>> loss, terms = dictionaries.loss_terms(error, features, context, sparsity=features.sum())
      >>> loss.item(), terms["l0"].item(), terms["fired"].tolist()
      (26.0, 1.0, [False, True])
    """
    aux, sparsity = (jnp.asarray(0.0 if term is None else term, jnp.float32) for term in (aux, sparsity))
    fired = features != 0
    mse = mean_square(error)
    terms = {
        "error": error,
        "mse": mse,
        "aux": aux,
        "sparsity": sparsity,
        "l0": jnp.sum(fired, dtype=jnp.float32) / features.shape[0],
        "fired": jnp.any(fired, axis=0),
    }
    return mse + context.aux_coefficient * aux + context.sparsity_coefficient * sparsity, terms


def mean_square(error: Float[Array, "n *out"]) -> Float[Array, ""]:
    """Mean over examples of the squared norm, in float32."""
    return jnp.sum(error.astype(jnp.float32) ** 2) / error.shape[0]


def mean_sum(penalty: Float[Array, "n *features"]) -> Float[Array, ""]:
    """Mean over examples of the sum over features, in float32."""
    return jnp.sum(penalty.astype(jnp.float32)) / penalty.shape[0]
