"""What the baselines have in common, and the two that need no data: the neuron basis and random directions.

    f = TopK_|.|(W_enc (x - b_dec)),    x' = W_dec f + b_dec    (TopK_|.|, only where k is given)

The neuron basis has W_enc = W_dec = 1, so that a feature is a neuron. Random directions are the unit columns of W_enc
and W_dec = pinv(W_enc), the dual frame: nothing is lost where there are at least d_in of them and no k.
Cunningham et al. 2023, https://arxiv.org/abs/2309.08600, compares its dictionaries with these, PCA, ICA and NMF.
Caveat: all but NMF's features have a sign, and without k nearly every one of them is active.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray
import numpy as np

from interp_jax.dictionaries.dictionary import (
    Dictionary,
    Inputs,
    Values,
    Whole,
    bias,
    check_sizes,
    with_fields,
)


class Baseline(Dictionary):
    """A dictionary that is made at once: features are coefficients, all of them or the k largest in magnitude.

    Attributes:
      k: how many features are active for an input; all where it is None.
    """

    k: Whole | None

    in_units: ClassVar[tuple[str, ...]] = ("b_dec",)

    @property
    def b_enc(self) -> Float[Array, "*stack d_sae"]:
        """Zero."""
        return jnp.zeros_like(self.W_dec[..., 0])

    def activate(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """The coefficients, or those k of them that are largest in magnitude with their signs; the others are zero."""
        if self.k is None:
            return pre
        indices = lax.top_k(jnp.abs(self.ranked(pre)), self.k)[1]
        kept = jnp.take_along_axis(pre, indices, axis=-1)
        return jnp.put_along_axis(jnp.zeros_like(pre), indices, kept, axis=-1, inplace=False)

    def with_features_scaled(self, norms: Float[Array, " d_sae"]) -> Any:
        """Itself, where all rows have unit norm by construction."""
        return self

    def with_both_scaled(self, norms: Float[Array, " d_sae"]) -> Any:
        """As every dictionary's, of one with an encoder of its own; which are the k largest stays as it is."""
        fields = {"W_enc": self.W_enc * norms, "W_dec": self.W_dec / norms[:, None]}
        return with_fields(self, **fields, folded_norms=self.with_norms_folded(norms))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NeuronBasis(Baseline):
    """The basis that the model itself has: feature i is the input's entry i. Make one with `create`.

    Attributes:
      b_dec: `[d_in]`.
      k: how many features are active for an input; all where it is None.
    """

    b_dec: Any
    k: Whole | None = field(metadata={"static": True})

    architecture: ClassVar[str] = "neuron_basis"

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole | None = None,
        *,
        k: Whole | None = None,
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "NeuronBasis":
        """The neuron basis of a site, as in Cunningham et al. 2023, https://arxiv.org/abs/2309.08600.

        Args:
          key: not used; here for the one face of all dictionaries.
          d_in: width of the inputs.
          d_sae: number of features: `d_in`.
          k: active features for an input; all by default.
          b_dec: `[d_in]`, what counts as nothing, such as the mean of the inputs; zero by default.

        Raises:
          ValueError: a size is not positive, d_sae is not d_in, or k is larger.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.NeuronBasis.create(jax.random.key(0), d_in=4, k=2)
          >>> dictionary.encode(jnp.array([3.0, 0.5, -5.0, 1.0])).tolist()
          [3.0, 0.0, -5.0, 0.0]
        """
        d_sae = d_in if d_sae is None else d_sae
        check_baseline(cls, d_in, d_sae, k)
        if d_sae != d_in:
            raise ValueError(
                f"NeuronBasis: d_sae={d_sae} must be d_in={d_in}: each neuron is one feature; leave it out"
            )
        return cls(bias(b_dec, d_in), k)

    @property
    def W_dec(self) -> Float[Array, "*stack d_in d_in"]:
        """The identity `[d_in d_in]`."""
        d_in = self.b_dec.shape[-1]
        return jnp.broadcast_to(jnp.eye(d_in, dtype=self.b_dec.dtype), (*self.b_dec.shape, d_in))

    @property
    def W_enc(self) -> Float[Array, "*stack d_in d_in"]:
        """The identity `[d_in d_in]`."""
        return self.W_dec

    def pre_activations(self, x: Inputs) -> Float[Array, "*batch d_in"]:
        """`x - b_dec`, `[*batch d_in]`, without a product that an accelerator would round."""
        return self.inputs(x) - self.b_dec

    def decode(self, features: Inputs) -> Float[Array, "*batch d_in"]:
        """`features + b_dec`, `[*batch d_in]`."""
        return jnp.asarray(features) + self.b_dec


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

    W_enc: Any
    W_dec: Any
    b_dec: Any
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
