"""How a transformed function is called: by a program that was traced before, as long as it is what is asked for.

An eager call is read (`reading`): its arrays, and those that its functions close over, are the arguments of a program,
and by all else the program is remembered. So another vector, a global that was rebound, a lambda that was built again
are no other compilation, and what cannot be an argument makes another program. A call with tracers is evaluated in
place.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
import threading
from types import MethodType
from typing import Any, NamedTuple

import jax
import jax.core
import numpy as np

from interp_jax.core.jaxprs import calls_back
from interp_jax.core.kinds import Lift, Readable
from interp_jax.core.log import evaluating, is_listened_to
from interp_jax.core.memory import Memory
from interp_jax.core.reading import Reading
from interp_jax.core.rebuilding import NotLifted, Rebuilding, lost_state

_programs, _traces = Memory(), Memory()


class Transformed(Readable):
    """What `transform` returns."""

    def __init__(self, run: Callable[..., Any], options: Hashable, arrays: Any, like: Callable[..., Any] | None):
        self._run, self._options, self._arrays = run, options, arrays
        self.__name__ = _name(like or run)
        self.__doc__ = (like or run).__doc__
        if like is not None:
            self.__wrapped__ = like  # where jax.jit looks for the parameters that static_argnames names

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with jax.disable_jit(False):  # an unrolled scan has no layers
            return _call(self._options, (self._run, self._arrays, args, kwargs))

    def label(self) -> Hashable:
        return self._options

    def parts(self) -> Any:
        return self._run, self._arrays

    def remade(self, parts: Any) -> "Transformed":
        return Transformed(parts[0], self._options, parts[1], getattr(self, "__wrapped__", None))


def transform(
    run: Callable[..., Any], options: Hashable, arrays: Any, *, like: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """A function that is compiled once and held: how a method is written.

    A call `g(*args, **kwargs)` is `run(options, arrays, *args, **kwargs)` under one `jax.jit`, which is found again by
    what it was compiled with. Its arguments are the arrays of the call and of `arrays`, and those that the functions in
    both close over or name as globals: other arrays there are no other compilation, and everything else is looked at
    anew in each call. Inside another transform of jax the call is evaluated in place.

    Args:
      run: a function of `options`, `arrays` and what `g` is called with.
      options: a hashable value: a string, a number, a tuple of these.
      arrays: a pytree of arrays, interventions and functions, such as the function that the method is about.
      like: a function whose parameters `g` has.

    Returns:
      `g(*args, **kwargs) -> what run returns`, a pytree of arrays of any shape.

    Raises:
      TypeError: `options` cannot be hashed, or an array is where a function must be.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> def _along(address, arrays, *args):
      ...     f, direction = arrays
      ...     return ij.capture(f, address, output=False)(*args)[address] @ direction
      >>> def along(f, address, direction):  # another direction is no other compilation
      ...     return ij.transform(_along, address, (f, direction))
      >>> along(lambda x: ij.site(2 * x, "double"), "double", jnp.array([1.0, 0, 0]))(jnp.ones(3)).item()
      2.0
    """
    hash(options)
    return Transformed(run, options, arrays, like)


def _name(fn: Callable[..., Any]) -> str:
    """The name of a function, or of the class of what is called."""
    return getattr(fn, "__name__", type(fn).__name__)


def unwrap(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Makes arguments of the arrays that a partial, a callable pytree or its bound method carries."""
    while True:
        if isinstance(f, partial):
            f, args, kwargs = f.func, (*f.args, *args), {**f.keywords, **kwargs}
        elif isinstance(f, MethodType) and not _is_leaf(f.__self__):
            f, args = f.__func__, (f.__self__, *args)
        elif isinstance(f, Transformed) or _is_leaf(f):
            return f, args, kwargs
        else:
            f, args = type(f).__call__, (f, *args)


def _is_leaf(x: Any) -> bool:
    return jax.tree_util.all_leaves((x,))


Allowed = range | tuple[int, ...]


class Bound(NamedTuple):
    """The leaf with this number must be one of `allowed`; `what` says of what it is an index."""

    leaf: int
    allowed: Allowed
    what: str


class _Tracing(NamedTuple):
    """A call whose program may be traced now. The program itself keeps nothing of it."""

    reading: Reading
    options: Hashable = None
    tracers: dict[int, int] | None = None  # id -> number of a leaf of the program
    bounds: dict[Bound, None] | None = None  # met while tracing


class _Tracings(threading.local):
    def __init__(self) -> None:
        self.stack: list[_Tracing] = []

    @contextmanager
    def under(self, tracing: _Tracing) -> Iterator[None]:
        self.stack.append(tracing)
        try:
            yield
        finally:
            self.stack.pop()


_tracings = _Tracings()


