"""Interventions on a value: add, replace, zero, mean_ablate, scale, project_out, clamp, noise."""

from collections.abc import Callable, Sequence
import operator
from typing import Any
import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Key, Num

from interp_jax.core import COUNTED, Context, Intervention, check_kind, fill, of_visit, place
from interp_jax.interventions.registration import pytree

Numbers = Num[ArrayLike, "..."] | Sequence[Any]  # lists of numbers are as good


def _array(name: str, x: Any) -> Array:
    try:
        return jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} takes numbers, or an array of them, not {x!r:.60}") from error


def _key(key: Any) -> Any:
    if not hasattr(key, "dtype"):
        raise TypeError(f"noise: key is a jax.random.key(...), not {key!r:.60}")
    return key


def _wide(x: Array) -> Array:
    """The value in float32 at least."""
    return x.astype(jnp.float32) if x.dtype in (jnp.bfloat16, jnp.float16) else x


def _placed(values: Array, value: Array, ctx: Context) -> Array:
    """Values placed as `place` does; refuses values of several positions at a site that has them piece by piece."""
    if ctx.open_ended:
        for name in COUNTED:
            if name in (ctx.axes or ()) and values.ndim >= -ctx.axis(name) and values.shape[ctx.axis(name)] > 1:
                raise ValueError(
                    f"site {ctx.name!r}: a value of shape {values.shape} has several places along {name!r}, which come "
                    f"one by one while a text is generated: use at(..., {name}=) with a value for each"
                )
    return place(values, value, ctx)


def _combine(value: Array, other: Array, ctx: Context, fn: Callable[[Array, Array], Array]) -> Array:
    wide = _wide(value)
    return fn(wide, _placed(other, value, ctx).astype(wide.dtype)).astype(value.dtype)


class _Valued(Intervention):
    """An edit by values that the site must hold."""

    smooth = True  # type: ignore[assignment]

    def look(self, value: Array, ctx: Context) -> None:
        for values in jax.tree.leaves(self):
            check_kind(values, value, ctx)


@pytree(data=("vector",))
class _Add(_Valued):
    vector: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return _combine(value, self.vector, ctx, operator.add)


def add(vector: Numbers) -> Intervention:
    """Adds a vector: `x + vector`.

    Args:
      vector: anything that broadcasts to the value, such as `[d_model]`; or one value per layer, stacked as `capture`
        returns it.

    Raises:
      ValueError: (when applied) the vector does not broadcast to the value of the site.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import add
      >>> f = lambda x: ij.site(x, "x")
      >>> ij.intervene(f, {"x": add(jnp.array([1.0, 2.0]))})(jnp.zeros(2)).tolist()
      [1.0, 2.0]
    """
    return _Add(_array("add", vector))


@pytree(data=("value",))
class _Replace(_Valued):
    value: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return _placed(self.value, value, ctx).astype(value.dtype)


def replace(value: Numbers) -> Intervention:
    """Puts another value in place: activation patching.

    Args:
      value: anything that broadcasts to the value of the site, or one value per layer `[layer ...]`, stacked as
        `capture` returns it, of which each layer takes its own.

    Raises:
      ValueError: (when applied) the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import replace
      >>> f = lambda x: ij.site(x, "x").sum()
      >>> ij.intervene(f, {"x": replace(jnp.ones(3))})(jnp.zeros(3)).item()
      3.0
    """
    return _Replace(_array("replace", value))


@pytree()
class _Zero(Intervention):
    smooth = True  # type: ignore[assignment]

    def __call__(self, value: Array, ctx: Context) -> Array:
        return fill(jnp.zeros((), value.dtype), value)


def zero() -> Intervention:
    """Puts zeros in place: zero ablation.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.zero()})(jnp.ones(2)).tolist()
      [0.0, 0.0]
    """
    return _Zero()


@pytree(data=("mean",))
class _MeanAblate(_Valued):
    mean: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        if self.mean is not None:
            return _placed(self.mean, value, ctx).astype(value.dtype)
        over = tuple(ctx.axis(name) for name in ("batch", "position") if name in (ctx.axes or ()))
        if not over or ctx.open_ended:
            why = (
                "has no batch or position axis" if not over else "has one position at a time while a text is generated"
            )
            raise ValueError(f"mean_ablate: site {ctx.name!r} {why} to average over; pass the mean: mean_ablate(mean)")
        check_kind(jnp.zeros((), jnp.float32), value, ctx)
        wide, real = _wide(value), jnp.ones((1,) * value.ndim, bool)
        if "position" in (ctx.axes or ()):
            numbers = ctx.numbers("position", value.shape[ctx.axis("position")])
            real = ctx.spread(numbers >= 0, "position", value)
        real = fill(real, value)
        total = jnp.where(real, wide, 0).sum(over, keepdims=True)
        mean = total / jnp.maximum(real.sum(over, keepdims=True), 1).astype(wide.dtype)
        return fill(mean, value).astype(value.dtype)


