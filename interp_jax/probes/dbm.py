"""Desiderata-based masking: which features of a site, of a given basis, carry one variable.

    swap: x' = x + B diag(m) B^T (s - x),   B [d_in k] the features' directions, s the value of the source run
    m = sigmoid(a / T) while a [k] is trained and T falls from 1 to 0.01;   m = (a > 0) in the end

Davies et al. 2023, "Discovering variable binding circuitry with desiderata", arXiv:2307.03637. MIB (Mueller et al.
2025, arXiv:2504.13151) sets it beside distributed alignment search, over neurons (B the identity) and principal
components.
Caveat: a variable that no few features carry alone takes many of them, and what else those carry comes along.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Bool, Float
import optax

from interp_jax.core import transform
from interp_jax.probes.das import Basis, Interchange, check_finite, descend, stack

WARM, COLD = 1.0, 0.01  # the temperature at first and in the end, as in MIB


def train_dbm(
    f: Callable[..., Any],
    loss: Callable[[Any, Any], Array],
    where: str,
    model: Any,
    batches: Iterable[Interchange],
    basis: Basis,
    *,
    optimizer: optax.GradientTransformation | None = None,
    sparsity: float = 0.0,
) -> tuple[Bool[Typed, "k"], Float[Typed, "step"]]:
    """Searches for the features whose swap makes outputs what they should be, one step for each batch.

    Args:
      f, loss, where, model: as in `train_das`.
      batches: as in `train_das`; their number sets how fast the temperature falls.
      basis: `[d_in k]`, orthonormal columns, a feature's direction each: `jnp.eye(d_in)` for neurons.
      optimizer: any of optax's, by default `adam(1e-1)`.
      sparsity: what a feature that is in costs, in the unit of the loss.

    Returns:
      `(kept [k], losses [step])`: which features are in, so that `basis[:, kept]` is the subspace to swap. The losses
      are without the cost of features.

    Raises:
      ValueError: no batch; a basis of another width than the site; a negative `sparsity`.
      FloatingPointError: a loss is not finite.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import probes
      >>> f = lambda W, x: ij.site(x, "x", axes=("batch", "position", "d_model"))[:, -1] @ W
      >>> loss = lambda y, target: (y - target) ** 2
      >>> def batch(key):
      ...     base, source = jax.random.normal(key, (2, 32, 3))
      ...     target = source[:, 1] + base[:, 2]
      ...     return probes.Interchange(base[:, None], jnp.zeros(32, int), source, target, {})
      >>> batches = [batch(key) for key in jax.random.split(jax.random.key(0), 100)]
      >>> kept, _ = probes.train_dbm(f, loss, "x", jnp.array([0.0, 1.0, 1.0]), batches, jnp.eye(3))
      >>> kept[1:].tolist()
      [True, False]
    """
    stacked, n_steps = stack("train_dbm", batches)
    d_in = stacked.source.shape[-1]
    if jnp.ndim(basis) != 2 or len(basis) != d_in:
        got = list(jnp.shape(basis))
        raise ValueError(f"train_dbm: basis is {got}, the site has {d_in} dimensions: give [{d_in} k]")
    if sparsity < 0:
        raise ValueError(f"train_dbm: sparsity={sparsity} is negative")
    basis, cost = jnp.asarray(basis, jnp.float32), jnp.float32(sparsity)

    def masked(free: Array, temperature: Array) -> tuple[Basis, Array]:
        """Columns of the basis by the roots of the mask, so that a swap of what they span takes the mask's share."""
        log_mask = jax.nn.log_sigmoid(free / temperature)
        return basis * jnp.exp(log_mask / 2), cost * jnp.exp(log_mask).sum()

    optimizer = optax.adam(1e-1) if optimizer is None else optimizer
    run = transform(descend, where, (f, loss, optimizer, masked))
    free, losses = run(model, jnp.zeros(basis.shape[1]), stacked, jnp.linspace(WARM, COLD, n_steps))
    check_finite("train_dbm", losses)
    return free > 0, losses
