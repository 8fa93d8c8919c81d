"""Interventions made of others, or of a function: chain, per_layer, via."""

from collections.abc import Callable, Mapping
from functools import partial
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from interp_jax.core import Context, Function, Intervention, Module, as_intervention, check, check_uniform, is_leaf
from interp_jax.interventions.registration import Wrapper, pytree


@pytree(data=("edits",))
class _Chain(Intervention):
    edits: Any

    @property
    def layers(self) -> frozenset[int] | None:  # type: ignore[override]
        each = [edit.layers for edit in self.edits]
        return None if None in each or not each else frozenset().union(*each)  # type: ignore[arg-type]

    @property
    def since(self) -> int:  # type: ignore[override]
        return min((edit.since for edit in self.edits), default=0)

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset().union(*(edit.reads for edit in self.edits))

    @property
    def positions(self) -> tuple[Any, ...]:  # type: ignore[override]
        return tuple(index for edit in self.edits for index in edit.positions)

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        return all(edit.smooth for edit in self.edits)

    def __call__(self, value: Array, ctx: Context) -> Array:
        for edit in self.edits:
            value = check(edit(value, ctx), value, ctx.name)
        return value


def chain(*edits: Any) -> Intervention:
    """Interventions one after another, as `optax.chain`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import add, chain, scale
      >>> ij.intervene(lambda x: ij.site(x, "x"), {"x": chain(add(1.0), scale(3.0))})(jnp.ones(2)).tolist()
      [6.0, 6.0]
    """
    return _Chain(tuple(as_intervention(edit) for edit in edits))


@pytree(data=("edit",))
class _PerLayer(Wrapper):
    def __call__(self, value: Array, ctx: Context) -> Array:
        if not ctx.index:
            raise ValueError(f"per_layer: site {ctx.name!r} stands in no loop over layers")
        here = jax.tree.map(partial(_of_layer, ctx=ctx), self.edit)
        return here(value, ctx)


def _of_layer(leaf: Array, ctx: Context) -> Array:
    if not jnp.shape(leaf) or jnp.shape(leaf)[0] != ctx.stack[-1]:
        raise ValueError(
            f"per_layer: site {ctx.name!r} has {ctx.stack[-1]} layers, and an array of its edit has shape "
            f"{jnp.shape(leaf)}: its first axis must be the layers"
        )
    return jax.lax.dynamic_index_in_dim(jnp.asarray(leaf), ctx.index[-1], 0, keepdims=False)


def per_layer(edit: Any) -> Intervention:
    """An intervention whose arrays all have a leading layer axis: each layer takes its own part.

    Args:
      edit: an intervention with arrays `[layer ...]`, such as `add(vectors)` with vectors `[layer d_model]`.

    Raises:
      ValueError: (when applied) at a site outside any loop over layers, or an array without the axis.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import add, per_layer
      >>> f = lambda x: ij.site(ij.site(x, "x", layer=0), "x", layer=1)
      >>> ij.intervene(f, {"x": per_layer(add(jnp.array([1.0, 10.0])))})(jnp.zeros(2)).tolist()
      [11.0, 11.0]
    """
    return _PerLayer(as_intervention(edit))


@pytree(data=("edit",), static=("sources", "named"))
class _Via(Intervention):
    edit: Any  # the function as an intervention, which is how plain functions travel
    sources: tuple[tuple[str, str], ...]
    named: bool

    def arguments(self) -> dict[str, Any]:
        return {"sources": dict(self.sources), "fn": self.edit.fn}

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset(address for _, address in self.sources)

    def __call__(self, value: Array, ctx: Context) -> Array:
        fn, keys = self.edit.fn, [key for key, _ in self.sources]

        def run(value: Array, *reads: Array) -> Any:
            values = dict(zip(keys, reads, strict=True))
            return fn(value, **values) if self.named else fn(value, values)

        reads = [ctx.reads[address] for _, address in self.sources]
        check_uniform(run, (value, *reads), ctx)
        return run(value, *reads)


def via(sources: Mapping[str, str], fn: Callable[..., Array]) -> Intervention:
    """An edit that also sees values of sites met earlier, in this layer or an earlier one: transcoders.

    Args:
      sources: key -> address. An address without a number means the same layer.
      fn: a function, or a callable pytree, called as `fn(value, **values)` where it takes the keys as keywords, as in
        `via({"x": "blocks.mlp_in"}, lambda out, x: ...)`; otherwise as `fn(value, values)` with a dictionary.

    Raises:
      ValueError: (when applied) a source is not met before the edited site.
      TypeError: `fn` can be called in neither way.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import via
      >>> f = lambda x: ij.site(ij.site(x, "in") * 5, "out")
      >>> ij.intervene(f, {"out": via({"x": "in"}, lambda out, x: out - x)})(jnp.ones(2)).tolist()
      [4.0, 4.0]
    """
    named = _accepts(fn, **dict.fromkeys(sources))
    if not named and not _accepts(fn, {}):
        raise TypeError(f"via: fn must take (value, {', '.join(sources)}) or (value, values)")
    return _Via(Function(fn) if is_leaf(fn) else Module(fn), tuple(sources.items()), named)


def _accepts(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    try:
        inspect.signature(fn).bind(None, *args, **kwargs)
    except TypeError:
        return False
    return True
