"""Steering by a feature of a dictionary: clamped to a multiple of its maximum, what is not reconstructed kept.

    clamp:  x + decode(f with f_i <- s m) - decode(f)        f = encode(x),  m the feature's maximum on some texts
    add:    x + decode(f with f_i <- f_i + s m) - decode(f)

Templeton et al. 2024, "Scaling Monosemanticity", https://transformer-circuits.pub/2024/scaling-monosemanticity; both
forms in AxBench, arXiv:2501.17148. Caveat: the error that is kept may hold the concept too.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from interp_jax.core import Context, Intervention, fill, within
from interp_jax.interventions import at
from interp_jax.interventions.registration import pytree
from interp_jax.steering.vector import check_strength

Array = jax.Array
FEATURE_FORMS = ("clamp", "add")


@runtime_checkable
class Coder(Protocol):
    """A dictionary of one site: what encodes `[... d_model]` as features `[... d_sae]`, and decodes them."""

    def encode(self, x: Any) -> Any: ...

    def decode(self, features: Any) -> Any: ...


@partial(jax.tree_util.register_dataclass, data_fields=["dictionary", "feature", "maximum"], meta_fields=["site"])
@dataclass(frozen=True, repr=False)
class Feature(Intervention):
    """A feature of a dictionary, to steer by. It is a pytree, and an intervention that clamps it to its maximum.

    Attributes:
      dictionary: any pytree with `encode` and `decode`, such as those of `interp_jax.dictionaries`.
      feature: int32 `[]`, its number.
      maximum: float32 `[]`, the largest value that it takes on some texts.
      site: address of the site that the dictionary is of.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries, models, steering
      >>> model, _ = models.load("microworld")
      >>> sae = dictionaries.TopK.create(jax.random.key(0), 128, 512, k=8)
      >>> feature = steering.Feature.create(sae, 7, 3.0, "blocks.2.resid_post")
      >>> ij.intervene(models.forward, {feature.site: feature.edit(5.0)})(model, jnp.array([[1, 5, 9]])).shape
      (1, 3, 641)
    """

    dictionary: Any
    feature: Any
    maximum: Any
    site: str

    layers = None  # of which each would be steered by itself

    @classmethod
    def create(cls, dictionary: Coder, feature: Any, maximum: Any, site: str) -> "Feature":
        """A feature of given number and maximum.

        Raises:
          ValueError: a number below 0, a maximum that is not finite and above 0.
        """
        known = not any(isinstance(x, jax.core.Tracer) for x in (feature, maximum))
        if known and (int(feature) < 0 or not 0 < float(maximum) < np.inf):
            raise ValueError(
                f"Feature: number {feature} with the maximum {maximum}: give one from 0, that is active on some text"
            )
        return cls(dictionary, jnp.asarray(feature, jnp.int32), jnp.asarray(maximum, jnp.float32), site)

    def __repr__(self) -> str:
        return self.told()

    def __call__(self, value: Array, ctx: Context) -> Array:
        return self.edit()(value, ctx)

    def edit(self, strength: Any = 1.0, *, form: str = "clamp", position: Any = None) -> Intervention:
        """The intervention that steers by the feature.

        Args:
          strength: how many times its maximum, one number, which may be traced.
          form: "clamp": the feature is held there; "add": so much is added to it.
          position: as in `interventions.at`; None: everywhere.

        Raises:
          ValueError: an unknown form, several strengths, one that is not finite or overflows float32; (when applied) a
            number that is none of the dictionary's features.
        """
        if form not in FEATURE_FORMS:
            raise ValueError(f"steering: form={form!r} of a feature is none of {', '.join(FEATURE_FORMS)}")
        if np.ndim(strength):
            raise ValueError(f"steering: a strength of shape {list(np.shape(strength))}: give one number, and map over")
        check_strength(self.maximum[None], strength, "add")
        value = self.maximum * jnp.asarray(strength, jnp.float32)
        edit = _Set(self.dictionary, self.feature, value, form)
        return edit if position is None else at(edit, position=position)


@pytree(data=("dictionary", "feature", "value"), static=("form",))
class _Set(Intervention):
    dictionary: Any
    feature: Any
    value: Any
    form: str

    def look(self, value: Array, ctx: Context) -> None:
        n = jax.eval_shape(self.dictionary.encode, value).shape[-1]
        within(self.feature, range(n), f"steering: site {ctx.name!r}: a dictionary of {n} features, of which feature")

    def __call__(self, value: Array, ctx: Context) -> Array:
        self.look(value, ctx)
        features = self.dictionary.encode(value)
        at_feature = features.at[..., self.feature]
        new = self.value.astype(features.dtype)
        edited = at_feature.set(new) if self.form == "clamp" else at_feature.add(new)
        out = self.dictionary.decode(edited)
        out = value.astype(out.dtype) + (out - self.dictionary.decode(features))
        return fill(out, value).astype(value.dtype)
