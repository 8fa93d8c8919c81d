"""A probe of a single unit: the one whose value tells the classes apart best, and a threshold on it.

    unit = argmax_j |AUC of x_j - 1/2|;    p(class 1) = sigmoid(slope x_unit + b)

Radford et al. 2017, "Learning to generate reviews and discovering sentiment", arXiv:1704.01444 (the sentiment neuron).
Caveat: the best of thousands of units looks better on the examples that chose it than it is: score it on others, and
compare with the best direction.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float

from interp_jax.probes.examples import each_place, examples
from interp_jax.probes.linear import Activations, Logits, Predictions
from interp_jax.probes.regression import fit_logistic
from interp_jax.probes.scoring import auc


@partial(jax.tree_util.register_dataclass, data_fields=["unit", "slope", "b"], meta_fields=[])
@dataclass(frozen=True)
class UnitProbe:
    """A probe of one unit at each of several places, of two classes. It is a pytree.

    Attributes:
      unit: int32 `[*axes]`, which one.
      slope: float32 `[*axes]`, the log-odds of class 1 for each step of its value.
      b: float32 `[*axes]`, the log-odds at 0; the threshold is at `-b / slope`.
    """

    unit: Any
    slope: Any
    b: Any

    def values(self, x: Activations) -> Float[Typed, "*axes example"]:
        """The unit's value on each example, float32."""
        x = jnp.asarray(x, jnp.float32)
        return jnp.take_along_axis(x, self.unit[..., None, None], -1)[..., 0]

    def __call__(self, x: Activations) -> Logits:
        """Logits of both classes, float32; that of class 0 is 0."""
        logits = self.slope[..., None] * self.values(x) + self.b[..., None]
        return jnp.stack([jnp.zeros_like(logits), logits], -1)

    def predict(self, x: Activations) -> Predictions:
        """The likelier class of each example."""
        return self(x).argmax(-1)


def unit_auc(x: Activations, y: Any, *, weights: Any = None, chunk: int | None = None) -> Float[Typed, "*axes d_in"]:
    """The area under the ROC curve of every unit's value by itself, for class 1 against class 0.

    Args:
      x, y, weights, chunk: as in `logistic`, of two classes.

    Raises:
      ValueError: as `logistic`, or more than two classes.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import probes
      >>> probes.unit_auc(jnp.array([[0.0, 5.0], [1.0, 4.0], [2.0, 4.5]]), jnp.array([0, 1, 1])).tolist()
      [1.0, 0.0]
    """
    return each_place(_unit_auc, examples("probes.unit_auc", x, y, weights, 2), chunk=chunk)


def _unit_auc(x: Array, y: Array, weights: Array, *, n_classes: int) -> Array:
    return jax.vmap(auc, (1, None, None))(x, y == n_classes - 1, weights)


def best_unit(x: Activations, y: Any, *, l2: Any = 1e-3, weights: Any = None, chunk: int | None = None) -> UnitProbe:
    """Finds the unit that tells two classes apart best, and fits its threshold by logistic regression.

    Args:
      x, y, weights, chunk: as in `logistic`, of two classes.
      l2: the penalty of the regression, of the unit's value in units of its spread.

    Raises:
      ValueError: as `logistic`, or more than two classes.

    Example:
      >>> import jax
      >>> from interp_jax import probes
      >>> x = jax.random.normal(jax.random.key(0), (3, 80, 5))  # three layers
      >>> y = x[1, :, 2] > 0
      >>> found = probes.best_unit(x, y)
      >>> int(found.unit[1]), float(probes.scores(found, x, y).auc[1])
      (2, 1.0)
    """
    return each_place(_best_unit, examples("probes.best_unit", x, y, weights, 2), l2, chunk=chunk)


def _best_unit(x: Array, y: Array, weights: Array, l2: Array, *, n_classes: int) -> UnitProbe:
    unit = jnp.abs(_unit_auc(x, y, weights, n_classes=n_classes) - 0.5).argmax().astype(jnp.int32)
    values = x[:, unit]
    mean = weights @ values / weights.sum()
    std = jnp.maximum(jnp.sqrt(weights @ (values - mean) ** 2 / weights.sum()), 1e-30)
    scaled = jnp.where(weights > 0, (values - mean) / std, 0)
    fitted = fit_logistic(scaled[:, None], y, weights, l2, n_classes=n_classes)
    slope = fitted.W[1, 0] / std
    return UnitProbe(unit, slope, fitted.b[1] - slope * mean)
