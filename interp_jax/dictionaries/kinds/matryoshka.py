"""Matryoshka sparse autoencoder: the first features alone must reconstruct too, so that they stay general.

    f as in BatchTopK, once over all features
    loss = sum over prefixes m of |x - x'_m|^2 + a aux,    x'_m = f[:m] W_dec[:m] + b_dec

Bussmann et al. 2025, Learning multi-level features with matryoshka sparse autoencoders, https://arxiv.org/abs/2503.17547.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Values, Whole
from interp_jax.dictionaries.kinds.batchtopk import BatchTopK
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, mean_square


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Matryoshka(BatchTopK):
    """A matryoshka dictionary: a `BatchTopK` whose prefixes reconstruct as well.

    Attributes:
      widths: sizes of the nested prefixes, rising; the last is d_sae.
    """

    widths: tuple[Whole, ...] = field(metadata={"static": True})

    architecture: ClassVar[str] = "matryoshka"

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        k: Whole,
        *,
        widths: Sequence[Whole] | None = None,
        k_aux: Whole | None = None,
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "Matryoshka":
        """A new dictionary: random unit decoder rows, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs.
          d_sae: number of features.
          k: mean number of active features of an input.
          widths: sizes of the nested prefixes, rising to d_sae; by default a sixteenth, an eighth, ..., all.
          k_aux: dead features in the auxiliary loss; half of `d_in` by default.
          b_dec: `[d_in]`; zero by default.

        Raises:
          ValueError: a size is not positive or too large, or the widths do not rise to d_sae.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> dictionaries.Matryoshka.create(jax.random.key(0), d_in=8, d_sae=32, k=4).widths
          (2, 4, 8, 16, 32)
        """
        plain = BatchTopK.create(key, d_in, d_sae, k, k_aux=k_aux, b_dec=b_dec)
        widths = tuple(d_sae >> i for i in (4, 3, 2, 1, 0) if d_sae >> i) if widths is None else tuple(widths)
        if not widths or widths[0] < 1 or widths[-1] != d_sae or list(widths) != sorted(set(widths)):
            raise ValueError(f"Matryoshka: widths={widths} must rise from at least 1 to d_sae={d_sae}")
        arrays = (plain.W_enc, plain.b_enc, plain.W_dec, plain.b_dec, plain.threshold)
        return cls(*arrays, plain.k, plain.k_aux, widths)

    def loss(
        self,
        x: Float[Array, "n d_in"],
        context: LossContext,
    ) -> Terms:
        """The loss of `BatchTopK` and of the prefixes.

        The terms also have `"nested"`, the squared errors of the inner prefixes added up.
        """
        loss, terms, features = self.loss_and_features(x, context)
        nested, error, start = jnp.zeros(()), self.b_dec - self.inputs(x), 0
        for end in self.widths[:-1]:
            error = error + features[:, start:end] @ self.W_dec[start:end]
            nested, start = nested + mean_square(error), end
        return loss + nested, terms | {"nested": nested}
