"""Transcoders: sparse features of one site that reconstruct another, such as an MLP's output from its input.

    f = ReLU(W_enc x + b_enc),    y' = W_dec f + b_dec  (+ W_skip x),    loss = |y - y'|^2 + s sum_i f_i |W_dec,i|

Dunefsky et al. 2024, Transcoders find interpretable LLM feature circuits, https://arxiv.org/abs/2406.11944; the skip:
Paulo et al. 2025, Transcoders beat sparse autoencoders for interpretability, https://arxiv.org/abs/2501.18823.
Caveat: `decode` of a skip transcoder is without the skip, which needs the input; calling it adds the skip.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float, PRNGKeyArray

from interp_jax.dictionaries.dictionary import (
    Dictionary,
    Inputs,
    Scalar,
    Terms,
    Values,
    Whole,
    bias,
    check_sizes,
    mean_sum,
    random_rows,
    row_norms,
    total,
    with_fields,
)


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

    W_enc: Any
    b_enc: Any
    W_dec: Any
    b_dec: Any

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
          >>> loss, terms = transcoder.loss((x, y), dead=jnp.zeros(32, bool))
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
        return with_fields(folded, W_dec=ratio * folded.W_dec, b_dec=ratio * folded.b_dec)

    def loss(
        self,
        x: tuple[Float[Array, "n d_in"], Float[Array, "n d_out"]],
        dead: Bool[Array, " d_sae"],
        aux_coefficient: Scalar = 0.0,
        sparsity_coefficient: Scalar = 0.0,
        progress: Scalar = 0.0,
    ) -> Terms:
        """Reconstruction of the targets and the norm-weighted L1 penalty; the rest is not used.

        Args:
          x: `(inputs [n d_in], targets [n d_out])`.
          dead: `[d_sae]`.
          aux_coefficient, sparsity_coefficient, progress: as every dictionary's.
        """
        inputs, targets = x
        features = self.encode(inputs)
        error = self.output(inputs, features) - targets.astype(self.b_dec.dtype)
        penalty = mean_sum(features * row_norms(self.W_dec))
        return total(error, features, sparsity=penalty, sparsity_coefficient=sparsity_coefficient)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SkipTranscoder(Transcoder):
    """A transcoder with a linear path around its features.

    Attributes:
      W_skip: `[d_out d_in]`.
    """

    W_skip: Any

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
        """As `Transcoder.create`; the skip starts at zero.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> dictionaries.SkipTranscoder.create(jax.random.key(0), d_in=8, d_sae=32, d_out=6).W_skip.shape
          (6, 8)
        """
        plain = Transcoder.create(key, d_in, d_sae, d_out=d_out, b_dec=b_dec)
        return cls(plain.W_enc, plain.b_enc, plain.W_dec, plain.b_dec, jnp.zeros((plain.d_out, d_in)))

    def fold_scale(self, factor: Scalar, out: Scalar | None = None) -> Any:
        """As `Transcoder.fold_scale`."""
        return with_fields(super().fold_scale(factor, out), W_skip=self.W_skip * (1.0 if out is None else factor / out))

    def output(self, x: Inputs, features: Inputs) -> Float[Array, "..."]:
        """`y'` `[*batch d_out]` from an input and its features, the skip included."""
        return self.decode(features) + self.inputs(x) @ self.W_skip.T
