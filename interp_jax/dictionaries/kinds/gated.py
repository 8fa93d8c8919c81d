"""Gated sparse autoencoder: one path decides which features are active, another how strongly.

    pi = W_enc (x - b_dec) + b_gate,    f = H(pi) ReLU(exp(r_mag) W_enc (x - b_dec) + b_mag)
    loss = |x - x'|^2 + s |ReLU(pi)|_1 + |x - x'_frozen(ReLU(pi))|^2,    x'_frozen: the decoder held constant

Rajamanoharan et al. 2024, Improving dictionary learning with gated sparse autoencoders, https://arxiv.org/abs/2404.16014.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Parameter, Values, Whole, bias, check_sizes, random_rows
from interp_jax.dictionaries.kinds.base import Dictionary, SaeLensForm
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms, mean_square, mean_sum


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gated(Dictionary):
    """A gated dictionary. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`, of the gate.
      b_gate, b_mag: `[d_sae]`, biases of the gate and of the magnitude.
      r_mag: `[d_sae]`, logarithm of the magnitude's weights over the gate's.
      W_dec: `[d_sae d_in]`, rows of unit norm.
      b_dec: `[d_in]`.
    """

    W_enc: Parameter
    b_gate: Parameter
    b_mag: Parameter
    r_mag: Parameter
    W_dec: Parameter
    b_dec: Parameter

    architecture: ClassVar[str] = "gated"
    unit_rows = True
    in_units: ClassVar[tuple[str, ...]] = ("b_gate", "b_mag", "b_dec")
    # 0.012 to 0.08 at E|x|^2 = 1 (github.com/adamkarvonen/dictionary_learning_demo, for d = 768 and 2304): the middle
    # of them, 0.03, times sqrt(d).
    sparsity_coefficient: ClassVar[float] = 1.0
    resampled_fields: ClassVar[tuple[str, ...]] = ("W_enc", "b_gate", "b_mag", "r_mag", "W_dec")

    @classmethod
    def create(
        cls, key: PRNGKeyArray, d_in: Whole, d_sae: Whole, *, b_dec: Float[Values, " d_in"] | None = None
    ) -> "Gated":
        """A new dictionary: random unit decoder rows, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs.
          d_sae: number of features.
          b_dec: `[d_in]`; zero by default.

        Raises:
          ValueError: a size is not positive.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.Gated.create(jax.random.key(0), d_in=8, d_sae=32)
          >>> dictionary.encode(jnp.ones((5, 8))).shape
          (5, 32)
        """
        check_sizes(cls, d_in=d_in, d_sae=d_sae)
        W_dec = random_rows(key, d_sae, d_in)
        b_gate, b_mag, r_mag = (jnp.zeros(d_sae) for _ in range(3))  # an array each, which a step may take over
        return cls(W_dec.T, b_gate, b_mag, r_mag, W_dec, bias(b_dec, d_in))

    @property
    def b_enc(self) -> Float[Array, " d_sae"]:
        """`b_gate`: the bias that decides which features are active."""
        return self.b_gate

    def activate(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """The magnitudes of the features whose gate `pre` is open; the others are zero."""
        magnitude = jax.nn.relu((pre - self.b_gate) * jnp.exp(self.r_mag) + self.b_mag)
        return jnp.where(pre > 0, magnitude, jnp.zeros_like(pre))

    def with_features_scaled(self, norms: Float[Array, " d_sae"]) -> Any:
        """Scales features as every kind does, by their magnitudes; the gates stay as they are."""
        fields = {"r_mag": self.r_mag + jnp.log(norms), "b_mag": self.b_mag * norms}
        return replace(self, **fields, W_dec=self.W_dec / norms[:, None])

    def loss(
        self,
        x: Float[Array, "n d_in"],
        context: LossContext,
    ) -> Terms:
        """Reconstruction, the L1 of the gate, and the gate's own reconstruction.

        The terms also have `"frozen"`, the gate's reconstruction, whose weight is 1.
        """
        x = self.inputs(x)
        pre = self.pre_activations(x)
        gate, features = jax.nn.relu(pre), self.activate(pre)
        frozen = mean_square(gate @ lax.stop_gradient(self.W_dec) + lax.stop_gradient(self.b_dec) - x)
        penalty = mean_sum(gate)
        error = self.decode(features) - x
        loss, terms = loss_terms(error, features, context, sparsity=penalty)
        return loss + frozen, terms | {"frozen": frozen}

    def to_sae_lens(self) -> SaeLensForm:
        """As `Dictionary.to_sae_lens`."""
        return (
            "gated",
            {"apply_b_dec_to_input": True},
            self.fields_named("W_enc", "b_gate", "b_mag", "r_mag", "W_dec", "b_dec"),
        )
