"""A linear probe: a weight for each class, and the direction between two of them.

    logits = x W^T + b;    p = softmax(logits);    of two classes: direction = (W_1 - W_0) / |W_1 - W_0|

Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes", arXiv:1610.01644.
Caveat: what a probe reads need not be what the model uses: compare with a control task, and intervene along the
direction.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import ArrayLike, Float, Int

Activations = Float[ArrayLike, "*axes example d_in"]
Logits = Float[Typed, "*axes example class"]
Predictions = Int[Typed, "*axes example"]


@partial(jax.tree_util.register_dataclass, data_fields=["W", "b"], meta_fields=[])
@dataclass(frozen=True)
class LinearProbe:
    """A linear probe at each of several places. It is a pytree.

    Attributes:
      W: float32 `[*axes class d_in]`.
      b: float32 `[*axes class]`.
    """

    W: Any
    b: Any

    def __call__(self, x: Activations) -> Logits:
        """Logits of each class, float32: their softmax is what the probe says of the classes."""
        x = jnp.asarray(x, jnp.float32)
        return jnp.einsum("...nd,...kd->...nk", x, self.W) + self.b[..., None, :]

    def predict(self, x: Activations) -> Predictions:
        """The likeliest class of each example."""
        return self(x).argmax(-1)

    @property
    def direction(self) -> Float[Typed, "*axes d_in"]:
        """The unit vector along which class 1 grows likelier than class 0, to steer along or project out.

        Raises:
          ValueError: there are more than two classes; take differences of rows of `W`.
        """
        if self.b.shape[-1] != 2:
            raise ValueError(
                f"direction: a probe of {self.b.shape[-1]} classes has no single one: take differences of rows of W"
            )
        vector = self.W[..., 1, :] - self.W[..., 0, :]
        return vector / jnp.maximum(jnp.linalg.norm(vector, axis=-1, keepdims=True), 1e-30)


def centre(x: Array, weights: Array) -> tuple[Array, Array]:
    """The weighted mean `[d_in]` of the examples, and the examples less it, 0 where they do not count."""
    mean = weights @ x / weights.sum()
    return mean, jnp.where(weights[:, None] > 0, x - mean, 0)


def against_first(w: Array, b: Array) -> LinearProbe:
    """A probe of two classes, of which the first has the logit 0."""
    return LinearProbe(jnp.stack([jnp.zeros_like(w), w]), jnp.stack([jnp.zeros_like(b), b]))
