"""Interventions made of others, or of a function: chain, per_layer, via."""

from collections.abc import Callable, Mapping
from functools import partial
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from interp_jax.core import Context, Function, Intervention, Module, as_intervention, check, is_leaf
from interp_jax.interventions.registration import Wrapper, pytree


@pytree(data=("edits",))
class _Chain(Intervention):
    edits: Any

    @property
    def inner(self) -> tuple[Intervention, ...]:  # type: ignore[override]
        return tuple(self.edits)

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
        self.edit.look(value, ctx)
        return here(value, ctx)


def _of_layer(leaf: Any, ctx: Context) -> Array:
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
      TypeError: the edit, or one in it, is of a class that is not registered as a pytree.
      ValueError: (when applied) at a site outside any loop over layers, or an array without the axis.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax.interventions import add, per_layer
      >>> f = lambda x: ij.site(ij.site(x, "x", layer=0), "x", layer=1)
      >>> ij.intervene(f, {"x": per_layer(add(jnp.array([1.0, 10.0])))})(jnp.zeros(2)).tolist()
      [11.0, 11.0]
    """
    edit = as_intervention(edit)
    for leaf in jax.tree.leaves(edit):
        if isinstance(leaf, Intervention):
            raise TypeError(
                f"per_layer: a {type(leaf).__name__} is no pytree, whose arrays it could take apart: decorate the "
                "class with jax.tree_util.register_dataclass"
            )
    return _PerLayer(edit)


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
        fn = self.edit.fn

        for _, address in self.sources:
            if address not in ctx.reads:
                raise ValueError(f"via: nothing gives it {address!r} here: an edit may be a via, a reducer may not")
        values = {key: ctx.reads[address] for key, address in self.sources}
        return fn(value, **values) if self.named else fn(value, values)


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
    if not isinstance(sources, Mapping) or not all(isinstance(x, str) for pair in sources.items() for x in pair):
        raise TypeError("via: sources are a mapping of keys to addresses, all of them strings")
    if not callable(fn):
        raise TypeError(f"via: fn is a function of (value, {', '.join(sources)}), not {type(fn).__name__}")
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
