"""The auxiliary loss that keeps features alive: the strongest dead ones learn what the others leave.

    aux = |e - e'|^2,    e = x - x' held constant,    e' = the sum of the k_aux strongest dead features' rows

Gao et al. 2024, https://arxiv.org/abs/2406.04093, appendix A.2.
Caveat: these features go through no ReLU, so that a dead one whose pre-activation is negative everywhere still gets
a gradient (as in SAELens; the paper does not say).
"""

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float

from interp_jax.dictionaries.kinds import sparse
from interp_jax.dictionaries.kinds.arrays import Whole
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.kinds.losses import LossContext, mean_square


def published_k_aux(d_in: Whole, d_sae: Whole) -> Whole:
    """How many dead features the paper's auxiliary loss uses: half of `d_in`, at most all."""
    return min(max(1, d_in // 2), d_sae)


def aux_loss(
    dictionary: Dictionary,
    k_aux: int,
    x: Float[Array, "n d_in"],
    pre: Float[Array, "n d_sae"],
    residual: Float[Array, "n d_out"],
    context: LossContext,
) -> Float[Array, ""]:
    """The auxiliary loss, zero where no feature is dead.

    Args:
      dictionary: with arrays `W_enc`, `b_enc`, `W_dec` and `b_dec` of one site.
      k_aux: how many dead features learn.
      x: `[n d_in]`.
      pre: its pre-activations `[n d_sae]`; no gradient flows into them.
      residual: what is not reconstructed, `x - x'` or of a transcoder `y - y'`, `[n d_out]`, a constant.
      context: says which features are dead.
    """
    if context.dead is None:
        return jnp.zeros(())
    dead = context.dead

    def revive(x: Array, pre: Array, residual: Array, dead: Array) -> Array:
        top, indices = lax.top_k(jnp.where(dead, pre, -jnp.inf), k_aux)
        centered = lax.stop_gradient(x - dictionary.b_dec if dictionary.apply_b_dec_to_input else x)
        values = sparse.selected(pre, indices, centered, dictionary.W_enc, dictionary.b_enc)
        values = jnp.where(jnp.isfinite(top), values, 0.0)  # fewer dead features than k_aux
        error = sparse.weighted_rows(values, indices, dictionary.W_dec) - residual
        return jnp.where(jnp.any(dead), mean_square(error), 0.0)

    # Mostly no feature is dead, and the selection of k_aux features costs more than all the rest.
    return lax.cond(any_of_all(dead), revive, lambda *_: jnp.zeros(()), x, pre, residual, dead)


@jax.custom_batching.custom_vmap
def any_of_all(flags: Array) -> Array:
    """Whether any flag is set, bool `[]`: of all mapped dictionaries, so that a `cond` on it is a branch under vmap."""
    return jnp.any(flags)


@any_of_all.def_vmap
def _mapped(axis_size: int, in_batched: list[bool], flags: Array) -> tuple[Array, bool]:
    return any_of_all(flags), False
