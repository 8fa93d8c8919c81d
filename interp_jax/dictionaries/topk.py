"""TopK sparse autoencoder: exactly k features are active for each input.

    f = ReLU(TopK(W_enc (x - b_dec) + b_enc)),    x' = W_dec f + b_dec,    rows of W_dec of unit norm
    loss = |x - x'|^2 + a |e - e'|^2,    e = x - x', e' = its reconstruction by the k_aux strongest dead features

Gao et al. 2024, Scaling and evaluating sparse autoencoders, https://arxiv.org/abs/2406.04093.
Caveat: the auxiliary features go through no ReLU, so that a dead feature whose pre-activation is negative
everywhere still gets a gradient (as in SAELens; the paper does not say).
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, PRNGKeyArray
import numpy as np

from interp_jax.dictionaries import sparse

Values = Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TopK:
    """A TopK dictionary: a pytree of float32 arrays. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_in]`, rows of unit norm.
      b_dec: `[d_in]`.
      k: how many features are active for an input.
      k_aux: how many dead features the auxiliary loss uses.
    """

    W_enc: Any
    b_enc: Any
    W_dec: Any
    b_dec: Any
    k: int = field(metadata={"static": True})
    k_aux: int = field(metadata={"static": True})

    architecture: ClassVar[str] = "topk"

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: int,
        d_sae: int,
        k: int,
        *,
        k_aux: int | None = None,
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "TopK":
        """A new dictionary: random unit decoder rows, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs.
          d_sae: number of features.
          k: active features for an input.
          k_aux: dead features in the auxiliary loss; half of `d_in` by default, as in the paper.
          b_dec: `[d_in]`, best the mean of the inputs; zero by default.

        Returns:
          A `TopK` of float32 arrays.

        Raises:
          ValueError: a size is not positive, or k or k_aux is larger than d_sae.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
          >>> features = dictionary.encode(jnp.ones((5, 8)))
          >>> features.shape, dictionary.decode(features).shape
          ((5, 32), (5, 8))
        """
        k_aux = min(max(1, d_in // 2), d_sae) if k_aux is None else k_aux
        for name, size in {"d_in": d_in, "d_sae": d_sae, "k": k, "k_aux": k_aux}.items():
            if size < 1:
                raise ValueError(f"TopK: {name}={size} must be at least 1")
            if name in ("k", "k_aux") and size > d_sae:
                raise ValueError(f"TopK: {name}={size} is larger than d_sae={d_sae}; it must not be")
        W_dec = _unit_rows(jax.random.normal(key, (d_sae, d_in)))
        b_dec = jnp.zeros(d_in) if b_dec is None else jnp.asarray(b_dec, jnp.float32)
        return cls(W_dec.T, jnp.zeros(d_sae), W_dec, b_dec, k=k, k_aux=k_aux)

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[-1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[-2]

    def pre_activations(self, x: Float[Values, "*batch d_in"]) -> Float[Array, "*batch d_sae"]:
        """`W_enc (x - b_dec) + b_enc`, of which the k largest become features.

        Raises:
          ValueError: the last axis of `x` is not d_in.
        """
        if x.shape[-1:] != (self.d_in,):
            raise ValueError(
                f"TopK: inputs of shape {tuple(x.shape)} for a dictionary with d_in={self.d_in}; "
                "it was trained at another site or model"
            )
        return (jnp.asarray(x, self.b_dec.dtype) - self.b_dec) @ self.W_enc + self.b_enc

    def encode_sparse(self, x: Float[Values, "*batch d_in"]) -> tuple[Float[Array, "*batch k"], Int[Array, "*batch k"]]:
        """The k active features: their values in falling order and their indices, both `[*batch k]`."""
        values, indices = lax.top_k(self.pre_activations(x), self.k)
        return jax.nn.relu(values), indices

    def encode(self, x: Float[Values, "*batch d_in"]) -> Float[Array, "*batch d_sae"]:
        """Features `[*batch d_sae]` of inputs `[*batch d_in]`, at most k of them not zero, in float32."""
        values, indices = self.encode_sparse(x)
        zeros = jnp.zeros((*x.shape[:-1], self.d_sae), values.dtype)
        return jnp.put_along_axis(zeros, indices, values, axis=-1, inplace=False)

    def decode(self, features: Float[Values, "*batch d_sae"]) -> Float[Array, "*batch d_in"]:
        """Reconstruction `[*batch d_in]` from features `[*batch d_sae]`."""
        return features @ self.W_dec + self.b_dec

    def decode_sparse(
        self, values: Float[Array, "*batch k"], indices: Int[Array, "*batch k"]
    ) -> Float[Array, "*batch d_in"]:
        """Reconstruction `[*batch d_in]` from the values and indices `[*batch k]` of active features."""
        k = values.shape[-1]
        rows = sparse.weighted_rows(values.reshape(-1, k), indices.reshape(-1, k), self.W_dec)
        return rows.reshape(*values.shape[:-1], self.d_in) + self.b_dec

    def __call__(self, x: Float[Values, "*batch d_in"]) -> Float[Array, "*batch d_in"]:
        """Reconstruction of `x`, in its dtype."""
        return self.decode(self.encode(x)).astype(x.dtype)

    def loss(
        self, x: Float[Array, "n d_in"], dead: Bool[Array, " d_sae"], aux_coefficient: Float[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The training loss of a batch; its gradient costs what the active features cost.

        Args:
          x: `[n d_in]`.
          dead: `[d_sae]`, the features that the auxiliary loss is to revive.
          aux_coefficient: its weight.

        Returns:
          The loss and `{"error": x' - x [n d_in], "l0", "aux", "fired" [d_sae]}`.
        """
        x = x.astype(self.b_dec.dtype)
        pre = lax.stop_gradient(self.pre_activations(x))
        top, indices = lax.top_k(pre, self.k)
        values = jax.nn.relu(sparse.selected(pre, indices, x - self.b_dec, self.W_enc, self.b_enc))
        error = sparse.weighted_rows(values, indices, self.W_dec) + self.b_dec - x
        aux = self._aux_loss(x, pre, lax.stop_gradient(-error), dead)
        fired = jnp.zeros(self.d_sae, bool).at[indices].max(top > 0)
        l0 = jnp.mean(jnp.sum(top > 0, axis=-1, dtype=jnp.float32))
        loss = jnp.mean(jnp.sum(error**2, axis=-1)) + aux_coefficient * aux
        return loss, {"error": error, "l0": l0, "aux": aux, "fired": fired}

    def _aux_loss(self, x: Array, pre: Array, residual: Array, dead: Array) -> Array:
        def revive(x: Array, pre: Array, residual: Array, dead: Array) -> Array:
            top, indices = lax.top_k(jnp.where(dead, pre, -jnp.inf), self.k_aux)
            values = sparse.selected(pre, indices, lax.stop_gradient(x - self.b_dec), self.W_enc, self.b_enc)
            values = jnp.where(jnp.isfinite(top), values, 0.0)  # fewer dead features than k_aux
            error = sparse.weighted_rows(values, indices, self.W_dec) - residual
            return jnp.where(jnp.any(dead), jnp.mean(jnp.sum(error**2, axis=-1)), 0.0)

        # Mostly no feature is dead, and the selection of k_aux features costs more than all the rest.
        return lax.cond(_any(dead), revive, lambda *_: jnp.zeros(()), x, pre, residual, dead)

    def tangent(self, gradient: "TopK") -> "TopK":
        """The gradient without its part along each decoder row, which the unit norm would undo."""
        along = jnp.sum(gradient.W_dec * self.W_dec, axis=-1, keepdims=True)
        return replace(gradient, W_dec=gradient.W_dec - along * self.W_dec)

    def normalized(self) -> "TopK":
        """The dictionary with its decoder rows scaled back to unit norm."""
        return replace(self, W_dec=_unit_rows(self.W_dec))

    def fold_scale(self, factor: Float[Array, ""] | float) -> "TopK":
        """The dictionary of `x` that does what this one does with `factor * x`; features shrink by `factor` too.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> scaled = dictionaries.TopK.create(jax.random.key(0), 8, 32, 4)
          >>> x = jax.random.normal(jax.random.key(1), (5, 8))
          >>> bool(jnp.allclose(scaled.fold_scale(10.0)(x), scaled(10.0 * x) / 10.0, atol=1e-5))
          True
        """
        return replace(self, b_enc=self.b_enc / factor, b_dec=self.b_dec / factor)


def _unit_rows(rows: Array) -> Array:
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-8)


@jax.custom_batching.custom_vmap
def _any(flags: Array) -> Array:
    return jnp.any(flags)


@_any.def_vmap
def _any_of_all(axis_size: int, in_batched: list[bool], flags: Array) -> tuple[Array, bool]:
    # One answer for all mapped dictionaries, so that a `cond` on it stays a branch under vmap.
    return _any(flags), False
