"""Random directions: what any overcomplete frame finds, without having seen the activations.

    f = TopK_|.|(W_enc (x - b_dec)),    x' = W_dec f + b_dec    (TopK_|.|, only where k is given)

The columns of W_enc have unit norm and W_dec = pinv(W_enc), the dual frame: nothing is lost where there are at least
d_in of them and no k. A baseline of Cunningham et al. 2023, https://arxiv.org/abs/2309.08600.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Parameter, Values, Whole, bias
from interp_jax.dictionaries.kinds.baselines.base import Baseline, check_baseline


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RandomDirections(Baseline):
    """Random unit directions; a feature is the input's projection on one of them. Make one with `create`.

    Attributes:
      W_enc: `[d_in d_sae]`, columns of unit norm.
      W_dec: `[d_sae d_in]`, the dual frame.
      b_dec: `[d_in]`.
      k: how many features are active for an input; all where it is None.
    """

    W_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter
    k: Whole | None = field(metadata={"static": True})

    architecture: ClassVar[str] = "random_directions"
    with_features_scaled = Baseline.with_both_scaled

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        *,
        k: Whole | None = None,
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "RandomDirections":
        """Directions that are uniform on the sphere, as in Cunningham et al. 2023, https://arxiv.org/abs/2309.08600.

        They are drawn in orthonormal bases of d_in at a time, since about d_in independent ones have a dual frame so
        large that k of them reconstruct far worse than none.

        Args:
          key: for the directions.
          d_in: width of the inputs.
          d_sae: number of features; from `d_in` on, and without k, the reconstruction is exact.
          k: active features for an input; all by default.
          b_dec: `[d_in]`, what counts as nothing, such as the mean of the inputs; zero by default.

        Raises:
          ValueError: a size is not positive, or k is larger than d_sae.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.RandomDirections.create(jax.random.key(0), d_in=8, d_sae=32)
          >>> x = jax.random.normal(jax.random.key(1), (5, 8))
          >>> bool(jnp.allclose(dictionary(x), x, atol=1e-5))
          True
        """
        check_baseline(cls, d_in, d_sae, k)
        n_bases = -(-d_sae // d_in)
        Q, R = jnp.linalg.qr(jax.random.normal(key, (n_bases, d_in, d_in)))
        bases = Q * jnp.sign(jnp.diagonal(R, axis1=-2, axis2=-1))[:, None]  # else not uniform (Mezzadri 2007)
        W_enc = bases.reshape(-1, d_in)[:d_sae].T
        return cls(W_enc, jnp.linalg.pinv(W_enc), bias(b_dec, d_in), k)
