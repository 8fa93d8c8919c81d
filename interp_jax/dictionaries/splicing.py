"""Putting a dictionary into a model: its reconstruction in the place of the activations, or an edit of its features.

    keep_error=False: x <- decode(edit(encode(x)))
    keep_error=True:  x <- x + decode(edit(encode(x))) - decode(encode(x))

With the error kept and no edit the model is unchanged, so that what an edit does is due to the features alone.
Bricken et al. 2023, Towards Monosemanticity; Templeton et al. 2024, Scaling Monosemanticity (steering by features).
"""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax import Array

from interp_jax.core import Context, Intervention, as_intervention


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Splice(Intervention):
    """The intervention that `splice` makes."""

    dictionary: Any
    edit: Intervention | None
    keep_error: bool = field(metadata={"static": True})

    def __call__(self, value: Array, ctx: Context) -> Array:
        features = self.dictionary.encode(value)
        if self.edit is None:
            return value if self.keep_error else self._decode(features, value).astype(value.dtype)
        feature_axes = (*(ctx.axes or ("d_in",))[: features.ndim - 1], "feature")
        edited = self._decode(self.edit(features, replace(ctx, axes=feature_axes)), value)
        if self.keep_error:
            edited = value.astype(edited.dtype) + (edited - self._decode(features, value))
        return edited.astype(value.dtype)

    def _decode(self, features: Array, value: Array) -> Array:
        return self.dictionary.decode(features).reshape(value.shape)  # a head axis was flattened


def splice(dictionary: Any, keep_error: bool = True, *, edit: Any = None) -> Splice:
    """An intervention that sends a site's values through a dictionary.

    Args:
      dictionary: from `create` or `load`.
      keep_error: add what the dictionary does not reconstruct, so that only the edit changes the model.
      edit: an intervention on the features `[... d_sae]`, whose last axis is called `feature`:
        `at(scale(0.0), feature=7)` ablates one feature, `at(clamp(9.0, 9.0), feature=7)` pins it.

    Returns:
      An intervention: a pytree, so a `jit` argument, `vmap`-able and differentiable. It computes in the dictionary's
      dtype and gives back the site's.

    Raises:
      ValueError: (when applied) the site's last axis is not the dictionary's d_in.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries
      >>> from interp_jax.interventions import at, scale
      >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
      >>> f = lambda x: ij.site(x, "resid", axes=("position", "d_model"))
      >>> x = jax.random.normal(jax.random.key(1), (5, 8))
      >>> spliced = ij.intervene(f, {"resid": dictionaries.splice(dictionary, keep_error=False)})
      >>> bool(jnp.allclose(spliced(x), dictionary(x)))
      True
      >>> off = dictionaries.splice(dictionary, edit=at(scale(0.0), feature=3))
      >>> change = ij.intervene(f, {"resid": off})(x) - x
      >>> bool(jnp.allclose(change, -dictionary.encode(x)[:, 3:4] * dictionary.W_dec[3], atol=1e-5))
      True
    """
    return Splice(dictionary, None if edit is None else as_intervention(edit), keep_error)
