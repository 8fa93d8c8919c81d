"""Nearest neighbours: what the k nearest examples are, by Euclidean distance.

    p(class) = (votes of the class + 1) / (k + number of classes)

Cover and Hart 1967. The added ones keep a class without votes possible, so that the log loss is finite; the likeliest
class is the one with most votes. Caveat: it keeps every example, and distances in many dimensions tell little.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp

from interp_jax.probes.examples import NUMBERS_AT_ONCE, examples
from interp_jax.probes.linear import Activations, Logits, Predictions
from interp_jax.runs import check_counts, in_chunks


@partial(jax.tree_util.register_dataclass, data_fields=["x", "y", "weights"], meta_fields=["k", "n_classes"])
@dataclass(frozen=True)
class NeighboursProbe:
    """The examples among which neighbours are looked for. It is a pytree.

    Attributes:
      x: `[*axes example d_in]`.
      y: int32 `[*axes example]`.
      weights: float32 `[*axes example]`, 0 at examples that are no one's neighbour, else the weight of their vote.
      k: how many neighbours vote.
      n_classes: how many classes there are.
    """

    x: Any
    y: Any
    weights: Any
    k: int
    n_classes: int

    def __call__(self, x: Activations) -> Logits:
        """Log probabilities of each class by the votes, float32."""
        *axes, n, d_in = jnp.shape(x)
        known = (self.x.reshape(-1, *self.x.shape[-2:]), *(a.reshape(-1, a.shape[-1]) for a in (self.y, self.weights)))
        places = jnp.asarray(x).reshape(-1, n, d_in)
        chunk = max(1, NUMBERS_AT_ONCE // max(1, (n + known[0].shape[1]) * d_in + n * known[0].shape[1]))
        found = in_chunks(partial(_votes, k=self.k, n_classes=self.n_classes), (places, *known), chunk)
        return found.reshape(*axes, n, self.n_classes)

    def predict(self, x: Activations) -> Predictions:
        """The class with most votes, the first of equal ones."""
        return self(x).argmax(-1)


@partial(jax.jit, static_argnames=("k", "n_classes"))
def _votes(place: Any, *, k: int, n_classes: int) -> Array:
    x, known, y, weights = place
    x, known = x.astype(jnp.float32), jnp.where(weights[:, None] > 0, known.astype(jnp.float32), 0)
    middle = known.mean(0)  # distances as differences of squares: near the origin they keep their digits
    x, known = x - middle, known - middle
    far = (known * known).sum(-1) - 2 * x @ known.T
    _, nearest = lax.top_k(-jnp.where(weights > 0, far, jnp.inf), k)
    votes = (jax.nn.one_hot(y[nearest], n_classes) * weights[nearest][..., None]).sum(1)
    return jnp.log((votes + 1) / (votes.sum(-1, keepdims=True) + n_classes))


def nearest_neighbours(
    x: Activations, y: Any, *, k: int = 5, weights: Any = None, n_classes: int | None = None
) -> NeighboursProbe:
    """A probe by the k nearest examples, as scikit-learn's `KNeighborsClassifier`.

    Args:
      x, y, weights, n_classes: as in `logistic`.
      k: how many neighbours vote, at most as many as there are examples.

    Raises:
      ValueError: as `logistic`; `k` below 1 or above the number of examples.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import probes
      >>> probe = probes.nearest_neighbours(jnp.array([[0.0], [1.0], [5.0]]), jnp.array([0, 0, 1]), k=1)
      >>> probe.predict(jnp.array([[4.0], [0.4]])).tolist()
      [1, 0]
    """
    here = examples("probes.nearest_neighbours", x, y, weights, n_classes)
    check_counts(k=k)
    n = here.x.shape[1]
    if k > n:
        raise ValueError(f"probes.nearest_neighbours: k={k} of {n} examples: give at most as many")
    y, weights = (a.reshape(*here.axes, n) for a in (here.y, here.weights))
    return NeighboursProbe(jnp.asarray(x), y, weights, k, here.n_classes)
