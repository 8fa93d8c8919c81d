"""Examples with labels, checked, and a fit that is mapped over their leading axes in one program.

A fit is written for one place, `x [example d_in]`; a layer, a position or a seed is a leading axis of `x`, and all
places are fitted by one compiled call, a chunk of them at a time, so that memory stays bounded.
"""

from collections.abc import Callable
from functools import partial
import math
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from interp_jax.runs import check_counts, in_chunks

NUMBERS_AT_ONCE = 1 << 24  # of activations, which a chunk of places holds where the caller says nothing


class Examples(NamedTuple):
    """Labelled examples of several places, flat, and what was static of them."""

    x: Array  # [place example d_in], of any float dtype
    y: Array  # int32 [place example]
    weights: Array  # float32 [place example], 0 where an example does not count
    axes: tuple[int, ...]  # the leading axes, whose product is `place`
    n_classes: int


def examples(
    name: str, x: Any, y: Any, weights: Any = None, n_classes: int | None = None, *, several: bool = True
) -> Examples:
    """Checks activations and labels, and flattens their leading axes.

    Args:
      name: of the method, for its errors.
      x: `[*axes example d_in]`.
      y: int or bool `[example]` or `[*axes example]`.
      weights: likewise, bool or float; None counts every example once.
      n_classes: None takes the largest label and one, which is known only outside `jit`.
      several: whether there must be two classes, and an example for each.

    Raises:
      ValueError: in one line, what does not fit.
    """
    if jnp.ndim(x) < 2:
        raise ValueError(f"{name}: activations of shape {list(jnp.shape(x))}; give [... example d_in]")
    *axes, n, _ = jnp.shape(x)
    for what, values in (("labels", y), ("weights", weights)):
        if values is not None and jnp.shape(values) not in ((n,), (*axes, n)):
            raise ValueError(
                f"{name}: {what} of shape {list(jnp.shape(values))} for activations {list(jnp.shape(x))}: "
                f"give one for each of the {n} examples"
            )
    y, weights = jnp.asarray(y), jnp.ones(n) if weights is None else jnp.asarray(weights, jnp.float32)
    if not (jnp.issubdtype(y.dtype, jnp.integer) or y.dtype == bool):
        raise ValueError(f"{name}: labels of dtype {y.dtype}: give whole numbers, 0 to the number of classes less 1")
    n_classes = _check_labels(name, y, weights, n_classes, several)

    def flat(values: Array) -> Array:
        return jnp.broadcast_to(values, (*axes, n)).reshape(-1, n)

    places = jnp.asarray(x).reshape(-1, *jnp.shape(x)[-2:])
    return Examples(places, flat(y.astype(jnp.int32)), flat(weights), tuple(axes), n_classes)


def _check_labels(name: str, y: Array, weights: Array, n_classes: int | None, several: bool) -> int:
    """The number of classes. Raises ValueError where labels that are known now leave nothing to tell apart."""
    if isinstance(y, Tracer) or isinstance(weights, Tracer):
        if n_classes is None:
            raise ValueError(f"{name}: labels are traced, so that their classes cannot be counted: give n_classes")
        check_counts(n_classes=n_classes)
        return n_classes
    labels, counts = np.broadcast_arrays(np.asarray(y), np.asarray(weights))
    rows = (a.reshape(-1, a.shape[-1]) for a in (labels, counts))
    for of_place, counted in zip(*rows, strict=True):
        seen = of_place[counted > 0]
        classes, n = np.unique(seen), len(seen)
        wanted = n_classes or (int(labels.max(initial=0)) + 1)
        if several and n < max(wanted, 2):
            raise ValueError(f"{name}: {n} examples for {max(wanted, 2)} classes: give at least one of each class")
        if several and len(classes) < 2:
            raise ValueError(f"{name}: all {n} labels are {classes[0]}: a probe tells at least two classes apart")
        if n and (classes[0] < 0 or classes[-1] >= wanted):
            raise ValueError(f"{name}: labels from {classes[0]} to {classes[-1]}: they must be 0 to {wanted - 1}")
    return n_classes or (int(labels.max(initial=0)) + 1)


def each_place(
    one: Callable[..., Any],
    of: Examples,
    *arrays: Any,
    chunk: int | None = None,
    shared: tuple[Any, ...] = (),
    options: tuple[Any, ...] = (),
) -> Any:
    """`one(x, y, weights, *arrays, *shared, *options, n_classes=)` at every place, the leading axes in front again.

    Args:
      one: a fit of one place, a function of a module.
      of: from `examples`.
      *arrays: numbers, or arrays that broadcast to the leading axes.
      chunk: how many places at once.
      shared: pytrees that all places have in common.
      options: further arguments that are static.
    """
    if chunk is None:
        chunk = max(1, NUMBERS_AT_ONCE // max(1, math.prod(of.x.shape[1:])))
    check_counts(chunk=chunk)
    further = tuple(jnp.broadcast_to(jnp.asarray(a, jnp.float32), of.axes).reshape(-1) for a in arrays)
    return _each_place((of.x, of.y, of.weights, further), shared, one, of.axes, of.n_classes, chunk, options)


@partial(jax.jit, static_argnames=("one", "axes", "n_classes", "chunk", "options"))
def _each_place(places: Any, shared: Any, one: Any, axes: Any, n_classes: int, chunk: int, options: Any) -> Any:
    def fit(place: Any) -> Any:
        x, y, weights, further = place
        x = jnp.where(weights[:, None] > 0, x.astype(jnp.float32), 0)
        return one(x, y, weights, *further, *shared, *options, n_classes=n_classes)

    found = in_chunks(fit, places, chunk)
    return jax.tree.map(lambda leaf: leaf.reshape(*axes, *leaf.shape[1:]), found)
