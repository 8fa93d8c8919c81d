"""Interventions on a value: add, replace, zero, mean_ablate, scale, project_out, clamp, noise."""

from collections.abc import Callable
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key, Num

from interp_jax.core import Context, Intervention, place
from interp_jax.interventions.registration import pytree


def _wide(x: Array) -> Array:
    """At least float32."""
    return x.astype(jnp.float32) if x.dtype in (jnp.bfloat16, jnp.float16) else x


def _combine(value: Array, other: Array, fn: Callable[[Array, Array], Array]) -> Array:
    wide = _wide(value)
    return fn(wide, other.astype(wide.dtype)).astype(value.dtype)


@pytree(data=("vector",))
class _Add(Intervention):
    vector: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return _combine(value, place(self.vector, value, ctx), operator.add)


def add(vector: Num[ArrayLike, "..."]) -> Intervention:
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
    return _Add(jnp.asarray(vector))


@pytree(data=("value",))
class _Replace(Intervention):
    value: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return place(self.value, value, ctx).astype(value.dtype)


def replace(value: Num[ArrayLike, "..."]) -> Intervention:
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
    return _Replace(jnp.asarray(value))


def zero() -> Intervention:
    """Puts zeros in place: zero ablation.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.zero()})(jnp.ones(2)).tolist()
      [0.0, 0.0]
    """
    return _Replace(jnp.zeros((), jnp.float32))


@pytree(data=("mean",))
class _MeanAblate(Intervention):
    mean: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        if self.mean is not None:
            return place(self.mean, value, ctx).astype(value.dtype)
        over = [ctx.axis(name) for name in ("batch", "position") if name in (ctx.axes or ())]
        if not over:
            raise ValueError(
                f"mean_ablate: site {ctx.name!r} has no batch or position axis to average over; "
                "pass the mean: mean_ablate(mean)"
            )
        return jnp.broadcast_to(_wide(value).mean(tuple(over), keepdims=True), value.shape).astype(value.dtype)


def mean_ablate(mean: Num[ArrayLike, "..."] | None = None) -> Intervention:
    """Puts a mean in place: mean ablation.

    Args:
      mean: anything that broadcasts to the value, such as the mean over a data set `[d_model]`, or one per layer,
        stacked. None: the mean over the `batch` and `position` axes of the value itself.

    Raises:
      ValueError: (when applied) without `mean`, at a site that has neither axis.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x, "x", axes=("position",))
      >>> ij.intervene(f, {"x": ij.interventions.mean_ablate()})(jnp.array([1.0, 3.0])).tolist()
      [2.0, 2.0]
    """
    return _MeanAblate(None if mean is None else jnp.asarray(mean))


@pytree(data=("factor",))
class _Scale(Intervention):
    factor: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        return _combine(value, place(self.factor, value, ctx), operator.mul)


def scale(factor: Num[ArrayLike, "..."]) -> Intervention:
    """Multiplies by a factor that broadcasts to the value.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.scale(2.0)})(jnp.ones(2)).tolist()
      [2.0, 2.0]
    """
    return _Scale(jnp.asarray(factor))


@pytree(data=("direction",))
class _ProjectOut(Intervention):
    direction: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        wide = _wide(value)
        direction = self.direction.astype(wide.dtype)
        if direction.ndim == 2 and ctx.index:
            direction = direction[ctx.index[-1]]
        if direction.ndim != 1 or direction.shape[-1] != value.shape[-1]:
            raise ValueError(
                f"project_out: site {ctx.name!r} has a last axis of {value.shape[-1]}, "
                f"the direction has shape {self.direction.shape}"
            )
        norm = jnp.linalg.norm(direction)
        unit = direction / jnp.where(norm == 0, jnp.ones_like(norm), norm)
        along = jnp.einsum("...d,d->...", wide, unit, precision=jax.lax.Precision.HIGHEST)
        return (wide - along[..., None] * unit).astype(value.dtype)


def project_out(direction: Float[ArrayLike, "*layer d"]) -> Intervention:
    """Removes the component along a direction: `x - r (r . x)` with `r` the direction at unit norm.

    Directional ablation of Arditi et al. 2024, "Refusal in language models is mediated by a single direction".

    Args:
      direction: `[d]` of any norm (a zero direction removes nothing), or one per layer `[layer d]`.

    Raises:
      ValueError: (when applied) the last axis of the site has another size.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> f = lambda x: ij.site(x, "x")
      >>> ij.intervene(f, {"x": ij.interventions.project_out(jnp.array([0.0, 2.0]))})(jnp.ones(2)).tolist()
      [1.0, 0.0]
    """
    return _ProjectOut(jnp.asarray(direction))


@pytree(data=("low", "high"))
class _Clamp(Intervention):
    low: Any
    high: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        bounds = [None if b is None else place(b, value, ctx).astype(value.dtype) for b in (self.low, self.high)]
        return jnp.clip(value, *bounds)


def clamp(low: Num[ArrayLike, "..."] | None = None, high: Num[ArrayLike, "..."] | None = None) -> Intervention:
    """Limits values to `[low, high]`; None is no limit. To set a feature to a value, use `at(replace(v), feature=i)`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.clamp(high=0.5)})(jnp.ones(2)).tolist()
      [0.5, 0.5]
    """
    return _Clamp(*(None if bound is None else jnp.asarray(bound) for bound in (low, high)))


@pytree(data=("key", "scale"))
class _Noise(Intervention):
    key: Any
    scale: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        key = self.key
        for i in ctx.index:
            key = jax.random.fold_in(key, i)
        drawn = jax.random.normal(key, value.shape, _wide(value).dtype)
        return _combine(value, drawn * place(self.scale, value, ctx).astype(drawn.dtype), operator.add)


def noise(key: Key[Array, ""], scale: Num[ArrayLike, "..."] = 1.0) -> Intervention:
    """Adds Gaussian noise of standard deviation `scale`, another draw at each layer (causal tracing, ROME 2022).

    Args:
      key: a `jax.random.key`. Under `vmap` every example gets the same draw: map over keys for others.
      scale: anything that broadcasts to the value.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> noisy = ij.intervene(lambda x: ij.site(x, "x"), {"x": ij.interventions.noise(jax.random.key(0), 3.0)})
      >>> noisy(jnp.zeros(2)).shape
      (2,)
    """
    return _Noise(key, jnp.asarray(scale))