def mean_ablate(mean: Numbers | None = None) -> Intervention:
    """Puts a mean in place: mean ablation.

    Args:
      mean: anything that broadcasts to the value, such as the mean over a data set `[d_model]`, or one per layer,
        stacked. None: the mean over the `batch` and `position` axes of the value itself, padding left out.

    Raises:
      ValueError: (when applied) without `mean`, at a site that has neither axis, or while a text is generated.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x, "x", axes=("position",))
      >>> ij.intervene(f, {"x": ij.interventions.mean_ablate()})(jnp.array([1.0, 3.0])).tolist()
      [2.0, 2.0]
    """
    return _MeanAblate(None if mean is None else _array("mean_ablate", mean))


@pytree(data=("factor",))
class _Scale(_Valued):
    factor: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return _combine(value, self.factor, ctx, operator.mul)


def scale(factor: Numbers) -> Intervention:
    """Multiplies by a factor that broadcasts to the value.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.scale(2.0)})(jnp.ones(2)).tolist()
      [2.0, 2.0]
    """
    return _Scale(_array("scale", factor))


@pytree(data=("direction",))
class _ProjectOut(Intervention):
    smooth = True  # type: ignore[assignment]
    direction: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        check_kind(self.direction, value, ctx)
        wide = _wide(value)
        direction = self.direction.astype(wide.dtype)
        if direction.ndim == 1 + len(ctx.index):
            direction = of_visit(direction, ctx)
        if direction.ndim != 1 or direction.shape[-1] != value.shape[-1]:
            raise ValueError(
                f"project_out: site {ctx.name!r} has a last axis of {value.shape[-1]}, "
                f"the direction has shape {self.direction.shape}"
            )
        norm = jnp.linalg.norm(direction).astype(wide.dtype)
        unit = direction / jnp.where(norm == 0, jnp.ones_like(norm), norm)
        along = jnp.einsum("...d,d->...", wide, unit.conj(), precision=jax.lax.Precision.HIGHEST)
        return (wide - along[..., None] * unit).astype(value.dtype)


def project_out(direction: Num[ArrayLike, "*layer d"] | Sequence[Any]) -> Intervention:
    """Removes the component along a direction: `x - r (r* . x)` with `r` the direction at unit norm.

    Directional ablation of Arditi et al. 2024, "Refusal in language models is mediated by a single direction".

    Args:
      direction: `[d]` of any norm (a zero direction removes nothing), or one per layer `[layer d]`.

    Raises:
      ValueError: (when applied) the last axis of the site has another size, or the site another number of layers.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x, "x")
      >>> ij.intervene(f, {"x": ij.interventions.project_out(jnp.array([0.0, 2.0]))})(jnp.ones(2)).tolist()
      [1.0, 0.0]
    """
    return _ProjectOut(_array("project_out", direction))


@pytree(data=("low", "high"))
class _Clamp(Intervention):
    smooth = True  # type: ignore[assignment]
    low: Any
    high: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return jnp.clip(value, *(None if b is None else self._bound(b, value, ctx) for b in (self.low, self.high)))

    def _bound(self, bound: Array, value: Array, ctx: Context) -> Array:
        if all(jnp.issubdtype(x.dtype, jnp.integer) for x in (bound, value)):
            held, given = jnp.iinfo(value.dtype), jnp.iinfo(bound.dtype)  # beyond its range a bound is no limit
            bound = jnp.clip(bound, max(held.min, given.min), min(held.max, given.max)).astype(value.dtype)
        return _placed(bound, value, ctx).astype(value.dtype)


def clamp(low: Numbers | None = None, high: Numbers | None = None) -> Intervention:
    """Limits values to `[low, high]`; None is no limit. To set a feature to a value, use `at(replace(v), feature=i)`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.clamp(high=0.5)})(jnp.ones(2)).tolist()
      [0.5, 0.5]
    """
    return _Clamp(*(None if bound is None else _array("clamp", bound) for bound in (low, high)))


@pytree(data=("key", "scale"))
class _Noise(Intervention):
    smooth = True  # type: ignore[assignment]
    key: Any
    scale: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        if ctx.open_ended:
            raise ValueError(
                f"noise: site {ctx.name!r} would get another draw with each new token: add(vector) instead"
            )
        check_kind(self.scale, value, ctx)
        key = jax.random.fold_in(self.key, zlib.crc32(ctx.name.encode()))
        for i in ctx.index:
            key = jax.random.fold_in(key, i)
        drawn = fill(jax.random.normal(key, value.shape, _wide(value).dtype), value)
        return _combine(value, drawn * _placed(self.scale, value, ctx).astype(drawn.dtype), ctx, operator.add)


def noise(key: Key[Array, ""], scale: Numbers = 1.0) -> Intervention:
    """Adds Gaussian noise of standard deviation `scale`, another draw at each site and layer: causal tracing (ROME).

    Args:
      key: a `jax.random.key`. Under `vmap` every example gets the same draw: map over keys for others.
      scale: anything that broadcasts to the value.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> noisy = ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.noise(jax.random.key(0), 3.0)})
      >>> noisy(jnp.zeros(2)).shape
      (2,)
    """
    return _Noise(_key(key), _array("noise", scale))
