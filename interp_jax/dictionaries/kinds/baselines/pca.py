"""Principal components: the orthogonal directions in which the inputs vary most.

    f = W_dec (x - b_dec),    x' = W_dec^T f + b_dec,    rows of W_dec orthonormal and sorted by variance
    b_dec: the mean of the inputs

Pearson 1901; a baseline of Cunningham et al. 2023, https://arxiv.org/abs/2309.08600.
Caveat: a component and its negative are one feature whose sign is arbitrary.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Inputs, Parameter, Whole
from interp_jax.dictionaries.kinds.baselines.base import Baseline, fitted_inputs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PCA(Baseline):
    """Principal components. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_dec: `[d_sae d_in]`, orthonormal rows, the one of largest variance first.
      b_dec: `[d_in]`, the mean.
      k: how many features are active for an input; all where it is None.
    """

    W_dec: Parameter
    b_dec: Parameter
    k: Whole | None = field(metadata={"static": True})

    architecture: ClassVar[str] = "pca"

    @classmethod
    def create(cls, key: PRNGKeyArray, d_in: Whole, d_sae: Whole, *, x: Inputs, k: Whole | None = None) -> "PCA":
        """The first d_sae principal components of inputs, by scikit-learn in float64.

        Args:
          key: not used: the components are exact; here for the one face of all dictionaries.
          d_in: width of the inputs.
          d_sae: number of components, at most d_in and n.
          x: `[n d_in]`, float32 or bfloat16.
          k: active features for an input, those largest in magnitude; all by default.

        Raises:
          ValueError: a size is not positive, k or d_sae is too large, or x is not finite or not `[n d_in]`.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> x = jax.random.normal(jax.random.key(1), (50, 8))
          >>> dictionary = dictionaries.PCA.create(jax.random.key(0), d_in=8, d_sae=3, x=x)
          >>> dictionary.encode(x).shape
          (50, 3)
        """
        from sklearn.decomposition import PCA as Fit

        exact = fitted_inputs(cls, x, d_in, d_sae, k)
        if d_sae > min(exact.shape):
            raise ValueError(f"PCA: d_sae={d_sae} for x of shape {exact.shape}; it must not be larger than either size")
        fit = Fit(d_sae, svd_solver="covariance_eigh").fit(exact)
        return cls(jnp.asarray(fit.components_, jnp.float32), jnp.asarray(fit.mean_, jnp.float32), k)

    @property
    def W_enc(self) -> Float[Array, "*stack d_in d_sae"]:
        """The components' transpose."""
        return jnp.swapaxes(self.W_dec, -1, -2)
