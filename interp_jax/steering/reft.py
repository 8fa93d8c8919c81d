"""Representation finetuning: edits of one layer that are trained by the loss of the text that comes out.

    LoReFT:   h + s R^T (W h + b - R h)                      R [rank d_model] with orthonormal rows
    ReFT-r1:  a_i = ReLU(h_i . w),   |w| = 1                 what it detects at token i
              h_i + (1/k) |TopK(a)|_1 w                      while it is trained, the k largest over the text's tokens
              h_i + s w                                      when it steers

Wu et al. 2024, "ReFT: representation finetuning for language models", arXiv:2404.03592 (LoReFT); Wu et al. 2025,
"AxBench", arXiv:2501.17148 (ReFT-r1, whose detector has no bias; s is a factor times the largest a on texts that have
the concept). `steering.train` trains both.
Caveat: a trained edit may reach a text's words by any way; that ReFT-r1's direction means the concept is only as true
as its detection of texts that were held out.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Bool, Float, Key
import numpy as np

from interp_jax.core import Context, Intervention, check_kind, fill
from interp_jax.interventions import at
from interp_jax.interventions.registration import pytree
from interp_jax.steering.vector import SteeringVector

Array = jax.Array
Activations = Float[Typed, "*batch position d_model"]
Mask = Bool[Typed, "*batch position"]


@partial(jax.tree_util.register_dataclass, data_fields=["R", "W", "b"], meta_fields=["site"])
@dataclass(frozen=True, repr=False)
class LoReFT(Intervention):
    """Low-rank linear subspace ReFT. It is a pytree, and an intervention: the edit as it was trained.

    Attributes:
      R: float32 `[rank d_model]` with orthonormal rows, the subspace.
      W: float32 `[rank d_model]`, what is read for it.
      b: float32 `[rank]`.
      site: address of the site, of one layer, such as "blocks.2.resid_post".

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import models, steering
      >>> model, _ = models.load("microworld")
      >>> reft = steering.LoReFT.create(jax.random.key(0), "blocks.2.resid_post", 128, rank=4)
      >>> edits = {reft.site: reft.edit(0.5, position="prompt")}
      >>> models.generate(model, jnp.array([[1, 5, 9]]), 4, edits=edits).shape
      (1, 7)
    """

    R: Any
    W: Any
    b: Any
    site: str

    smooth = True  # type: ignore[assignment]
    layers = None  # of which each would be steered by itself

    @classmethod
    def create(cls, key: Key[Typed, ""], site: str, d_model: int, rank: int = 4) -> "LoReFT":
        """One that is not trained yet, and changes what a random subspace holds.

        Args:
          key: a `jax.random.key`.
          site: address of the site.
          d_model: width of the site.
          rank: dimension of the subspace.

        Raises:
          ValueError: a rank that is not between 1 and `d_model`.
        """
        if not 1 <= rank <= d_model:
            raise ValueError(f"LoReFT: rank={rank} of a site of width {d_model}: give 1 to {d_model}")
        keys = jax.random.split(key)
        rows, read = (jax.random.normal(one, (rank, d_model)) / d_model**0.5 for one in keys)
        return cls(_orthonormal(rows), read, jnp.zeros(rank), site)

    def __repr__(self) -> str:
        return self.told()

    def __call__(self, value: Array, ctx: Context) -> Array:
        return self.edit()(value, ctx)

    def edit(self, strength: Any = 1.0, *, position: Any = None) -> Intervention:
        """The intervention: the trained change, times a strength.

        Args:
          strength: one number, which may be traced; 1 as it was trained, 0 nothing.
          position: as in `interventions.at`; None: everywhere.

        Raises:
          ValueError: a strength that is no finite number; (when applied) a site of another width.
        """
        edit = _Low(self.R, self.W, self.b, _number(strength))
        return edit if position is None else at(edit, position=position)

    def constrained(self) -> "LoReFT":
        """The same with orthonormal rows of `R`, which training takes after each step."""
        return replace(self, R=_orthonormal(self.R))

    def penalty(self, x: Activations, mask: Mask) -> Float[Typed, ""]:
        """What training adds to the loss: nothing."""
        return jnp.zeros(())


@pytree(data=("R", "W", "b", "strength"))
class _Low(Intervention):
    smooth = True  # type: ignore[assignment]
    R: Any
    W: Any
    b: Any
    strength: Any

    def look(self, value: Array, ctx: Context) -> None:
        _check_width("LoReFT", self.R, value, ctx)

    def __call__(self, value: Array, ctx: Context) -> Array:
        self.look(value, ctx)
        x, exact = value.astype(jnp.float32), partial(jnp.einsum, precision="highest")
        change = exact("...d,rd->...r", x, self.W - self.R) + self.b
        return fill(x + self.strength * exact("...r,rd->...d", change, self.R), value).astype(value.dtype)


@partial(jax.tree_util.register_dataclass, data_fields=["w"], meta_fields=["site", "k", "l1"])
@dataclass(frozen=True, repr=False)
class ReFTr1(Intervention):
    """Rank-1 ReFT: one direction that detects a concept and steers towards it.

    It is a pytree, and an intervention: the edit by which it is trained, which needs the whole text and so cannot be
    used while one is generated; `edit` steers.

    Attributes:
      w: float32 `[d_model]` of unit norm.
      site: address of the site, of one layer, such as "blocks.2.resid_post".
      k: how many tokens tell how strongly a text has the concept.
      l1: weight of the penalty on what the other tokens have.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import models, steering
      >>> model, _ = models.load("microworld")
      >>> reft = steering.ReFTr1.create(jax.random.key(0), "blocks.2.resid_post", 128)
      >>> _, acts = ij.capture(models.forward, reft.site)(model, jnp.array([[1, 5, 9]]))
      >>> reft.detect(acts[reft.site]).shape
      (1, 3)
      >>> models.generate(model, jnp.array([[1, 5, 9]]), 4, edits={reft.site: reft.edit(2.0)}).shape
      (1, 7)
    """

    w: Any
    site: str
    k: int = 8
    l1: float = 5e-3

    layers = None  # of which each would be steered by itself

    @classmethod
    def create(cls, key: Key[Typed, ""], site: str, d_model: int, *, k: int = 8, l1: float = 5e-3) -> "ReFTr1":
        """One of a random direction, not trained yet.

        Args:
          key: a `jax.random.key`.
          site, k, l1: as the attributes.
          d_model: width of the site.

        Raises:
          ValueError: `k` below 1, a negative `l1`.
        """
        if k < 1 or not l1 >= 0:
            raise ValueError(f"ReFTr1: k={k}, l1={l1:g}: give a k of 1 or more, and an l1 of 0 or more")
        return cls(jax.random.normal(key, (d_model,)), site, k, l1).constrained()

    def __repr__(self) -> str:
        return self.told()

    def detect(self, x: Float[Typed, "*batch d_model"]) -> Float[Typed, "*batch"]:
        """How strongly each value has the concept, float32, 0 or more."""
        return jax.nn.relu(jnp.einsum("...d,d->...", x.astype(jnp.float32), self.w, precision="highest"))

    def edit(self, strength: Any = 1.0, *, form: str = "add", position: Any = None) -> Intervention:
        """The intervention that steers: a `SteeringVector`'s along `w`, whose `edit` takes the same."""
        return SteeringVector.create(self.w, self.site).edit(strength, form=form, position=position)

    def look(self, value: Array, ctx: Context) -> None:
        _check_width("ReFTr1", self.w, value, ctx)
        if ctx.open_ended:
            raise ValueError(
                f"ReFTr1: at site {ctx.name!r}: as it is trained it needs the whole text, not one that is generated: "
                "steer by reft.edit(strength)"
            )

    def __call__(self, value: Array, ctx: Context) -> Array:
        self.look(value, ctx)
        x, real = value.astype(jnp.float32), ctx.real(value)
        a = jnp.moveaxis(self.detect(x), ctx.axis("position") + 1, -1)
        if real is not None:
            a = jnp.where(jnp.moveaxis(real[..., 0], ctx.axis("position") + 1, -1), a, 0)
        size = self._largest(a).sum(-1) / self.k
        return fill(x + size[..., None, None] * self.w, value).astype(value.dtype)

    def constrained(self) -> "ReFTr1":
        """The same at unit norm, which training takes after each step."""
        return replace(self, w=self.w / jnp.linalg.norm(self.w))

    def penalty(self, x: Activations, mask: Mask) -> Float[Typed, ""]:
        """What training adds to the loss: `l1` times the mean over texts of what is not in the top k, a real token.

        Args:
          x: activations before the edit, `[*text position d_model]`.
          mask: `[*text position]`, True at real tokens.
        """
        a = jnp.where(mask, self.detect(x), 0)
        n = jnp.maximum(mask.sum(-1), 1).astype(jnp.float32)
        return self.l1 * ((a.sum(-1) - self._largest(a).sum(-1)) / n).mean()

    def _largest(self, a: Array) -> Array:
        return jax.lax.top_k(a, min(self.k, a.shape[-1]))[0]


