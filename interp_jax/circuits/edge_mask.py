"""Edge pruning: the circuit as a mask over edges that is learned by gradient descent.

    minimise over log_alpha:  mean over pairs ((m(model) - m(gates)) / scale)^2 + sparsity * mean over edges P(gate > 0)
    gate = clip((zeta - gamma) s + gamma, 0, 1),   s = sigmoid((log u - log(1 - u) + log_alpha) / beta),   u uniform

m(gates) is the metric of the circuit whose edges bring that much of the clean run and the rest of the corrupted one,
scale the mean of |m(clean) - m(corrupted)|. Bhaskar et al. 2024, "Finding Transformer Circuits with Edge Pruning",
arXiv:2406.16778; gates: hard concrete, Louizos et al. 2018, arXiv:1712.01312. There the divergence from the model's
output and a target size stand in the place of the two terms.
Caveat: what is found depends on `sparsity`, and on chance where edges can stand in for one another.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
import optax

from interp_jax.circuits.edge_circuit import EdgeCircuit
from interp_jax.core import capture, intervene, sites, transform
from interp_jax.nodes import WRITES, Edges, check_additive, connected, nodes
from interp_jax.runs import check_counts, check_pair, per_example

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1  # of the hard concrete distribution, as in both papers
START = 2.0  # of log_alpha: nearly every edge is in at first


def edge_mask(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    *,
    n_steps: int = 300,
    sparsity: float = 1.0,
    learning_rate: float = 0.1,
) -> Callable[..., Edges]:
    """Learns which edges do the model's work alone, as a score of each.

    Args:
      f, metric: as in `activation_patch`.
      n_steps: of Adam, each with all pairs and one draw of the gates.
      sparsity: what an edge costs: all of them this much, where to lose the whole work costs 1.
      learning_rate: of Adam.

    Returns:
      `g(model, clean, corrupted, key) -> Edges`, one compiled call: tokens `[batch position]` and a `jax.random.key`
      for the gates. A score is the probability that the edge is in, 0 to 1, whatever the sign of its effect.

    Raises:
      ValueError: as `edge_attribution`; n_steps below 1; a sparsity or learning rate that is not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import circuits, models
      >>> model, _ = models.load("microworld")
      >>> top = lambda logits: logits[:, -1, 7]
      >>> g = circuits.edge_mask(models.forward, top, n_steps=2)
      >>> g(model, jnp.array([[1, 5]]), jnp.array([[1, 9]]), jax.random.key(0)).scores.shape
      (21, 53)
    """
    check_counts(n_steps=n_steps)
    for name, value in (("sparsity", sparsity), ("learning_rate", learning_rate)):
        if not value > 0:
            raise ValueError(f"edge_mask: {name}={value}: it must be positive")
    return transform(_edge_mask, n_steps, (f, metric, jnp.float32(sparsity), jnp.float32(learning_rate)))


def _edge_mask(n_steps: int, arrays: Any, *args: Any, **kwargs: Any) -> Edges:
    (f, metric, sparsity, learning_rate), (*before, clean, corrupted, key) = arrays, args
    check_pair("edge_mask", clean, corrupted)
    known = sites(f, *before, clean, **kwargs)
    check_additive("edge_mask", known)
    senders, receivers = nodes(known)
    there = connected(senders, receivers)
    examples = jnp.shape(clean)[:-1]
    values = capture(f, tuple(WRITES.values()), output=False)(*before, corrupted, **kwargs)

    def measured(run: Callable[..., Any], tokens: Array) -> Array:
        return per_example(metric(run(*before, tokens, **kwargs)), examples)

    goal = measured(f, clean)
    scale = jnp.abs(goal - measured(f, corrupted)).mean()

    def loss(log_alpha: Array, key: Array) -> Array:
        gates = EdgeCircuit(hard_concrete(log_alpha, key), senders, receivers)
        lost = (goal - measured(intervene(f, gates.edits(values)), clean)) / scale
        return jnp.mean(lost**2) + sparsity * jnp.where(there, chance(log_alpha), 0).sum() / there.sum()

    adam = optax.scale_by_adam()

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        log_alpha, state = carry
        with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
            update, state = adam.update(jax.grad(loss)(log_alpha, key), state)
        return (log_alpha - learning_rate * update, state), None

    first = jnp.full(there.shape, START)
    (found, _), _ = lax.scan(step, (first, adam.init(first)), jax.random.split(key, n_steps))
    return Edges(jnp.where(there, chance(found), 0), senders, receivers)


def chance(log_alpha: Array) -> Array:
    """The probability that a gate is not 0."""
    return jax.nn.sigmoid(log_alpha - BETA * jnp.log(-GAMMA / ZETA))


def hard_concrete(log_alpha: Array, key: Array) -> Array:
    """A gate from 0 to 1 for each entry, often just 0 or 1, and differentiable in `log_alpha`."""
    u = jax.random.uniform(key, log_alpha.shape, minval=1e-6, maxval=1 - 1e-6)
    s = jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + log_alpha) / BETA)
    return jnp.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)
