"""Transcoders: sparse features of one site that reconstruct another, such as an MLP's output from its input.

    f = ReLU(W_enc x + b_enc),    y' = W_dec f + b_dec  (+ W_skip x),    loss = |y - y'|^2 + s sum_i f_i |W_dec,i|

Dunefsky et al. 2024, Transcoders find interpretable LLM feature circuits, https://arxiv.org/abs/2406.11944; the skip:
Paulo et al. 2025, Transcoders beat sparse autoencoders for interpretability, https://arxiv.org/abs/2501.18823.
Caveat: `decode` of a skip transcoder is without the skip, which needs the input; calling it adds the skip.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import (
    Inputs,
    Parameter,
    Scalar,
    Values,
    Whole,
    bias,
    check_sizes,
    random_rows,
    row_norms,
)
from interp_jax.dictionaries.kinds.base import Dictionary, SaeLensForm
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms, mean_sum


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Transcoder(Dictionary):
    """A transcoder. Make one with `create` or `dictionaries.load`; splice it in with `via`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_out]`.
      b_dec: `[d_out]`.
    """

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter

    architecture: ClassVar[str] = "transcoder"
    apply_b_dec_to_input = False
    reads_pair = True
    sparsity_coefficient: ClassVar[float] = 5.0

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        *,
        d_out: Whole | None = None,
        b_dec: Float[Values, " d_out"] | None = None,
    ) -> "Transcoder":
        """A new transcoder: random unit encoder columns and decoder rows of norm 0.1, independent of each other.

        Args:
          key: for both.
          d_in: width of the inputs.
          d_sae: number of features.
          d_out: width of the outputs; `d_in` by default.
          b_dec: `[d_out]`, best the mean of the targets; zero by default.

        Raises:
          ValueError: a size is not positive.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> transcoder = dictionaries.Transcoder.create(jax.random.key(0), d_in=8, d_sae=32, d_out=6)
          >>> x, y = jnp.ones((5, 8)), jnp.ones((5, 6))
          >>> loss, terms = transcoder.loss((x, y), dictionaries.LossContext())
          >>> transcoder(x).shape, terms["error"].shape
          ((5, 6), (5, 6))
        """
        d_out = d_in if d_out is None else d_out
        check_sizes(cls, d_in=d_in, d_sae=d_sae, d_out=d_out)
        encoder, decoder = jax.random.split(key)
        W_dec = 0.1 * random_rows(decoder, d_sae, d_out)
        return cls(random_rows(encoder, d_sae, d_in).T, jnp.zeros(d_sae), W_dec, bias(b_dec, d_out))

    @property
    def d_out(self) -> int:
        return self.W_dec.shape[-1]

    def fold_scale(self, factor: Scalar, out: Scalar | None = None) -> Any:
        """The transcoder of `x` and `y` that does what this one does with `factor * x` and `out * y`.

        Features shrink by `factor`; `out` is `factor` where it is not given.
        """
        folded, ratio = super().fold_scale(factor), 1.0 if out is None else factor / out
        return replace(folded, W_dec=ratio * folded.W_dec, b_dec=ratio * folded.b_dec)

    def loss(
        self,
        x: tuple[Float[Array, "n d_in"], Float[Array, "n d_out"]],
        context: LossContext,
    ) -> Terms:
        """Reconstruction of the targets and the norm-weighted L1 penalty.

        Args:
          x: `(inputs [n d_in], targets [n d_out])`.
          context: what training tells every loss.
        """
        inputs, targets = x
        features = self.encode(inputs)
        error = self.output(inputs, features) - targets.astype(self.b_dec.dtype)
        penalty = mean_sum(features * row_norms(self.W_dec))
        return loss_terms(error, features, context, sparsity=penalty)

    def to_sae_lens(self) -> SaeLensForm:
        """SAELens's transcoder."""
        options = {"apply_b_dec_to_input": False, "d_out": self.d_out}
        return "transcoder", options, self.fields_named("W_enc", "b_enc", "W_dec", "b_dec")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SkipTranscoder(Transcoder):
    """A transcoder with a linear path around its features.

    Attributes:
      W_skip: `[d_out d_in]`.
    """

    W_skip: Parameter

    architecture: ClassVar[str] = "skip_transcoder"

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        *,
        d_out: Whole | None = None,
        b_dec: Float[Values, " d_out"] | None = None,
    ) -> "SkipTranscoder":
        """A new transcoder as `Transcoder.create` makes it; the skip starts at zero.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> dictionaries.SkipTranscoder.create(jax.random.key(0), d_in=8, d_sae=32, d_out=6).W_skip.shape
          (6, 8)
        """
        plain = Transcoder.create(key, d_in, d_sae, d_out=d_out, b_dec=b_dec)
        return cls(plain.W_enc, plain.b_enc, plain.W_dec, plain.b_dec, jnp.zeros((plain.d_out, d_in)))

    def fold_scale(self, factor: Scalar, out: Scalar | None = None) -> Any:
        """Folds the scale as `Transcoder.fold_scale` does, and that of the skip."""
        return replace(super().fold_scale(factor, out), W_skip=self.W_skip * (1.0 if out is None else factor / out))

    def skip(self, x: Inputs) -> Float[Array, "*batch d_out"]:
        """The linear path around the features, `W_skip x` `[*batch d_out]`."""
        return self.inputs(x) @ self.W_skip.T

    def to_sae_lens(self) -> SaeLensForm:
        """As `Dictionary.to_sae_lens`."""
        return (
            "skip_transcoder",
            {"apply_b_dec_to_input": False, "d_out": self.d_out},
            self.fields_named("W_enc", "b_enc", "W_dec", "b_dec", "W_skip"),
        )
