"""The scale that activations are trained at: E|x| = sqrt(d_in), so that one set of hyperparameters fits every model.

    x <- factor x,    factor = sqrt(d_in) / mean |x|

Anthropic, April 2024 update (in Scaling Monosemanticity). The scale is a value of its own: saved with the
dictionary, and folded into it, so that what is used is a dictionary of activations as they are.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax.dictionaries.kinds.arrays import Parameter


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaling:
    """A factor for each site. Call it on a batch; `fold` it into the dictionary that was trained on such batches.

    Attributes:
      factor: float32 `[]`, `[site]` where a batch is `[n site d_in]`; a pytree of such where a batch is one.
    """

    factor: Parameter

    @classmethod
    def fit(cls, x: Any) -> "Scaling":
        """The scale of activations.

        Args:
          x: `[n d_in]` or `[n site d_in]`, or a tuple or dict of these: some batches' worth, or all of them.

        Raises:
          ValueError: a site's activations are all zero or not finite.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> x = 7 * jax.random.normal(jax.random.key(0), (100, 16))
          >>> scaling = dictionaries.Scaling.fit(x)
          >>> round(float(jnp.linalg.norm(scaling(x), axis=-1).mean()), 3)
          4.0
          >>> dictionary = dictionaries.TopK.create(jax.random.key(1), 16, 32, 4)  # trained on scaling(x)
          >>> bool(jnp.allclose(scaling.fold(dictionary)(x), dictionary(scaling(x)) / scaling.factor, atol=1e-4))
          True
        """
        return cls(jax.tree.map(_factor, x, is_leaf=_is_list))

    def __call__(self, x: Any) -> Any:
        """The activations at the scale of training, in float32."""
        return jax.tree.map(_scaled, self.factor, x)  # lists stand where a factor does

    def fold(self, dictionary: Any) -> Any:
        """The dictionary of activations as they are, from the one of scaled activations; see its `fold_scale`.

        For several sites at once: a dict of dictionaries, from a dict of them.
        """
        if isinstance(self.factor, dict):
            return {name: Scaling(factor).fold(dictionary[name]) for name, factor in self.factor.items()}
        factors = self.factor if isinstance(self.factor, tuple) else (self.factor,)
        return dictionary.fold_scale(*factors)


def _is_list(x: Any) -> bool:
    return isinstance(x, list)


def _factor(x: Any) -> jax.Array:
    x = np.asarray(x, np.float32)
    norms = np.linalg.norm(x, axis=-1).mean(0)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise ValueError("Scaling: activations that are all zero or not finite; choose another site or more tokens")
    return jnp.asarray(np.sqrt(x.shape[-1]) / norms, jnp.float32)


def _scaled(factor: Any, x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.float32) * factor[..., None]
