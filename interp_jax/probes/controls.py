"""Is it in the activations, or has the probe learned it? Control tasks, and description length by online codes.

    selectivity = accuracy on the task - accuracy on its control, in which each type has a random label
    L = n_1 log2 K + sum_i sum over block i+1 of -log2 p_i(y | x),   p_i fitted to the blocks up to i

Hewitt and Liang 2019, "Designing and interpreting probes with control tasks", arXiv:1909.03368; Voita and Titov 2020,
"Information-theoretic probing with minimum description length", arXiv:2003.12298.
Caveat: where each type stands once, a control task has nothing to memorise that carries over, and selectivity is
accuracy above chance. Codes depend on the order of the examples: compare them in one order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Int, Key
import numpy as np

from interp_jax.probes.linear import Activations
from interp_jax.probes.scoring import scores

# Shares of the examples at which Voita and Titov fit a probe.
SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


def control_task(key: Key[Typed, ""], types: Any, y: Any) -> Int[Typed, "example"]:
    """Labels that are random for each type, and the same wherever the type stands.

    Args:
      key: a `jax.random.key`.
      types: whole numbers `[example]`, such as the token at the probed position.
      y: labels `[example]` of the task, whose frequencies the random ones have.

    Returns:
      int32 `[example]`, the labels of the control task.

    Raises:
      ValueError: types and labels are not of one length.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import probes
      >>> control = probes.control_task(jax.random.key(0), jnp.array([7, 5, 7, 7, 5]), jnp.array([0, 1, 0, 1, 1]))
      >>> bool(control[0] == control[2] == control[3]), bool(control[1] == control[4])
      (True, True)
    """
    types, y = np.asarray(types), jnp.asarray(y, jnp.int32)
    if types.ndim != 1 or types.shape != y.shape:
        raise ValueError(
            f"probes.control_task: types of shape {list(types.shape)} for labels {list(y.shape)}: give one of each an "
            "example"
        )
    names, of_example = np.unique(types, return_inverse=True)
    return jax.random.choice(key, y, (len(names),))[of_example]


@partial(jax.tree_util.register_dataclass, data_fields=["bits", "blocks"], meta_fields=["uniform", "sizes"])
@dataclass(frozen=True)
class OnlineCode:
    """The description length of labels given activations, at each place. It is a pytree.

    Attributes:
      bits: float32 `[*axes]`, the length of the code.
      blocks: float32 `[block *axes]`, of each block, the first sent without a probe.
      uniform: what the labels take without activations, n log2 K bits.
      sizes: how many examples there are up to the end of each block.
    """

    bits: Any
    blocks: Any
    uniform: float
    sizes: tuple[int, ...]

    @property
    def compression(self) -> Any:
        """How many times shorter than the uniform code it is, `[*axes]`."""
        return self.uniform / self.bits


def online_code(
    key: Key[Typed, ""],
    fit: Callable[..., Any],
    x: Activations,
    y: Int[Typed, "example"] | Any,
    *,
    n_classes: int | None = None,
    shares: Sequence[float] = SHARES,
) -> OnlineCode:
    """The bits that it takes to send labels to somebody who has the activations, block by block.

    Args:
      key: a `jax.random.key`, for the order of the examples.
      fit: `logistic`, or another function `(x, y, weights=, n_classes=) -> probe`.
      x: activations `[*axes example d_in]`.
      y: labels `[example]`.
      n_classes: by default the largest label and one.
      shares: where blocks end, as shares of the examples, rising to 1. Blocks before all classes have been seen go
        without a probe, as the first one does.

    Raises:
      ValueError: as `logistic`; shares that do not rise to 1.

    Example:
      >>> import jax
      >>> from interp_jax import probes
      >>> x = jax.random.normal(jax.random.key(0), (2, 200, 5))
      >>> code = probes.online_code(jax.random.key(1), probes.logistic, x, x[0, :, 2] > 0)
      >>> code.uniform, bool(code.bits[0] < 120 < code.bits[1])
      (200.0, True)
    """
    y = np.asarray(y).astype(np.int32)
    n, n_classes = len(y), int(y.max(initial=0)) + 1 if n_classes is None else n_classes
    if list(shares) != sorted(set(shares)) or not shares or shares[0] <= 0 or shares[-1] != 1:
        raise ValueError(f"probes.online_code: shares={tuple(shares)}: they must rise to 1")
    order = np.asarray(jax.random.permutation(key, n))
    x, y = jnp.take(jnp.asarray(x), order, axis=-2), y[order]
    ends = [max(1, round(share * n)) for share in shares]
    first = max(int(np.argmax(y == k)) + 1 for k in range(n_classes))
    sizes = tuple(sorted({end for end in ends if end > first} | {n}))
    place, uniform = jnp.zeros(jnp.shape(x)[:-2]), np.log2(n_classes)
    blocks = [place + jnp.float32(sizes[0] * uniform)]
    for known, end in zip(sizes, sizes[1:], strict=False):
        probe = fit(x, y, weights=np.arange(n) < known, n_classes=n_classes)
        # All examples are scored, and weighted: blocks of their own shapes would each be another program.
        loss = scores(probe, x, y, weights=(np.arange(n) >= known) & (np.arange(n) < end)).log_loss
        blocks.append(loss * jnp.float32((end - known) / np.log(2)))
    stacked = jnp.stack(blocks)
    return OnlineCode(stacked.sum(0), stacked, float(n * uniform), sizes)
