"""The neuron basis: the basis that the model itself has, so that a feature is a neuron.

    f = TopK_|.|(x - b_dec),    x' = f + b_dec    (TopK_|.|, only where k is given)

A baseline of Cunningham et al. 2023, https://arxiv.org/abs/2309.08600.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Inputs, Parameter, Values, Whole, bias
from interp_jax.dictionaries.kinds.baselines.base import Baseline, check_baseline


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NeuronBasis(Baseline):
    """The basis that the model itself has: feature i is the input's entry i. Make one with `create`.

    Attributes:
      b_dec: `[d_in]`.
      k: how many features are active for an input; all where it is None.
    """

    b_dec: Parameter
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
