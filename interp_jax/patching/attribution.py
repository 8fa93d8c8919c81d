"""Attribution patching: the first-order estimate of every patch at once, by one backward pass.

    effect[i] ~ (clean[i] - corrupted[i]) . d metric / d corrupted[i]

It is the slope of the metric in a dose per place, x <- x + dose * (clean - x), at dose 0; a patch is dose 1.
Nanda 2023, "Attribution patching"; Syed et al. 2023, arXiv:2310.10348.
Caveat: exact where the model is linear between the two runs; saturated attention and early residual streams are
estimated badly: `atp_star` mends a part of it; check the largest by `activation_patch`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.core import Context, Intervention, capture, intervene, place, transform
from interp_jax.patching.grid import lay, ordered
from interp_jax.runs import check_pair, named, per_example


def attribution_patch(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    where: str,
    over: Sequence[str] = ("layer", "position"),
) -> Callable[..., Array]:
    """Estimates what `activation_patch` would find, less the metric of the corrupted run, by one backward pass.

    Args:
      f, metric, where, over: as in `activation_patch`.

    Returns:
      `g(model, clean, corrupted) -> estimated changes of the metric`, float32 with the axes of `over`.

    Raises:
      ValueError: as `activation_patch`.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import patching
      >>> f = lambda W, x: ij.site(x, "x", axes=("batch", "position")) @ W
      >>> W, clean, corrupted = jnp.array([2.0, 3.0]), jnp.array([[1.0, 1.0]]), jnp.array([[0.0, 5.0]])
      >>> patching.attribution_patch(f, lambda y: y, "x", over=("position",))(W, clean, corrupted).tolist()
      [2.0, -12.0]
    """
    return transform(_attribution_patch, (where, named(over)), (f, metric))


def _attribution_patch(options: tuple[str, tuple[str, ...]], arrays: Any, *args: Any, **kwargs: Any) -> Array:
    (where, over), (f, metric), (*before, clean, corrupted) = options, arrays, args
    check_pair("attribution_patch", clean, corrupted)
    grid = lay(f, where, over, (*before, clean), kwargs)
    values = capture(f, where, output=False)(*before, clean, **kwargs)[where]
    examples = jnp.shape(corrupted)[:-1]
    kept = examples if "batch" in over else ()

    def score(dose: Array) -> Array:
        edit = Toward(values, dose, grid.names(batch=bool(kept)))
        scores = per_example(metric(intervene(f, {where: edit})(*before, corrupted, **kwargs)), examples)
        return scores.sum() if kept else scores.mean()

    return ordered(jax.grad(score)(jnp.zeros((*grid.shape, *kept))), grid, over)


@partial(jax.tree_util.register_dataclass, data_fields=["values", "dose"], meta_fields=["axes"])
@dataclass(frozen=True)
class Toward(Intervention):
    """Moves a value towards another: `x + dose * (values - x)`, with one dose per place.

    The dose is an array with the named `axes`, of which "layer" comes first.
    """

    values: Any
    dose: Any
    axes: tuple[str, ...]

    def __call__(self, value: Array, ctx: Context) -> Array:
        x = value.astype(jnp.float32)
        there = place(self.values, value, ctx).astype(jnp.float32)
        change = jnp.where(jnp.isfinite(there) & jnp.isfinite(x), there - x, 0)  # a masked score is -inf in both
        return (x + dosed(self.dose, self.axes, value, ctx) * change).astype(value.dtype)


def dosed(dose: Array, axes: tuple[str, ...], value: Array, ctx: Context) -> Array:
    """The dose of every place of a value, in a shape that broadcasts to it. It is 0 at padding."""
    dose = dose[ctx.index[-1]] if axes[:1] == ("layer",) else dose
    index = tuple(_index(name, value, ctx) for name in axes if name != "layer")
    return dose.at[index].get(mode="fill", fill_value=0) if index else dose


def _index(name: str, value: Array, ctx: Context) -> Array:
    """The number of each place along an axis, in a shape that broadcasts to the value. Padding is out of bounds."""
    size = value.shape[ctx.axis(name)]
    numbers = ctx.numbers(name, size)
    return ctx.spread(jnp.where(numbers < 0, size, numbers), name, value)