def _orthonormal(rows: Array) -> Array:
    """Rows made orthonormal one after the other (Gram and Schmidt, twice: once is not enough in float32).

    A LAPACK factorisation would not be mapped over seeds on a CPU.
    """

    def one(done: Array, given: tuple[Array, Array]) -> tuple[Array, None]:
        i, row = given
        for _ in range(2):
            row = row - jnp.einsum("kd,k->d", done, jnp.einsum("kd,d->k", done, row, precision="highest"))
        return done.at[i].set(row / jnp.linalg.norm(row)), None

    return jax.lax.scan(one, jnp.zeros_like(rows), (jnp.arange(len(rows)), rows))[0]


def _check_width(name: str, weights: Any, value: Array, ctx: Context) -> None:
    check_kind(weights, value, ctx)
    if not value.ndim or value.shape[-1] != weights.shape[-1]:
        raise ValueError(
            f"{name}: of width {weights.shape[-1]} at site {ctx.name!r}, whose values are {list(value.shape)}: it was "
            "made at another site or of another model"
        )


def _number(strength: Any) -> Array:
    known = not isinstance(strength, jax.core.Tracer | jax.ShapeDtypeStruct)
    if np.ndim(strength) or (known and not np.isfinite(np.asarray(strength, np.float64))):
        raise ValueError(
            f"steering: a strength of {strength}: give one finite number, and map over several by jax.vmap"
        )
    return jnp.asarray(strength, jnp.float32)
