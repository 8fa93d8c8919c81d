"""The tied sparse autoencoder: one matrix encodes and decodes.

    c = ReLU(M x + b),    x' = M^T c,    rows of M of unit norm,    loss = |x - x'|^2 + s |c|_1

Cunningham et al. 2023, Sparse autoencoders find highly interpretable features, https://arxiv.org/abs/2309.08600.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Parameter, Whole, check_sizes, random_rows
from interp_jax.dictionaries.kinds.base import Dictionary, SaeLensForm
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms, mean_sum
from interp_jax.dictionaries.kinds.past import past
from interp_jax.dictionaries.kinds.relu import ReLU


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tied(Dictionary):
    """A tied dictionary. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_dec: `[d_sae d_in]`, the paper's M, rows of unit norm.
      b_enc: `[d_sae]`.
    """

    W_dec: Parameter
    b_enc: Parameter

    architecture: ClassVar[str] = "tied"
    unit_rows = True
    in_units: ClassVar[tuple[str, ...]] = ("b_enc",)
    # The paper's 8.6e-4 is against a mean over d = 512 (github.com/HoagyC/sparse_coding), on Pythia-70M's activations
    # as they are; against the sum it is 512 times as much.
    sparsity_coefficient: ClassVar[float] = 0.44
    resampled_fields: ClassVar[tuple[str, ...]] = ("W_dec", "b_enc")

    @classmethod
    def create(cls, key: PRNGKeyArray, d_in: Whole, d_sae: Whole) -> "Tied":
        """A new dictionary of random unit rows.

        Args:
          key: for the rows.
          d_in: width of the inputs.
          d_sae: number of features; the paper's R is d_sae / d_in.

        Raises:
          ValueError: a size is not positive.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> dictionaries.Tied.create(jax.random.key(0), d_in=8, d_sae=32).encode(jnp.ones((5, 8))).shape
          (5, 32)
        """
        check_sizes(cls, d_in=d_in, d_sae=d_sae)
        return cls(random_rows(key, d_sae, d_in), jnp.zeros(d_sae))

    @property
    def W_enc(self) -> Float[Array, "d_in d_sae"]:
        """The encoder `[d_in d_sae]`, the transpose of the rows."""
        return jnp.swapaxes(self.W_dec, -1, -2)

    @property
    def b_dec(self) -> Float[Array, " d_in"]:
        """The bias of the decoder, which is zero: `[d_in]`."""
        return jnp.zeros_like(self.W_dec[..., 0, :])

    def with_features_scaled(self, norms: Float[Array, " d_sae"]) -> ReLU:
        """Scales features as every kind does, as a `ReLU`, since its encoder is no longer the rows' transpose."""
        W_enc, W_dec = self.W_enc * norms, self.W_dec / norms[:, None]
        untied = ReLU(W_enc, self.b_enc * norms, W_dec, self.b_dec, False, False)
        return replace(untied, **past(self))

    def loss(
        self,
        x: Float[Array, "n d_in"],
        context: LossContext,
    ) -> Terms:
        """Reconstruction and the L1 penalty."""
        features = self.encode(x)
        error = self.decode(features) - self.inputs(x)
        return loss_terms(error, features, context, sparsity=mean_sum(features))

    def to_sae_lens(self) -> SaeLensForm:
        """SAELens's standard."""
        return "standard", {"apply_b_dec_to_input": False}, self.fields_named("W_enc", "b_enc", "W_dec", "b_dec")
