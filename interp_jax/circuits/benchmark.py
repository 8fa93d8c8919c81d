"""MIB's scores of a ranking of edges: how faithful circuits of ever more of them are, as two areas.

    CPR = area under f(k),    CMD = area under |1 - f(k)|,    f the faithfulness of the circuit of a fraction k of edges

by the trapezoid rule over k from 0.001 to 1, on a linear axis. Mueller et al. 2025, "MIB: A Mechanistic
Interpretability Benchmark", arXiv:2504.13151, as its code has it (`evaluate_area_under_curve` and `print_results.py` of
https://github.com/hannamw/MIB-circuit-track): a circuit has int(k n) of the n edges, or of the n nodes, each with all
that it sends. CPR, the higher the better, asks for what raises the metric, and takes the largest scores; CMD, the lower
the better, for what the model does, and takes the largest sizes of scores.
Caveat: half of either area is of circuits of half of the edges and more. MIB counts a key or value head once for each
query head that it serves, here it is one receiver, so a fraction of a model with shared heads is of fewer edges.
"""

from typing import NamedTuple

from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float
import numpy as np

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Areas(NamedTuple):
    """The two areas of a curve of faithfulness, float32 `[*ranking]`.

    cpr: circuit performance ratio, the area under the curve; 0.999 is the whole model's at every size.
    cmd: circuit-model distance, the area between the curve and 1.
    """

    cpr: Array
    cmd: Array


def areas(share: Float[Typed, "*ranking fraction"], fractions: tuple[float, ...] = FRACTIONS) -> Areas:
    """The areas under the faithfulness of circuits of growing size, and between it and 1.

    Args:
      share: `[*ranking fraction]`, the faithfulness of the circuits of a ranking, as `faithfulness` measures it.
      fractions: of the edges that each circuit has, growing.

    Raises:
      ValueError: another number of circuits than of fractions, fewer than 2, or fractions that do not grow.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import circuits
      >>> found = circuits.areas(jnp.array([0.0, 0.5, 1.5]), (0.0, 0.5, 1.0))
      >>> found.cpr.item(), found.cmd.item()
      (0.625, 0.625)
    """
    x, y = np.asarray(fractions, np.float32), jnp.asarray(share, jnp.float32)
    if len(x) < 2 or jnp.shape(y)[-1:] != x.shape:
        raise ValueError(
            f"areas: share is {list(jnp.shape(y))} of {len(x)} fractions: give one circuit for each, 2 or more"
        )
    if not (np.diff(x) > 0).all():
        raise ValueError(f"areas: fractions {list(fractions)} do not grow: sort circuits by size")
    return Areas(jnp.trapezoid(y, x), jnp.trapezoid(jnp.abs(1 - y), x))
