"""What the baselines have in common: they are made at once, from nothing or from a fit, and are not trained.

    f = TopK_|.|(W_enc (x - b_dec)),    x' = W_dec f + b_dec    (TopK_|.|, only where k is given)

Cunningham et al. 2023, https://arxiv.org/abs/2309.08600, compares its dictionaries with the neuron basis, random
directions, PCA, ICA and NMF.
Caveat: all but NMF's features have a sign, and without k nearly every one of them is active.
"""

from dataclasses import replace
from typing import Any, ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray
import numpy as np

from interp_jax.dictionaries.kinds.arrays import Inputs, Whole, check_sizes
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.kinds.selecting import at_indices


class Baseline(Dictionary):
    """A dictionary that is made at once: features are coefficients, all of them or the k largest in magnitude.

    Attributes:
      k: how many features are active for an input; all where it is None.
    """

    k: Whole | None

    is_trained: ClassVar[bool] = False
    in_units: ClassVar[tuple[str, ...]] = ("b_dec",)

    @property
    def b_enc(self) -> Float[Array, "*stack d_sae"]:
        """The bias of the encoder, which is zero: `[d_sae]`."""
        return jnp.zeros_like(self.W_dec[..., 0])

    def activate(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """The coefficients, or those k of them that are largest in magnitude with their signs; the others are zero."""
        if self.k is None:
            return pre
        indices = lax.top_k(jnp.abs(self.ranked(pre)), self.k)[1]
        kept = jnp.take_along_axis(pre, indices, axis=-1)
        return at_indices(kept, indices, self.d_sae)

    def with_features_scaled(self, norms: Float[Array, " d_sae"]) -> Any:
        """Gives the dictionary back as it is, since all rows have unit norm by construction."""
        return self

    def with_both_scaled(self, norms: Float[Array, " d_sae"]) -> Any:
        """Scales features, of a baseline with an encoder of its own; which of them are the k largest stays as it is."""
        fields = {"W_enc": self.W_enc * norms, "W_dec": self.W_dec / norms[:, None]}
        return replace(self, **fields, folded_norms=self.with_norms_folded(norms))


def check_baseline(kind: type, d_in: Whole, d_sae: Whole, k: Whole | None) -> None:
    """Raises ValueError if a size is not positive, or k is larger than d_sae."""
    check_sizes(kind, ("k",), d_in=d_in, d_sae=d_sae, k=d_sae if k is None else k)


def fitted_inputs(kind: type, x: Inputs, d_in: Whole, d_sae: Whole, k: Whole | None) -> Float[np.ndarray, "n d_in"]:
    """The inputs of a fit, `[n d_in]` in float64, checked together with the sizes.

    Raises:
      ValueError: a size is not positive, k is larger than d_sae, or x is not finite or not `[n d_in]`.
    """
    check_baseline(kind, d_in, d_sae, k)
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] != d_in:
        raise ValueError(f"{kind.__name__}: x of shape {tuple(x.shape)} must be [n {d_in}] with n of at least 2")
    exact = np.asarray(x, np.float64)
    if not np.isfinite(exact).all():
        raise ValueError(f"{kind.__name__}: x has NaN or inf; leave those inputs out")
    return exact


def seed(key: PRNGKeyArray) -> int:
    """A seed for scikit-learn."""
    return int(jax.random.bits(key))
