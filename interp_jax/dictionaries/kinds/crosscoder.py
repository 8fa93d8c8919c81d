"""Crosscoder: features that several sites share, such as the layers of a model or the same layer of two models.

    f = ReLU(sum_l W_enc^l x^l + b_enc),    x'^l = W_dec^l f + b_dec^l
    loss = sum_l |x^l - x'^l|^2 + s sum_i f_i sum_l |W_dec,i^l|

Lindsey et al. 2024, Sparse crosscoders for cross-layer features and model diffing, transformer-circuits.pub.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import (
    Inputs,
    Parameter,
    Scalar,
    Whole,
    check_sizes,
    root,
    row_norms,
    unit_rows,
)
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms, mean_sum


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Crosscoder(Dictionary):
    """A crosscoder. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[site d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[site d_sae d_in]`.
      b_dec: `[site d_in]`.
    """

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter

    architecture: ClassVar[str] = "crosscoder"
    event = ("site", "d_in")
    reads_later = True
    apply_b_dec_to_input = False
    # Of two sites, in github.com/ckkissane/crosscoder-model-diff-replication.
    sparsity_coefficient: ClassVar[float] = 2.0

    @classmethod
    def create(cls, key: PRNGKeyArray, d_in: Whole, d_sae: Whole, *, n_sites: Whole) -> "Crosscoder":
        """A new crosscoder: random decoder rows of norm 0.1, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs of each site.
          d_sae: number of features.
          n_sites: how many sites share them.

        Raises:
          ValueError: a size is not positive.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> crosscoder = dictionaries.Crosscoder.create(jax.random.key(0), d_in=8, d_sae=32, n_sites=3)
          >>> features = crosscoder.encode(jnp.ones((5, 3, 8)))
          >>> features.shape, crosscoder.decode(features).shape
          ((5, 32), (5, 3, 8))
        """
        check_sizes(cls, d_in=d_in, d_sae=d_sae, n_sites=n_sites)
        W_dec = 0.1 * unit_rows(jax.random.normal(key, (n_sites, d_sae, d_in)))
        return cls(jnp.swapaxes(W_dec, -1, -2), jnp.zeros(d_sae), W_dec, jnp.zeros((n_sites, d_in)))

    @property
    def n_sites(self) -> int:
        return self.W_dec.shape[-3]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.n_sites, self.d_in)

    def written_norms(self) -> Float[Array, " d_sae"]:
        """The norm of what each feature writes to all sites together, `[d_sae]`."""
        return root(jnp.sum(self.W_dec**2, axis=(-3, -1)))

    def pre_activations(self, x: Inputs) -> Float[Array, "*batch d_sae"]:
        """`sum_l W_enc^l x^l + b_enc`."""
        return jnp.einsum("...ld,ldf->...f", self.inputs(x), self.W_enc) + self.b_enc

    def decode(self, features: Inputs) -> Float[Array, "*batch site d_in"]:
        """Reconstruction of every site `[*batch site d_in]` from features `[*batch d_sae]`."""
        return jnp.einsum("...f,lfd->...ld", jnp.asarray(features), self.W_dec) + self.b_dec

    def fold_scale(self, factor: Scalar | Float[Array, " site"]) -> "Crosscoder":
        """Folds the scale as every kind does; factors `[site]` may differ, and features shrink by their mean."""
        factors = jnp.broadcast_to(jnp.asarray(factor, self.W_dec.dtype), (self.n_sites,))
        shared = super().fold_scale(factors.mean())
        ratio = (factors / factors.mean())[:, None]
        fields = {"W_enc": ratio[..., None] * self.W_enc, "W_dec": self.W_dec / ratio[..., None]}
        norm = None if self.mean_norm is None else self.mean_norm * (1 / factors).mean()
        return replace(shared, **fields, b_dec=shared.b_dec / ratio, mean_norm=norm)

    def loss(
        self,
        x: Float[Array, "n site d_in"],
        context: LossContext,
    ) -> Terms:
        """Reconstruction and the L1 penalty weighted by the sites' norms added up."""
        features = self.encode(x)
        penalty = mean_sum(features * jnp.sum(row_norms(self.W_dec), axis=0))
        error = self.decode(features) - self.inputs(x)
        return loss_terms(error, features, context, sparsity=penalty)
