"""TopK transcoder: k features of one site reconstruct another, such as an MLP's output from its input.

    f = ReLU(TopK(W_enc x + b_enc)),    y' = W_dec f + b_dec,    rows of W_dec of unit norm
    loss = |y - y'|^2 + a aux    (see `reviving`)

Paulo et al. 2025, Transcoders beat sparse autoencoders for interpretability, https://arxiv.org/abs/2501.18823, who
train transcoders as the TopK autoencoders of Gao et al. 2024, https://arxiv.org/abs/2406.04093: the number of active
features is chosen, where the weight of an L1 penalty has to be searched for.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Scalar, Values, Whole, bias, check_sizes, random_rows
from interp_jax.dictionaries.kinds.losses import LossContext, Terms
from interp_jax.dictionaries.kinds.reviving import published_k_aux
from interp_jax.dictionaries.kinds.topk import TopK


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TopKTranscoder(TopK):
    """A TopK transcoder. Make one with `create` or `dictionaries.load`; splice it in with `via`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_out]`, rows of unit norm.
      b_dec: `[d_out]`.
      k, k_aux, limit: as `TopK`'s.
    """

    architecture: ClassVar[str] = "topk_transcoder"
    apply_b_dec_to_input = False
    reads_pair = True

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        k: Whole,
        *,
        d_out: Whole | None = None,
        k_aux: Whole | None = None,
        b_dec: Float[Values, " d_out"] | None = None,
    ) -> "TopKTranscoder":
        """A new transcoder: random unit encoder columns and decoder rows, independent of each other.

        Args:
          key: for both.
          d_in: width of the inputs.
          d_sae: number of features.
          k: active features for an input.
          d_out: width of the outputs; `d_in` by default.
          k_aux: dead features in the auxiliary loss; half of `d_out` by default.
          b_dec: `[d_out]`, best the mean of the targets; zero by default.

        Raises:
          ValueError: a size is not positive, or more active features than d_sae.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> transcoder = dictionaries.TopKTranscoder.create(jax.random.key(0), d_in=8, d_sae=32, k=4, d_out=6)
          >>> x, y = jnp.ones((5, 8)), jnp.ones((5, 6))
          >>> loss, terms = transcoder.loss((x, y), dictionaries.LossContext())
          >>> transcoder(x).shape, terms["error"].shape
          ((5, 6), (5, 6))
        """
        d_out = d_in if d_out is None else d_out
        k_aux = published_k_aux(d_out, d_sae) if k_aux is None else k_aux
        check_sizes(cls, ("k", "k_aux"), d_in=d_in, d_out=d_out, d_sae=d_sae, k=k, k_aux=k_aux)
        encoder, decoder = jax.random.split(key)
        W_enc, W_dec = random_rows(encoder, d_sae, d_in).T, random_rows(decoder, d_sae, d_out)
        return cls(W_enc, jnp.zeros(d_sae), W_dec, bias(b_dec, d_out), k=k, k_aux=k_aux)

    @property
    def d_out(self) -> int:
        return self.W_dec.shape[-1]

    def fold_scale(self, factor: Scalar, out: Scalar | None = None) -> Any:
        """The transcoder of `x` and `y` that does what this one does with `factor * x` and `out * y`.

        Rows keep their norm and features shrink by `out`, which is `factor` where it is not given. The k largest stay
        the k largest.
        """
        folded, out = super().fold_scale(factor), factor if out is None else out
        scaled = {"W_enc": self.W_enc * (factor / out), "b_enc": self.b_enc / out, "b_dec": self.b_dec / out}
        return replace(folded, **scaled)

    def loss(
        self,
        x: tuple[Float[Array, "n d_in"], Float[Array, "n d_out"]],
        context: LossContext,
    ) -> Terms:
        """Reconstruction of the targets and the auxiliary loss.

        Args:
          x: `(inputs [n d_in], targets [n d_out])`.
          context: what training tells every loss.
        """
        return self.loss_of_pair(*x, context)

    def to_sae_lens(self) -> None:
        """None: SAELens has no form of it."""
