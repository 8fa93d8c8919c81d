"""Directions in which a Jacobian lens reads tokens, and the edit that swaps two of them.

    v = J_l^T (w * W_U[:, token]) / |...|        w: the weights of the final norm, whose mean is left out where it is
    swap: h - 2 (d . h) d / |d|^2,  d = v - u    v's coordinate of h and u's, by least squares, change places

Add them to steer (`per_layer(add(...))`), `project_out` them to ablate. Gurnee et al. 2026, https://transformer-circuits.pub/2026/workspace,
where the swap is written h + V (P - 1) V^+ h with V = [v u] and P the exchange: at unit norm it is this reflection.
Caveat: directions of tokens that mean alike are far from orthogonal: what is done along one is done along the other.
"""

from typing import Any

from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float, Int

from interp_jax.core import Context, Intervention, check_kind, of_visit
from interp_jax.interventions.registration import pytree
from interp_jax.lens.jacobian import JacobianLens
from interp_jax.weights import Weights, unembedding


def directions(
    lens: JacobianLens, weights: Weights, tokens: Int[Typed, "*batch"]
) -> Float[Typed, "layer *batch d_model"]:
    """The directions of the residual stream in which the lens reads tokens, at unit norm.

    A small step along one moves that token's logit, as the lens reads it, the most, the norm's scale held. They stay
    the same when `weights.fold_norms` moves the norm's weights into the unembedding.

    Args:
      lens: the lens.
      weights: `models.weights(model)`.
      tokens: int32 ids of any shape.

    Returns:
      float32 `[layer *batch d_model]`: of one token, `[layer d_model]`, as `per_layer(add(...))`, `project_out` and
      `swap` take it at the site that the lens reads.

    Raises:
      ValueError: a model without an unembedding, or of another d_model.

    Example:
      >>> import jax, interp_jax as ij, jax.numpy as jnp
      >>> from interp_jax import lens, models
      >>> from interp_jax.interventions import add, per_layer, project_out
      >>> model, _ = models.load("microworld")
      >>> start, tokens = lens.JacobianLens.create(128, 4), jnp.array([17, 18])
      >>> cat, dog = jnp.moveaxis(lens.directions(start, models.weights(model), tokens), 1, 0)
      >>> edits = [per_layer(add(4 * cat)), project_out(cat), lens.swap(cat, dog)]
      >>> [ij.intervene(models.forward, {"blocks.resid_pre": e})(model, jnp.array([1, 5])).shape for e in edits]
      [(2, 641), (2, 641), (2, 641)]
    """
    w_u, (_, d_model) = unembedding("directions", weights), lens.sizes
    if len(w_u) != d_model:
        raise ValueError(f"directions: a lens of d_model {d_model}, but the unembedding reads {len(w_u)}")
    read = jnp.moveaxis(jnp.take(w_u, tokens, axis=1, mode="fill"), 0, -1)
    if "ln_final_w" in weights:
        read = read * weights["ln_final_w"].astype(jnp.float32)
    if "ln_final_b" in weights if lens.centred is None else lens.centred:
        read = read - read.mean(-1, keepdims=True)
    return _unit(jnp.einsum("lnm,...n->l...m", lens.J, read))


@pytree(data=("first", "second"))
class _Swap(Intervention):
    smooth = True  # type: ignore[assignment]
    first: Any
    second: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        apart = _unit(self._here(self.first, value, ctx)) - _unit(self._here(self.second, value, ctx))
        apart = _unit(apart)
        x = value.astype(jnp.float32)
        along = jnp.einsum("...d,d->...", x, apart, precision="highest")
        return (x - 2 * along[..., None] * apart).astype(value.dtype)

    def _here(self, direction: Array, value: Array, ctx: Context) -> Array:
        check_kind(direction, value, ctx)
        here = of_visit(direction, ctx) if direction.ndim == 1 + len(ctx.index) else direction
        if here.ndim != 1 or here.shape != value.shape[-1:]:
            raise ValueError(
                f"swap: site {ctx.name!r} has a last axis of {value.shape[-1]}, the direction has shape "
                f"{direction.shape}"
            )
        return here.astype(jnp.float32)


def swap(first: Float[Typed, "*layer d"], second: Float[Typed, "*layer d"]) -> Intervention:
    """Exchanges what a value has along one direction with what it has along another; all else stays, and its norm too.

    Twice is nothing. Of two directions that are one, it does nothing.

    Args:
      first, second: `[d]` of any norm, or one per layer `[layer d]`, as `directions` gives them.

    Raises:
      ValueError: (when applied) the last axis of the site has another size, or the site another number of layers.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import lens
      >>> edit = lens.swap(jnp.array([2.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0]))
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": edit})(jnp.array([5.0, 3.0, 1.0])).tolist()
      [3.0, 5.0, 1.0]
    """
    return _Swap(first, second)


def _unit(x: Array) -> Array:
    """Vectors at unit norm; those of norm 0 stay."""
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norm == 0, jnp.ones_like(norm), norm)
