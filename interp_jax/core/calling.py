"""How a transformed function is called: its arguments split into arrays and statics, its compilations remembered.

Eager calls go through one `jax.jit` per (f, transforms, structure of edits and arguments), whose arguments are the
arrays of both, so that another vector is no other compilation. The memory holds `f` weakly, since a closure may carry
a model, and its last `_KEPT` compilations. Calls with tracers are evaluated in place.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
import weakref

import jax
import jax.core
import numpy as np

from interp_jax.core.edits import is_leaf

_KEPT = 64
_memory: weakref.WeakKeyDictionary[Any, OrderedDict[Any, Any]] = weakref.WeakKeyDictionary()


class Stage(NamedTuple):
    """One transform: `run(f, options, payload, args, kwargs)`, with hashable options."""

    run: Callable[..., Any]
    options: Any


class Transformed:
    """A function under one or more transforms, innermost first. A payload holds the arrays of its transform."""

    def __init__(self, f: Callable[..., Any], stage: Stage, payload: Any):
        if not callable(f):
            raise TypeError(f"expected a function of pytrees, got {type(f).__name__}")
        inner = f if isinstance(f, Transformed) else None
        self.root: Any = inner.root if inner else f
        self.stages: tuple[Stage, ...] = (*(inner.stages if inner else ()), stage)
        self.payloads: tuple[Any, ...] = (*(inner.payloads if inner else ()), payload)
        self.__name__ = getattr(f, "__name__", type(f).__name__)
        self.__doc__ = f.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        root, args, kwargs = unwrap(self.root, args, kwargs)
        split = _Split((self.payloads, args, kwargs))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in split.arrays):
            return _run(root, self.stages, (self.payloads, args, kwargs))
        held = _remembered(root, ("call", self.stages, split.key), lambda ref: _held(ref, self.stages, split))
        return held(split.arrays)


def unwrap(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Makes arguments of the arrays that a partial, a callable pytree or its bound method carries."""
    while True:
        if isinstance(f, partial):
            f, args, kwargs = f.func, (*f.args, *args), {**f.keywords, **kwargs}
        elif isinstance(f, Transformed) or is_leaf(f):
            owner = getattr(f, "__self__", None)
            if owner is None or isinstance(f, Transformed) or isinstance(owner, type) or is_leaf(owner):
                return f, args, kwargs
            f, args = f.__func__, (owner, *args)
        else:
            f, args = type(f).__call__, (f, *args)


class _Split:
    """A pytree as arrays, and a key for all else in it."""

    def __init__(self, tree: Any):
        leaves, self.tree = jax.tree.flatten(tree)
        self.mask = tuple(map(_is_array, leaves))
        marked = list(zip(self.mask, leaves, strict=True))
        self.arrays = [leaf for is_array, leaf in marked if is_array]
        self.statics = [None if is_array else leaf for is_array, leaf in marked]
        self.key = (self.tree, self.mask, tuple((type(leaf), leaf) for leaf in self.statics))

    def join(self, arrays: Any) -> Any:
        arrays = iter(arrays)
        leaves = [next(arrays) if is_array else leaf for is_array, leaf in zip(self.mask, self.statics, strict=True)]
        return jax.tree.unflatten(self.tree, leaves)


def _is_array(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic)) or (hasattr(x, "shape") and hasattr(x, "dtype"))


def _remembered(root: Any, key: Any, make: Callable[[Callable[[], Any]], Any]) -> Any:
    """`make(reference to root)`, remembered as long as `root` lives."""
    try:
        hash(key)
        entries = _memory.setdefault(root, OrderedDict())
    except TypeError:  # something cannot be hashed or weakly held: nothing to remember it by
        return make(lambda: root)
    if key in entries:
        entries.move_to_end(key)
        return entries[key]
    reference = weakref.ref(root)
    entries[key] = make(reference)  # type: ignore[arg-type]
    if len(entries) > _KEPT:
        entries.popitem(last=False)
    return entries[key]


def _held(root: Callable[[], Any], stages: tuple[Stage, ...], split: _Split) -> Any:
    statics = _without_arrays(split)
    return jax.jit(lambda arrays: _run(root(), stages, statics.join(arrays)))


def _without_arrays(split: _Split) -> _Split:
    """What joins arrays again, without holding those of the first call."""
    bare = object.__new__(_Split)
    bare.tree, bare.statics, bare.mask, bare.key, bare.arrays = split.tree, split.statics, split.mask, split.key, []
    return bare


def _run(root: Any, stages: tuple[Stage, ...], call: Any) -> Any:
    payloads, args, kwargs = call

    def layered(level: int) -> Any:
        if level == 0:
            return root
        stage, payload = stages[level - 1], payloads[level - 1]

        def fn(*args: Any, **kwargs: Any) -> Any:
            return stage.run(layered(level - 1), stage.options, payload, args, kwargs)

        return fn

    return layered(len(stages))(*args, **kwargs)


def trace(f: Any, args: Any, kwargs: Any) -> tuple[Any, list[Any], Any]:
    """The closed jaxpr of `f(*args, **kwargs)`, its array arguments, and the structure of its output."""
    f, args, kwargs = unwrap(f, args, kwargs)
    split = _Split((args, kwargs))
    # jax keeps the jaxpr of a function that it knows: the same flat function for the same structure.
    flat = _remembered(f, ("trace", split.key), lambda ref: _flat(ref, _without_arrays(split)))
    jaxpr, shape = jax.make_jaxpr(flat, return_shape=True)(*split.arrays)
    return jaxpr, split.arrays, jax.tree.structure(shape)


def _flat(root: Callable[[], Any], split: _Split) -> Any:
    def flat(*arrays: Any) -> Any:
        args, kwargs = split.join(arrays)
        return root()(*args, **kwargs)

    return flat
