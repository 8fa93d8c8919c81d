"""Sweeps of steering: a vector at each layer and position in turn, at each strength, and what it does to a metric.

    effect[layer, strength] = metric(f with x[layer] <- steered(x[layer], strength))

One compiled call; up to 16 layers each layer is a program of its own, which shares what comes before it, and deeper the
layer is data. Caveat: a strength that makes a metric rise may do so by breaking the model: sweep its loss as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from jax import Array
import jax.numpy as jnp

from interp_jax.core import find, intervene, transform
from interp_jax.interventions import at
from interp_jax.runs import DEEP, at_once, at_places, check_counts, named, per_example
from interp_jax.steering.steerer import Steerer
from interp_jax.steering.vector import SteeringVector

PLACES = ("layer", "position", "strength")


class _Options(NamedTuple):
    over: tuple[str, ...]
    form: str | None
    chunk: int | None


def sweep(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    vector: Steerer,
    strengths: Any,
    over: Sequence[str] = ("layer", "strength"),
    *,
    form: str | None = None,
    position: Any = None,
    chunk: int | None = None,
) -> Callable[..., Array]:
    """What steering does to a metric, at each layer and strength.

    Args:
      f: `(model, tokens) -> output`.
      metric: output -> one number per example, such as `metrics.logit_diff(answers, distractors)`.
      vector: a steering vector, with one for each of the layers to go over, or another `Steerer`, such as a `Feature`.
      strengths: `[strength]`; 0 is the model as it is.
      over: what to go over, and the axes of the result in this order: "strength", and "layer" (else all layers of the
        vector are steered together), "position" (each real token in turn, from 0), "batch" (one number per example
        rather than their mean).
      form: as in the `edit` of what steers, by default its own: of a vector "add".
      position: where to steer, as in `interventions.at`, if not everywhere.
      chunk: runs that go at once; by default so many that 64 sequences do.

    Returns:
      `g(model, tokens) -> effects`, float32 with the axes of `over`, in one compiled call. Layers are in the order of
      `vector.layers`.

    Raises:
      ValueError: an axis of `over` that is unknown, named twice or cannot be; strengths that are not a list of finite
        numbers; a metric that is not one number per example; what the `edit` of what steers refuses.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import models, steering
      >>> model, _ = models.load("microworld")
      >>> top = lambda logits: logits[:, -1].max(-1)
      >>> vector = steering.SteeringVector.create(jnp.ones((4, 128)), "blocks.resid_post")
      >>> steering.sweep(models.forward, top, vector, [-1.0, 0.0, 1.0])(model, jnp.array([[1, 5, 9]])).shape
      (4, 3)
    """
    over, strengths = named(over), jnp.asarray(strengths, jnp.float32)
    allowed = (*PLACES, "batch")
    if "strength" not in over or len(set(over)) < len(over) or not set(over) <= set(allowed):
        raise ValueError(f"steering.sweep: over={over}: 'strength' and any others of {', '.join(allowed)}, each once")
    if "layer" in over and vector.layers is None:
        raise ValueError("steering.sweep: over 'layer' of one vector [d_model]: give a stack [layer d_model]")
    if "position" in over and position is not None:
        raise ValueError(f"steering.sweep: over 'position' at position={position!r}: it is one or the other")
    if strengths.ndim != 1 or not strengths.size:
        raise ValueError(f"steering.sweep: strengths of shape {list(strengths.shape)}: give a list [strength]")
    check_counts(chunk=chunk)
    _edit(vector, strengths[jnp.abs(strengths).argmax()], form)  # refuses what cannot be, as far as it is known
    # Words about a vector are no other compilation.
    plain = replace(vector, how="", model="") if isinstance(vector, SteeringVector) else vector
    return transform(_sweep, _Options(over, form, chunk), (f, metric, plain, strengths, position))


def _sweep(options: _Options, arrays: Any, *args: Any, **kwargs: Any) -> Array:
    f, metric, vector, strengths, position = arrays
    over, form, chunk = options
    examples = jnp.shape(args[-1])[:-1]
    keep = "batch" in over
    sizes = {"layer": len(vector.layers or ()), "strength": len(strengths)}
    if "position" in over:
        (info,) = find(f, vector.site, *args, **kwargs).values()
        sizes["position"] = info.size("position")

    def one(layer: Any, place: dict[str, Array]) -> Array:
        edit = _edit(vector, strengths[place["strength"]], form, place.get("position", position))
        edit = edit if layer is None else at(edit, layer=layer)
        score = per_example(metric(intervene(f, {vector.site: edit})(*args, **kwargs)), examples)
        return score if keep else score.mean()

    def each(axes: Sequence[str], run: Callable[[dict[str, Array]], Array]) -> Array:
        """`run` at each place along the axes, `[place ...]`."""
        shape = [sizes[axis] for axis in axes]
        return at_places(lambda places: run(dict(zip(axes, places, strict=True))), shape, at_once(chunk, examples))

    axes = [axis for axis in PLACES if axis in over]
    if "layer" in over and sizes["layer"] <= DEEP:
        values = jnp.concatenate([each(axes[1:], lambda place, k=k: one(k, place)) for k in vector.layers])
    elif "layer" in over:
        numbers = jnp.asarray(vector.layers)
        values = each(axes, lambda place: one(numbers[place["layer"]], place))
    else:
        values = each(axes, lambda place: one(None, place))
    names = [*axes, *(("batch",) if keep else ())]
    values = values.reshape(*(sizes[axis] for axis in axes), *values.shape[1:])
    return values.transpose([names.index(axis) for axis in over])


def _edit(vector: Steerer, strength: Array, form: str | None, position: Any = None) -> Any:
    return vector.edit(strength, position=position, **({} if form is None else {"form": form}))