class _Program:
    """A held `jax.jit`. Its arguments that are indices are looked at before it runs: in it they are traced."""

    def __init__(self) -> None:
        self._jitted = jax.jit(lambda leaves: _run_traced(leaves))
        self._bounds: dict[Hashable, tuple[Bound, ...]] = {}  # by the types of the leaves

    def __call__(self, reading: Reading, options: Hashable) -> Any:
        leaves, tracing = reading.leaves, _Tracing(reading, options, {}, {})
        with _tracings.under(tracing):
            types = tuple(map(_type_of, leaves))  # other types may have other bounds
            if types not in self._bounds:
                jaxpr = self._jitted.trace(leaves).jaxpr
                if reading.lifted and calls_back(jaxpr):
                    raise NotLifted("it calls back to Python, where no tracer can go")
                self._bounds[types] = tuple(tracing.bounds or ())
            for bound in self._bounds[types]:
                _check_bound(leaves[bound.leaf], bound)
            return self._jitted(leaves)


def _type_of(leaf: Any) -> tuple[Any, ...]:
    """Shape and dtype, as a program sees them."""
    if isinstance(leaf, jax.Array):
        return leaf.shape, leaf.dtype
    return np.shape(leaf), jax.dtypes.canonicalize_dtype(jax.dtypes.result_type(leaf))


def _run_traced(leaves: Sequence[Any]) -> Any:
    """The call of the tracing with these leaves."""
    tracing = _tracings.stack[-1]
    assert tracing.tracers is not None
    tracing.tracers.update({id(leaf): number for number, leaf in enumerate(leaves)})
    try:
        rebuilt = Rebuilding(tracing.reading, leaves)
        out = _evaluate(tracing.options, rebuilt.call)
    except Exception as error:
        if tracing.reading.lifted:  # it may be for what was lifted: the last try says what is wrong
            raise NotLifted(str(error)) from error
        raise
    rebuilt.finish()
    return out


def within(index: Any, allowed: Allowed, what: str) -> None:
    """An index must be allowed: looked at now, or where it is an argument of a program, each time before that runs.

    An index that is traced by somebody else's transform is not looked at.

    Raises:
      ValueError: it is not.
    """
    bound = Bound(0, allowed, what)
    if not isinstance(index, jax.core.Tracer):
        return _check_bound(index, bound)
    for tracing in _tracings.stack:
        if tracing.tracers and tracing.bounds is not None and id(index) in tracing.tracers:
            tracing.bounds[bound._replace(leaf=tracing.tracers[id(index)])] = None


def _check_bound(index: Any, bound: Bound) -> None:
    if isinstance(index, jax.Array) and not index.is_fully_addressable:
        return
    values, allowed = np.asarray(index), bound.allowed
    if isinstance(allowed, range):
        bad = values[(values < allowed.start) | (values >= allowed.stop)]
    else:
        bad = values[~np.isin(values, allowed)]
    if bad.size:
        few = f"{allowed.start} to {allowed.stop - 1}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise ValueError(f"{bound.what}={bad.flat[0]} is out of range: it is one of {few}")


def _call(options: Hashable, call: Any) -> Any:
    reading = Reading(call)
    if reading.traced or is_listened_to():
        return _evaluate(options, call)
    way = _programs.way(options, reading)
    while True:
        if way.lift:
            reading = Reading(call, way.lift)
        program = _programs.find(options, reading)
        try:
            if program is not None:
                return program(reading, options)
            program = _Program()
            out = program(reading, options)
        except NotLifted:
            way.lift = Lift(way.lift + 1)
            continue
        _keep(_programs, options, call, reading, program, reading.anchors)
        return out


def _keep(memory: Memory, kind: Hashable, call: Any, before: Reading, made: Any, mortals: list[Any]) -> None:
    """Remembers what was made for a call, unless its functions changed meanwhile what they read."""
    after = Reading(call, before.lift)
    if (after.key, after.tokens) == (before.key, before.tokens):
        memory.keep(kind, before, made, mortals)


def _evaluate(options: Hashable, call: Any) -> Any:
    run, arrays, args, kwargs = call
    with evaluating(_name(run)):
        return run(options, arrays, *args, **kwargs)


def trace(f: Any, args: Any, kwargs: Any) -> tuple[Any, list[Any], Any]:
    """The closed jaxpr of `f(*args, **kwargs)`, its array arguments, and the structure of its output.

    Raises:
      ValueError: `f` changes an argument in place.
    """
    f, args, kwargs = unwrap(f, args, kwargs)
    call = f, args, kwargs
    reading = Reading(call, Lift.NOTHING)
    # jax keeps the jaxpr of a function that it knows: the same flat function for what was read alike.
    known = _traces.find("trace", reading)
    flat = known or (lambda *leaves: _flat(leaves))
    with _tracings.under(_Tracing(reading)), jax.disable_jit(False):
        jaxpr, shape = jax.make_jaxpr(flat, return_shape=True)(*reading.leaves)
    if not known:
        owner = f.__self__ if isinstance(f, MethodType) else f
        _keep(_traces, "trace", call, reading, flat, [*reading.anchors, owner])
    return jaxpr, reading.leaves, jax.tree.structure(shape)


def _flat(leaves: Sequence[Any]) -> Any:
    rebuilt = Rebuilding(_tracings.stack[-1].reading, leaves)
    f, args, kwargs = rebuilt.call
    try:
        out = f(*args, **kwargs)
    except Exception as error:
        if type(error).__name__ == "TraceContextError":  # flax's word for it, where f closes over the model
            raise lost_state("a model that it closes over") from error
        raise
    rebuilt.check_arguments()
    return out
