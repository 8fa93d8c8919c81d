"""Circuits as masks: which heads and MLPs are in, as arrays, so that a stack of circuits is a sweep.

`Members` is what circuits of any kind share: `faithfulness` and `completeness` take them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float, Int, Key

from interp_jax.core import Context, Intervention, SiteInfo, fill, place

HEADS, MLPS = "blocks.attn.z", "blocks.mlp_out"  # where their outputs are
M = TypeVar("M", bound="Members")


class Members:
    """What belongs to a circuit, as bool masks of any kind, whose leading axes hold several circuits.

    `&`, `|` and `~` are the intersection, the union and the complement.
    """

    @property
    def axes(self) -> tuple[int, ...]:
        """The shape of the leading axes, with one entry for each circuit."""
        raise NotImplementedError

    @property
    def sites(self) -> tuple[str, ...]:
        """The addresses of the values that ablation replaces."""
        raise NotImplementedError

    def check(self, name: str, known: Mapping[str, SiteInfo]) -> None:
        """Raises ValueError, in the name of the function that asks, where a model with these sites has other masks."""
        raise NotImplementedError

    def edits(self, values: Mapping[str, Array]) -> dict[str, Intervention]:
        """The edits that put captured `values`, by site, in the place of all that is outside one circuit."""
        raise NotImplementedError

    def random(self: "M", key: Key[Array, ""], n: int, p: float = 0.5) -> "M":
        """Draws `n` random parts of one circuit, in which each member stays with probability `p`. Masks are `[n ...]`.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import circuits
          >>> circuit = circuits.Circuit(heads=jnp.eye(2, dtype=bool), mlps=jnp.array([False, True]))
          >>> circuit.random(jax.random.key(0), 5).heads.shape
          (5, 2, 2)
        """
        masks, structure = jax.tree.flatten(self)
        keys = jax.random.split(key, len(masks))
        drawn = (jax.random.bernoulli(k, p, (n, *x.shape)) & x for k, x in zip(keys, masks, strict=True))
        return jax.tree.unflatten(structure, drawn)

    def __and__(self: "M", other: "M") -> "M":
        return jax.tree.map(jnp.logical_and, self, other)

    def __or__(self: "M", other: "M") -> "M":
        return jax.tree.map(jnp.logical_or, self, other)

    def __invert__(self: "M") -> "M":
        return jax.tree.map(jnp.logical_not, self)


@partial(jax.tree_util.register_dataclass, data_fields=["heads", "mlps"], meta_fields=[])
@dataclass(frozen=True)
class Circuit(Members):
    """Which heads and MLPs belong to a circuit, or to several, along leading axes.

    Attributes:
      heads: bool `[*circuit layer head]`.
      mlps: bool `[*circuit layer]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import circuits
      >>> circuit = circuits.Circuit(heads=jnp.eye(2, dtype=bool), mlps=jnp.array([False, True]))
      >>> circuit.size.item(), (~circuit).size.item()
      (3, 3)
    """

    heads: Any
    mlps: Any

    @classmethod
    def top(
        cls, heads: Float[Typed, "layer head"], mlps: Float[Typed, "_"], n: int | Int[Typed, "*circuit"]
    ) -> "Circuit":
        """The circuit of the `n` components of the largest scores. Sizes `[*circuit]` give a stack of nested circuits.

        Args:
          heads: `[layer head]`, scores such as those of `attribution_patch`; their `jnp.abs` to ignore signs.
          mlps: `[layer]`, scores in the same units.
          n: how many components are kept; among equal scores heads first, from the first layer on.

        Raises:
          ValueError: heads and mlps of different numbers of layers.

        Example:
          >>> import jax.numpy as jnp
          >>> from interp_jax import circuits
          >>> scores = jnp.array([[0.3, 0.1], [0.9, 0.2]]), jnp.array([0.5, 0.0])
          >>> circuits.Circuit.top(*scores, jnp.array([1, 2])).mlps.tolist()
          [[False, False], [True, False]]
        """
        if len(heads) != len(mlps):
            raise ValueError(f"Circuit.top: heads of {len(heads)} layers, mlps of {len(mlps)}")
        scores = jnp.concatenate([heads.astype(jnp.float32).ravel(), mlps.astype(jnp.float32)])
        ranks = jnp.argsort(jnp.argsort(-scores))
        kept = ranks < jnp.asarray(n)[..., None]
        return _split(kept, heads.shape)

    @property
    def size(self) -> Array:
        """How many components are in, int32 `[*circuit]`."""
        return self.heads.sum((-2, -1), dtype=jnp.int32) + self.mlps.sum(-1, dtype=jnp.int32)

    def singles(self) -> "Circuit":
        """Every component by itself, in the circuit or not, `[component ...]`: heads first, layer by layer."""
        shape = self.heads.shape[-2:]
        return _split(jnp.eye(shape[0] * shape[1] + shape[0], dtype=bool), shape)

    def check(self, name: str, known: Mapping[str, SiteInfo]) -> None:
        for mask, site in ((self.heads, HEADS), (self.mlps, MLPS)):
            if site not in known:
                raise ValueError(f"{name}: the model has no site {site!r}, where its circuits are cut")
            info = known[site]
            wanted = [len(info.layers or ()), *([info.size("head")] if site == HEADS else [])]
            got, kind = list(jnp.shape(mask)), "heads" if site == HEADS else "mlps"
            if got[len(got) - len(wanted) :] != wanted or not jnp.issubdtype(jnp.result_type(mask), jnp.bool_):
                raise ValueError(
                    f"{name}: circuit.{kind} is {jnp.result_type(mask)}{got}, the model wants bool{wanted}"
                )
        if jnp.shape(self.heads)[:-2] != jnp.shape(self.mlps)[:-1]:
            raise ValueError(f"{name}: circuit.heads and circuit.mlps have different leading axes")

    @property
    def axes(self) -> tuple[int, ...]:
        return jnp.shape(self.mlps)[:-1]

    @property
    def sites(self) -> tuple[str, ...]:
        return HEADS, MLPS

    def edits(self, values: Mapping[str, Array]) -> dict[str, Intervention]:
        return {HEADS: Outside(values[HEADS], self.heads), MLPS: Outside(values[MLPS], self.mlps)}


def _split(flat: Array, shape: tuple[int, ...]) -> Circuit:
    """Splits masks `[*circuit component]` into heads, of `shape`, and MLPs."""
    n = shape[0] * shape[1]
    return Circuit(flat[..., :n].reshape(*flat.shape[:-1], *shape), flat[..., n:])


@partial(jax.tree_util.register_dataclass, data_fields=["values", "kept"], meta_fields=[])
@dataclass(frozen=True)
class Outside(Intervention):
    """Puts `values` where `kept`, bool `[layer]` or `[layer head]`, is False."""

    values: Any
    kept: Any

    def __call__(self, value: Array, ctx: Context) -> Array:
        kept = jax.lax.dynamic_index_in_dim(self.kept, ctx.index[-1], 0, keepdims=False)
        if kept.ndim:
            kept = ctx.spread(kept, "head", value)
        return jnp.where(fill(kept, value), value, place(self.values, value, ctx).astype(value.dtype))
