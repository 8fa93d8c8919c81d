"""The ReLU sparse autoencoder, in its two published forms.

    towards:     f = ReLU(W_enc (x - b_dec) + b_enc),  rows of W_dec of unit norm
    april_2024:  f = ReLU(W_enc x + b_enc),            rows of any norm
    loss = |x - x'|^2 + s sum_i f_i |W_dec,i|

Bricken et al. 2023, Towards Monosemanticity; Anthropic, April 2024 update (in Scaling Monosemanticity).
Caveat: features shrink under the penalty; with unit rows the two penalties are one.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Parameter, Values, Whole, bias, check_sizes, random_rows, row_norms
from interp_jax.dictionaries.kinds.base import Dictionary, SaeLensForm
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms, mean_sum

FORMS = ("towards", "april_2024")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ReLU(Dictionary):
    """A ReLU dictionary. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_in]`.
      b_dec: `[d_in]`.
      apply_b_dec_to_input: whether `b_dec` is taken from the input, as in the first form.
      unit_rows: whether training keeps the rows of `W_dec` at unit norm, as in the first form.
    """

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter
    apply_b_dec_to_input: bool = field(metadata={"static": True})
    unit_rows: bool = field(metadata={"static": True})

    architecture: ClassVar[str] = "relu"
    sparsity_coefficient: ClassVar[float] = 5.0
    resampled_fields: ClassVar[tuple[str, ...]] = ("W_enc", "b_enc", "W_dec")

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        *,
        form: str = "april_2024",
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "ReLU":
        """A new dictionary: random decoder rows, of unit norm or of norm 0.1, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs.
          d_sae: number of features.
          form: `"towards"` or `"april_2024"`.
          b_dec: `[d_in]`; zero by default.

        Raises:
          ValueError: a size is not positive, or another form.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.ReLU.create(jax.random.key(0), d_in=8, d_sae=32, form="towards")
          >>> dictionary.encode(jnp.ones((5, 8))).shape
          (5, 32)
        """
        check_sizes(cls, d_in=d_in, d_sae=d_sae)
        if form not in FORMS:
            raise ValueError(f"ReLU: unknown form {form!r}; known: {', '.join(FORMS)}")
        towards = form == "towards"
        W_dec = random_rows(key, d_sae, d_in) * (1.0 if towards else 0.1)
        return cls(W_dec.T, jnp.zeros(d_sae), W_dec, bias(b_dec, d_in), towards, towards)

    def loss(
        self,
        x: Float[Array, "n d_in"],
        context: LossContext,
    ) -> Terms:
        """Reconstruction and the norm-weighted L1 penalty."""
        features = self.encode(x)
        penalty = mean_sum(features * row_norms(self.W_dec))
        error = self.decode(features) - self.inputs(x)
        return loss_terms(error, features, context, sparsity=penalty)

    def to_sae_lens(self) -> SaeLensForm:
        """As `Dictionary.to_sae_lens`."""
        return (
            "standard",
            {"apply_b_dec_to_input": self.apply_b_dec_to_input},
            self.fields_named("W_enc", "b_enc", "W_dec", "b_dec"),
        )
