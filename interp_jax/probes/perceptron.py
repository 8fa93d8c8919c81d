"""A probe with one hidden layer, trained by Adam on all examples at once.

    logits = relu(x W_in + b_in) W_out + b_out;    loss = mean weight * -log softmax(logits)[y] + l2 / (2 n) |W|^2

Activations are standardised by the mean and the spread of the examples. Hewitt and Liang 2019, arXiv:1909.03368, use
it beside the linear probe. Caveat: it may compute what it finds: its selectivity says how much.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Key
import optax

from interp_jax.probes.examples import each_place, examples
from interp_jax.probes.linear import Activations, Logits, Predictions, centre
from interp_jax.runs import check_counts

_FIELDS = ["W_in", "b_in", "W_out", "b_out"]


@partial(jax.tree_util.register_dataclass, data_fields=_FIELDS, meta_fields=[])
@dataclass(frozen=True)
class MLPProbe:
    """A probe with a hidden layer at each of several places. It is a pytree.

    Attributes:
      W_in: float32 `[*axes d_in hidden]`, with the standardisation of the examples in it.
      b_in: `[*axes hidden]`.
      W_out: `[*axes hidden class]`.
      b_out: `[*axes class]`.
    """

    W_in: Any
    b_in: Any
    W_out: Any
    b_out: Any

    def __call__(self, x: Activations) -> Logits:
        """Logits of each class, float32."""
        hidden = jax.nn.relu(jnp.asarray(x, jnp.float32) @ self.W_in + self.b_in[..., None, :])
        return hidden @ self.W_out + self.b_out[..., None, :]

    def predict(self, x: Activations) -> Predictions:
        """The likeliest class of each example."""
        return self(x).argmax(-1)


def mlp(
    key: Key[Typed, ""],
    x: Activations,
    y: Any,
    *,
    hidden: int = 64,
    l2: Any = 1.0,
    n_steps: int = 300,
    learning_rate: Any = 3e-3,
    weights: Any = None,
    n_classes: int | None = None,
    chunk: int | None = None,
) -> MLPProbe:
    """Trains a probe with one hidden layer at every place.

    Args:
      key: a `jax.random.key`; all places start from the same draw.
      x, y, weights, n_classes, chunk: as in `logistic`.
      hidden: units of the hidden layer.
      l2: the penalty `l2 / 2 |W|^2` beside the sum of losses, of both weight matrices on standardised activations.
      n_steps, learning_rate: of Adam, which decays to 0 by a cosine.

    Raises:
      ValueError: as `logistic`; `hidden` or `n_steps` below 1.

    Example:
      >>> import jax
      >>> from interp_jax import probes
      >>> x = jax.random.normal(jax.random.key(0), (80, 5))
      >>> y = abs(x[:, 2]) > 0.7  # no plane tells these apart
      >>> float(probes.scores(probes.mlp(jax.random.key(1), x, y), x, y).accuracy) > 0.9
      True
    """
    check_counts(hidden=hidden, n_steps=n_steps)
    here = examples("probes.mlp", x, y, weights, n_classes)
    k_in, k_out = jax.random.split(key)
    d_in = here.x.shape[-1]
    start = MLPProbe(
        jax.random.normal(k_in, (d_in, hidden)) * (2 / d_in) ** 0.5,
        jnp.zeros(hidden),
        jax.random.normal(k_out, (hidden, here.n_classes)) * hidden**-0.5,
        jnp.zeros(here.n_classes),
    )
    return each_place(_mlp, here, l2, learning_rate, chunk=chunk, shared=(start,), options=(n_steps,))


def _mlp(
    x: Array, y: Array, weights: Array, l2: Array, rate: Array, start: Any, n_steps: int, *, n_classes: int
) -> MLPProbe:
    total = weights.sum()
    mean, centred = centre(x, weights)
    std = jnp.sqrt(weights @ centred**2 / total) + 1e-6
    scaled = centred / std

    def loss(probe: MLPProbe) -> Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(probe(scaled), y)
        penalty = (probe.W_in**2).sum() + (probe.W_out**2).sum()
        return (weights @ losses + l2 / 2 * penalty) / total

    def step(carry: Any, at: Array) -> Any:
        probe, state = carry
        updates, state = adam.update(jax.grad(loss)(probe), state, probe)
        now = rate * (1 + jnp.cos(jnp.pi * at / n_steps)) / 2
        return (jax.tree.map(lambda p, u: p - now * u, probe, updates), state), None

    adam = optax.scale_by_adam()
    with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
        (probe, _), _ = lax.scan(step, (start, adam.init(start)), jnp.arange(n_steps))
    W_in = probe.W_in / std[:, None]
    return MLPProbe(W_in, probe.b_in - mean @ W_in, probe.W_out, probe.b_out)
