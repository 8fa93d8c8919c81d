"""Steering vectors: what is added to the residual stream, or held to a range along it, at some layers.

    add:         x + s v                          match_norm:  x + s |x| v / |v|
    keep_norm:   (x + s v) |x| / |x + s v|        cap:         x + u (clip(u . x, low, high) - u . x),  u = v / |v|

Rimsky et al. 2024, "Steering Llama 2 via contrastive activation addition", arXiv:2312.06681; match_norm is that of
activation oracles (arXiv:2512.15674), keep_norm that of repeng; cap: Lu et al. 2026, "The assistant axis",
arXiv:2601.10387, who hold activations above a threshold along an axis, which is `low`.
Caveat: added at several layers, a vector adds up along the residual stream: 1 at ten layers is about 10 at one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
import math
import operator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from interp_jax.core import Context, Intervention, check_kind, fill, split_address
from interp_jax.interventions import at
from interp_jax.interventions.registration import pytree

Array = jax.Array
FORMS = ("add", "match_norm", "keep_norm")


class _Along(Intervention):
    """An edit along a vector of its own at each of `layers`, or along one vector wherever the site is met."""

    vectors: Any
    layers: tuple[int, ...] | None

    def moved(self, x: Array, vector: Array, row: Any) -> Array:
        """The new value, of `x` in float32 at least and the vector of this layer, which is in a `row` of the stack."""
        raise NotImplementedError

    def confine(self, layers: frozenset[int], ctx: Context) -> frozenset[int]:
        self._check_layers(ctx)
        mine = layers if self.layers is None else layers & frozenset(self.layers)
        if not mine and layers:
            raise ValueError(
                f"steering: site {ctx.name!r} is edited at layer {', '.join(map(str, sorted(layers)))}, and the vector "
                f"has layers {self.layers}: choose one of them"
            )
        # A scan is cut at the layers named here, each a program of its own: that pays for one, not for thirty.
        return mine if self.layers is not None and len(self.layers) == 1 else layers

    def look(self, value: Array, ctx: Context) -> None:
        check_kind(self.vectors, value, ctx)
        width = self.vectors.shape[-1]
        if self.vectors.ndim != 1 + (self.layers is not None):
            raise ValueError(
                f"steering: vectors {list(self.vectors.shape)} of layers {self.layers} at site {ctx.name!r}: not a "
                "vector for each layer; each takes its own by itself, without per_layer"
            )
        if not value.ndim or value.shape[-1] != width:
            raise ValueError(
                f"steering: a vector of width {width} at site {ctx.name!r}, whose values are {list(value.shape)}: it "
                "was made at another site or of another model"
            )
        self._check_layers(ctx)

    def _check_layers(self, ctx: Context) -> None:
        others = sorted(set(self.layers or ()) - set(ctx.layers))
        if others:
            has = f"layers {ctx.layers[0]} to {ctx.layers[-1]}" if ctx.layers else "no layers"
            raise ValueError(
                f"steering: the vector has layer {others[0]}, site {ctx.name!r} has {has}: take those that are there "
                "by at_layers(...), if it is of this model"
            )

    def __call__(self, value: Array, ctx: Context) -> Array:
        self.look(value, ctx)
        x = value.astype(jnp.float32) if value.dtype.itemsize < 4 else value
        if self.layers is None:
            return self._new(x, self.vectors, (), value)
        if isinstance(ctx.layer, int):
            if ctx.layer not in self.layers:
                return value
            row: Any = self.layers.index(ctx.layer)
            return self._new(x, self.vectors[row], row, value)
        hits = jnp.asarray(self.layers) == ctx.layer
        row = hits.argmax()
        new = self._new(x, jnp.take(self.vectors, row, axis=0), row, value)
        return new if set(self.layers) == set(ctx.layers) else jnp.where(hits.any(), new, value)

    def _new(self, x: Array, vector: Array, row: Any, value: Array) -> Array:
        return fill(self.moved(x, vector.astype(x.dtype), row), value).astype(value.dtype)


@pytree(data=("vectors", "strength"), static=("layers", "form"))
class _Steer(_Along):
    vectors: Any
    strength: Any
    layers: tuple[int, ...] | None
    form: str

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        return self.form == "add"  # a norm has no derivative at 0

    def moved(self, x: Array, vector: Array, row: Any) -> Array:
        strength = jnp.asarray(self.strength).astype(x.dtype)
        if self.form == "match_norm":
            return x + strength * _norm(x) * _unit(vector)
        new = x + strength * vector
        return new if self.form == "add" else _unit(new) * _norm(x)


@pytree(data=("vectors", "low", "high"), static=("layers",))
class _Cap(_Along):
    smooth = True  # type: ignore[assignment]
    vectors: Any
    low: Any
    high: Any
    layers: tuple[int, ...] | None

    def moved(self, x: Array, vector: Array, row: Any) -> Array:
        unit = _unit(vector)
        along = jnp.einsum("...d,d->...", x, unit, precision="highest")[..., None]
        bounds = (None if b is None else (b[row] if jnp.ndim(b) else b).astype(x.dtype) for b in (self.low, self.high))
        return x + (jnp.clip(along, *bounds) - along) * unit


@partial(jax.tree_util.register_dataclass, data_fields=["vectors"], meta_fields=["site", "layers", "how", "model"])
@dataclass(frozen=True, repr=False)
class SteeringVector(Intervention):
    """A vector for each of some layers, with what it is of. It is a pytree, and an intervention that adds it.

    Attributes:
      vectors: float32 `[layer d_model]`, or `[d_model]`: the same wherever the site is met.
      site: address of the site, such as "blocks.resid_post".
      layers: the numbers of the layers of `vectors`; None where there is one vector.
      how: how it was made, in words.
      model: name of the model of which it was made; "" where that was not said.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import models, steering
      >>> model, _ = models.load("microworld")
      >>> vector = steering.SteeringVector.create(jnp.ones((4, 128)), "blocks.resid_post", model="microworld")
      >>> strong = vector.at_layers(2).edit(8.0, form="match_norm")
      >>> ij.intervene(models.forward, {vector.site: strong})(model, jnp.array([[1, 5, 9]])).shape
      (1, 3, 641)
      >>> edits = {vector.site: vector.edit(-0.5, position="generated")}
      >>> models.generate(model, jnp.array([[1, 5, 9]]), 4, edits=edits).shape
      (1, 7)
    """

    vectors: Any
    site: str
    layers: tuple[int, ...] | None
    how: str
    model: str

    @classmethod
    def create(
        cls,
        vectors: Any,
        site: str,
        *,
        layers: Sequence[int] | None = None,
        how: str = "given",
        model: str = "",
    ) -> "SteeringVector":
        """A steering vector of given numbers: a probe's `direction`, a Jacobian lens's `directions`, a decoder's row.

        Args:
          vectors: `[layer d_model]`, or `[d_model]` for the same vector wherever the site is met.
          site: address of the site.
          layers: the numbers of the layers, by default 0, 1, ... as they come.
          how, model: as the attributes.

        Raises:
          ValueError: another number of axes or layers, a layer twice, numbers that are not finite, an address of one
            layer for a stack.
        """
        vectors = jnp.asarray(vectors, jnp.float32)
        if vectors.ndim not in (1, 2) or 0 in vectors.shape:
            raise ValueError(f"steering: vectors are [layer d_model] or [d_model], not {list(vectors.shape)}")
        if vectors.ndim == 1 and layers is not None:
            raise ValueError(f"steering: layers={layers} of one vector [d_model]: give a stack [layer d_model]")
        if vectors.ndim == 2:
            if split_address(site)[1] is not None:
                raise ValueError(f"steering: {site!r} is one layer, the vectors are a stack {list(vectors.shape)}")
            layers = range(len(vectors)) if layers is None else [operator.index(layer) for layer in layers]
            if len(layers) != len(vectors) or len(set(layers)) != len(layers) or min(layers) < 0:
                raise ValueError(
                    f"steering: layers={tuple(layers)} of vectors {list(vectors.shape)}: give one number from 0 for "
                    "each, none twice"
                )
        if not isinstance(vectors, jax.core.Tracer) and not bool(jnp.isfinite(vectors).all()):
            raise ValueError(f"steering: vectors made by {how} hold numbers that are not finite")
        return cls(vectors, site, None if layers is None else tuple(layers), how, model)

    def __repr__(self) -> str:
        return self.told()

    @property
    def inner(self) -> tuple[Intervention, ...]:  # type: ignore[override]
        return (self.edit(),)

    def __call__(self, value: Array, ctx: Context) -> Array:
        return self.edit()(value, ctx)

    def at_layers(self, *layers: int) -> "SteeringVector":
        """The vector at some of its layers only.

        Raises:
          ValueError: it has no vector of one of them.
        """
        here = self.layers or ()
        others = [layer for layer in layers if layer not in here]
        if others or not layers:
            raise ValueError(f"steering: at_layers{layers}: the vector has layers {here}")
        rows = np.array([here.index(layer) for layer in layers])
        return replace(self, vectors=self.vectors[rows], layers=tuple(layers))

    def edit(self, strength: Any = 1.0, *, form: str = "add", position: Any = None) -> Intervention:
        """The intervention that steers by it, for `{vector.site: vector.edit(...)}`.

        It holds arrays only: other vectors, strengths and words about them are no other compilation.

        Args:
          strength: what the vector is multiplied by, one number, which may be traced and mapped over; a traced one is
            not looked at.
          form: "add"; "match_norm": the vector is first given the norm of the value at each position, so that the
            strength is in units of that; "keep_norm": what comes out has the norm that the value had.
          position: as in `interventions.at`: an index, or one per example; in `models.generate` "prompt" or
            "generated". None: everywhere.

        Raises:
          ValueError: an unknown form, several strengths, one that is not finite or that overflows float32; (when
            applied) a vector of another width than the site, or of layers that it has not.
        """
        if form not in FORMS:
            raise ValueError(f"steering: form={form!r} is none of {', '.join(FORMS)}; for a range use cap(low=, high=)")
        if np.ndim(strength):
            raise ValueError(
                f"steering: a strength of shape {list(np.shape(strength))}: give one number, and map over several by "
                "jax.vmap or steering.sweep"
            )
        check_strength(self.vectors, strength, form)
        return _at(_Steer(self.vectors, jnp.asarray(strength, jnp.float32), self.layers, form), position)

    def cap(self, low: Any = None, high: Any = None, *, position: Any = None) -> Intervention:
        """The intervention that holds what a value has along the vector, at unit norm, between two bounds.

        Args:
          low: a number, or one per layer of the vector `[layer]`; None is no bound. The assistant axis's is the 25th
            percentile of what the model's activations have along it.
          high: likewise.
          position: as in `edit`.

        Raises:
          ValueError: no bound, or bounds of another shape; (when applied) as `edit`.
        """
        allowed = ((),) if self.layers is None else ((), (len(self.layers),))
        given = [bound for bound in (low, high) if bound is not None]
        if not given or any(np.shape(bound) not in allowed for bound in given):
            raise ValueError(
                f"steering: cap of bounds {[list(np.shape(bound)) for bound in given]}: give low=, high= or both, a "
                f"number or one for each of the layers {self.layers}"
            )
        bounds = (None if bound is None else jnp.asarray(bound, jnp.float32) for bound in (low, high))
        return _at(_Cap(self.vectors, *bounds, self.layers), position)


def check_strength(vectors: Any, strength: Any, form: str) -> None:
    """Raises ValueError where the squared norm of what is added overflows float32, as far as the numbers are known."""
    if any(isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct) for x in (vectors, strength)):
        return
    norm = 1.0 if form == "match_norm" else float(jnp.linalg.norm(vectors, axis=-1).max())
    most = math.sqrt(float(jnp.finfo(jnp.float32).max)) / max(norm, 1e-30)
    worst = float(np.max(np.abs(np.asarray(strength, np.float64)), initial=0.0))
    if not worst < most:
        raise ValueError(
            f"steering: a strength of {worst:g} times a vector of norm {norm:.3g} overflows float32, and the model "
            f"would give NaN: give less than {most:.1e}"
        )


def _at(edit: Intervention, position: Any) -> Intervention:
    return edit if position is None else at(edit, position=position)


def _norm(x: Array) -> Array:
    return jnp.linalg.norm(x, axis=-1, keepdims=True)


def _unit(x: Array) -> Array:
    """Vectors at unit norm; those of norm 0 stay."""
    norm = _norm(x)
    return x / jnp.where(norm == 0, jnp.ones_like(norm), norm)
