"""Whether a circuit leaves anything out: with a part of it gone, circuit and model should fare alike.

    completeness: |m(C \\ K) - m(M \\ K)| is small for every part K of the circuit C

m is the metric with everything else ablated, M the whole model: see `faithfulness`. With K = C it compares the empty
circuit with what the rest of the model does alone.
Wang et al. 2022, "Interpretability in the wild" (IOI), arXiv:2211.00593, section 4, with random and greedy parts.
Caveat: there are too many parts to try them all, so that a small gap of some proves nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array, lax
import jax.numpy as jnp

from interp_jax.circuits.circuit import Circuit, Members
from interp_jax.circuits.faithfulness import Ablation, Request, asked, check_single, measured, transformed


class Completeness(NamedTuple):
    """The metrics of the circuit and of the model without a part, and how far apart they are, float32 `[*removed]`."""

    gap: Array
    circuit: Array
    model: Array


def completeness(
    f: Callable[..., Any], metric: Callable[[Any], Array], ablation: Ablation = "resample", *, chunk: int | None = None
) -> Callable[..., Completeness]:
    """What a circuit leaves out: with a part K of it gone, circuit and model should fare alike.

    With K the circuit itself, `model` is what the rest of the model does alone. `Circuit.random` and `greedy_removal`
    give others (Wang et al. 2022, section 4).

    Args:
      f, metric, ablation, chunk: as in `faithfulness`.

    Returns:
      `g(model, clean, corrupted, circuit, removed) -> Completeness`: `removed` a `Circuit` with leading axes, all of
      which are kept.

    Raises:
      ValueError: as `faithfulness`, but there is no ratio.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import circuits, models
      >>> model, _ = models.load("microworld")
      >>> top = lambda logits: logits[:, -1, 7]
      >>> circuit = circuits.Circuit.top(jnp.ones((4, 4)), jnp.arange(4.0), 3)
      >>> g = circuits.completeness(models.forward, top)
      >>> removed = circuit.random(jax.random.key(0), 2)
      >>> g(model, jnp.array([[1, 5]]), jnp.array([[1, 9]]), circuit, removed).gap.shape
      (2,)
    """
    return transformed(f, metric, ablation, _completeness, asked("completeness", ablation, chunk))


def greedy_removal(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    n: int,
    ablation: Ablation = "resample",
    *,
    chunk: int | None = None,
) -> Callable[..., tuple[Circuit, Completeness]]:
    """Looks for parts of a circuit that show it incomplete: each step also removes the member that widens the gap most.

    Args:
      f, metric, ablation, chunk: as in `faithfulness`.
      n: steps; each tries every head and MLP, by two runs.

    Returns:
      `g(model, clean, corrupted, circuit) -> (removed, Completeness)`: the parts `[n ...]`, each with one member more
      than that before it while there are any, and what `completeness` finds of them.

    Raises:
      ValueError: as `completeness`; fewer than one step.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import circuits, models
      >>> model, _ = models.load("microworld")
      >>> top = lambda logits: logits[:, -1, 7]
      >>> circuit = circuits.Circuit.top(jnp.ones((4, 4)), jnp.arange(4.0), 3)
      >>> g = circuits.greedy_removal(models.forward, top, 2)
      >>> removed, found = g(model, jnp.array([[1, 5]]), jnp.array([[1, 9]]), circuit)
      >>> removed.size.tolist()
      [1, 2]
    """
    if n < 1:
        raise ValueError(f"greedy_removal: n={n}: it must be at least 1")
    return transformed(f, metric, ablation, _greedy_removal, asked("greedy_removal", ablation, chunk, n))


def _completeness(request: Request, arrays: Any, *args: Any, **kwargs: Any) -> Completeness:
    *given, circuit, removed = args
    score, _, _ = measured(request, arrays, given, circuit, kwargs)
    _check_alike(request.name, removed, circuit)
    return _gaps(score, circuit, removed)


def _greedy_removal(request: Request, arrays: Any, *args: Any, **kwargs: Any) -> tuple[Circuit, Completeness]:
    *given, circuit = args
    score, _, _ = measured(request, arrays, given, circuit, kwargs)
    check_single(request.name, circuit)
    each = circuit.singles()

    def step(removed: Circuit, _: None) -> tuple[Circuit, tuple[Circuit, Completeness]]:
        found = _gaps(score, circuit, each | removed)
        possible = (each & circuit & ~removed).size > 0
        best = jnp.argmax(jnp.where(possible, found.gap, -1))
        # Where nothing is left to remove, every candidate is in `removed` already, or outside.
        chosen = jax.tree.map(lambda mask: mask[best] & possible.any(), each) | removed
        return chosen, (chosen, _gaps(score, circuit, chosen))

    return lax.scan(step, circuit & ~circuit, None, length=request.n)[1]


def _gaps(score: Callable[[Any], Array], circuit: Members, removed: Members) -> Completeness:
    left, rest = score(circuit & ~removed), score(~removed)
    return Completeness(jnp.abs(left - rest), left, rest)


def _check_alike(name: str, removed: Any, circuit: Members) -> None:
    def members(of: Members) -> list[tuple[int, ...]]:
        return [mask.shape[len(of.axes) :] for mask in jax.tree.leaves(of)]

    alike = isinstance(removed, type(circuit)) and jax.tree.structure(removed) == jax.tree.structure(circuit)
    if not alike or members(removed) != members(circuit):
        raise ValueError(f"{name}: removed must be a circuit of the same kind, over the same members as the circuit")
