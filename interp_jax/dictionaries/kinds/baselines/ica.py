"""Independent components: the directions whose coefficients are as far from Gaussian as can be.

    f = W_enc (x - b_dec),    x' = W_dec f + b_dec
    b_dec: the mean;    W_enc: whitening, then FastICA's rotation;    W_dec: its pseudo-inverse, rows of unit norm

Hyvarinen and Oja 2000, Independent component analysis; a baseline of Cunningham et al. 2023,
https://arxiv.org/abs/2309.08600. Caveat: order and signs are arbitrary. FastICA's features have unit variance; here
the rows of W_dec have unit norm instead, so that the k largest features are the largest parts of the input.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray
import numpy as np

from interp_jax.dictionaries.kinds.arrays import Inputs, Parameter, Whole
from interp_jax.dictionaries.kinds.baselines.base import Baseline, fitted_inputs, seed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ICA(Baseline):
    """Independent components. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`, with the whitening in it.
      W_dec: `[d_sae d_in]`, rows of unit norm.
      b_dec: `[d_in]`, the mean.
      k: how many features are active for an input; all where it is None.
    """

    W_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter
    k: Whole | None = field(metadata={"static": True})

    architecture: ClassVar[str] = "ica"
    with_features_scaled = Baseline.with_both_scaled

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        *,
        x: Inputs,
        k: Whole | None = None,
        max_iter: int = 200,
    ) -> "ICA":
        """d_sae independent components of inputs, by scikit-learn's FastICA in float64.

        Args:
          key: for the rotation that FastICA starts from.
          d_in: width of the inputs.
          d_sae: number of components, at most the number of dimensions in which the inputs vary. Where it is smaller,
            they are components of the first d_sae principal components.
          x: `[n d_in]`, float32 or bfloat16.
          k: active features for an input, those largest in magnitude; all by default.
          max_iter: iterations after which FastICA stops, with scikit-learn's ConvergenceWarning.

        Raises:
          ValueError: a size is not positive, k or d_sae is too large, or x is not finite or not `[n d_in]`.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> x = jax.random.laplace(jax.random.key(1), (500, 4))
          >>> dictionary = dictionaries.ICA.create(jax.random.key(0), d_in=4, d_sae=4, x=x)
          >>> dictionary.encode(x).shape
          (500, 4)
        """
        from sklearn.decomposition import FastICA

        exact = fitted_inputs(cls, x, d_in, d_sae, k)
        centred = exact - exact.mean(0)
        n_dimensions = int(np.linalg.matrix_rank(centred.T @ centred, hermitian=True))
        if d_sae > n_dimensions:
            raise ValueError(
                f"ICA: d_sae={d_sae} for x that varies in {n_dimensions} dimensions; it must not be larger"
            )
        fit = FastICA(d_sae, whiten="unit-variance", max_iter=max_iter, random_state=seed(key)).fit(exact)
        unmixing, mixing = np.asarray(fit.components_), np.asarray(fit.mixing_)
        norms = np.linalg.norm(mixing, axis=0)
        W_enc, W_dec = jnp.asarray(unmixing.T * norms, jnp.float32), jnp.asarray((mixing / norms).T, jnp.float32)
        return cls(W_enc, W_dec, jnp.asarray(fit.mean_, jnp.float32), k)
