"""Sites in flax nnx models: a copy of the model whose tagged submodules declare what they return or are called with.

A tagged submodule keeps its attributes and its weights. Its class becomes a subclass with another `__call__`, so that
whoever looks into it finds what was there; the original classes and the original model stay as they are.
"""

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any

from flax import nnx
import jax
from jax.extend.core import Literal

from interp_jax.core import closed, site, subjaxprs
from interp_jax.models.tags import Path, Submodule, Tag, declare, walk


def submodules(model: nnx.Module) -> list[Submodule]:
    """Every module in the model, itself included, that can be called."""
    return [
        Submodule(path, tuple(int(part) for part in path if part.isdecimal()), node)
        for path, node in walk(model)
        if isinstance(node, nnx.Module) and callable(node)
    ]


def copied(model: nnx.Module) -> nnx.Module:
    """A copy that shares nothing but arrays. Raises ValueError where the model is no pytree."""
    for leaf in jax.tree.leaves(model):
        if isinstance(leaf, nnx.Pytree):
            raise ValueError(f"tag: {type(leaf).__name__} is no pytree (pytree=False), which jax needs: leave that out")
    return nnx.clone(model)


def put(model: nnx.Module, tags: Mapping[Path, tuple[Tag, ...]]) -> nnx.Module:
    """Puts tags at the submodules of `model`, which is changed."""
    modules = dict(walk(model))
    paths: dict[int, Path] = {}
    for path, new in tags.items():
        module = modules[path]
        if id(module) in paths:
            raise ValueError(
                f"tag: {'.'.join(path)} and {'.'.join(paths[id(module)])} are one module in two places, whose calls "
                "cannot be told apart: tag what is around it"
            )
        paths[id(module)] = path
        before = vars(module).get("site_tags", ())
        if not before:
            module.__class__ = _tagged(type(module))
        module.site_tags = (*before, *new)
    if not getattr(type(model), "keeps_no_state", False):
        model.__class__ = _pure(type(model))
    return model


@cache  # of a class there is one subclass, so that two models tagged alike are pytrees of one structure
def _tagged(cls: type) -> type:
    """`cls` with sites around its call, as its instances' `site_tags` say."""

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        for tag in self.site_tags:
            if tag.of_input:
                args, kwargs = _with_input(tag, args, kwargs)
        out = cls.__call__(self, *args, **kwargs)
        for tag in self.site_tags:
            if not tag.of_input:
                out = _declared(tag, out)
        return out

    return _subclass(cls, __call__, {})


@cache
def _pure(cls: type) -> type:
    """`cls` with a call that leaves the model as it is."""

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        copy = nnx.clone(self)
        out = cls.__call__(copy, *args, **kwargs)
        before, after = _leaves(self), _leaves(copy)
        if any(after[name] is not value for name, value in before.items()):  # or come through nnx.jit untouched
            _check_unchanged(self, lambda model: cls.__call__(model, *args, **kwargs))
        return out

    return _subclass(cls, __call__, {"keeps_no_state": True})


def _subclass(cls: type, call: Any, more: dict[str, Any]) -> type:
    same = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(cls)(cls.__name__, (cls,), {"__call__": wraps(cls.__call__)(call), **same, **more})


def _leaves(model: nnx.Module) -> dict[str, Any]:
    pairs, _ = jax.tree_util.tree_flatten_with_path(nnx.state(model))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in pairs}


def _check_unchanged(model: nnx.Module, call: Callable[[nnx.Module], Any]) -> None:
    """Raises ValueError if a call computes a new value for a variable of the model."""
    graph, state = nnx.split(model)
    names = list(_leaves(model))

    def after(state: Any) -> list[Any]:
        copy = nnx.merge(graph, state)
        call(copy)
        leaves = _leaves(copy)
        return [leaves[name] for name in names]

    sources = forwarded(jax.make_jaxpr(after)(state))
    changed = [name for i, name in enumerate(names) if sources[i] != i]
    if changed:
        raise ValueError(
            f"{type(model).__name__}: the call changes {changed[0]}, and a forward pass keeps no state: put the model "
            "in evaluation mode before tag (as with model.eval()), or pass rngs in the call"
        )


def _declared(tag: Tag, value: Any) -> Any:
    def one(x: Any, name: str) -> Any:
        axes = None if tag.axes is None else tag.axes[max(len(tag.axes) - x.ndim, 0) :]
        return site(x, name, layer=tag.layer, axes=axes)

    return declare(value, tag.name, one)


def _with_input(tag: Tag, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with the first of them declared."""
    if args:
        return (_declared(tag, args[0]), *args[1:]), kwargs
    if not kwargs:
        raise ValueError(f"site {tag.name!r} is the input of a submodule that is called without one")
    first = next(iter(kwargs))
    return args, kwargs | {first: _declared(tag, kwargs[first])}


def forwarded(jaxpr: Any) -> list[int | None]:
    """For each output, the index of the input that it is, untouched, or None. Sees through jit, remat and scan."""
    jaxpr = closed(jaxpr).jaxpr
    source = {var: i for i, var in enumerate(jaxpr.invars)}

    def origin(var: Any) -> int | None:
        return None if isinstance(var, Literal) else source.get(var)

    for eqn in jaxpr.eqns:
        inner = subjaxprs(eqn)
        if len(inner) != 1 or len(inner[0].jaxpr.invars) != len(eqn.invars):
            continue
        for var, i in zip(eqn.outvars, forwarded(inner[0]), strict=True):
            found = None if i is None or eqn.invars[i].aval != var.aval else origin(eqn.invars[i])
            if found is not None:
                source[var] = found
    return [origin(var) for var in jaxpr.outvars]
