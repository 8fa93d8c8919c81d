"""Many dictionaries of one kind trained together: one program, one compilation, one pass over the activations.

Seeds and hyperparameters are arrays already. Widths: the narrower are padded with features that are zero, get no
gradient, and are never called dead. k: the largest is compiled, and each dictionary keeps its own number of it.
Caveat: each gives what it gives alone, up to the order in which floating point adds.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.kinds.past import is_static
from interp_jax.dictionaries.training.state import ABSENT, TrainInfo, TrainState, each_dictionary
from interp_jax.dictionaries.training.steps import check, placed, run, train_step


def train_many(
    states: Sequence[TrainState],
    batches: Iterable[Any],
    *,
    chunk: int | None = None,
    until: int | None = None,
    report: Callable[[Sequence[TrainState], TrainInfo, Any], None] | None = None,
    every: int = 20,
) -> list[TrainState]:
    """Takes one step of every run for each batch, by `vmap`, until the longest run is over.

    Args:
      states: from `TrainState.create`, of dictionaries of one kind; seeds, widths, k and hyperparameters may differ.
      batches: activations `[n d_in]`, or what `train_step` takes, all of one shape; every run sees each of them.
      chunk: how many runs one call of the compiled program steps; by default all of them on an accelerator, and one
        on a CPU, whose caches hold one.
      until: the step at which to pause; the end of the longest run by default.
      report: as `train`'s, with the list of states, and infos with a leading axis of runs.
      every: how often to look.

    Returns:
      The last states, in their order and of their own widths.

    Raises:
      ValueError: the dictionaries are of different kinds, or differ in what one program cannot hold; it is named.
      FloatingPointError: the loss of a run is not finite; names the step and the runs.

    Example:
      >>> import jax
      >>> from interp_jax import dictionaries
      >>> x = jax.random.normal(jax.random.key(0), (512, 8))
      >>> runs = [
      ...     dictionaries.TrainState.create(dictionaries.TopK.create(jax.random.key(1), 8, d_sae, k), n_steps=5)
      ...     for d_sae, k in [(16, 2), (32, 4)]
      ... ]
      >>> runs = dictionaries.train_many(runs, dictionaries.shuffled(x, 64))
      >>> [(run.dictionary.d_sae, run.dictionary.k, int(run.step)) for run in runs]
      [(16, 2, 5), (32, 4, 5)]
    """
    if not states:
        return []
    states = [placed(state, batches) for state in states]
    size = chunk or (1 if jax.default_backend() == "cpu" else len(states))
    program = _step_of_one if size == 1 else _step_of_all

    def step(chunks: tuple, batch: Any) -> tuple[tuple, tuple]:
        stepped = [program(chunk, batch) for chunk in chunks]
        return tuple(state for state, _ in stepped), tuple(info for _, info in stepped)

    def member(chunks: tuple, i: int) -> Any:
        return chunks[i] if size == 1 else jax.tree.map(lambda leaf: leaf[i % size], chunks[i // size])

    def taken(chunks: tuple) -> list[TrainState]:
        return [_as_alone(member(chunks, i), state) for i, state in enumerate(states)]

    def look(chunks: tuple, infos: tuple, batch: Any) -> None:
        info = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(member(infos, i) for i in range(len(states))))
        check(info)
        if report is not None:
            report(taken(chunks), info, batch)

    return taken(run(step, _chunks(states, size), batches, look, every, until))


# One of each for the process: a second sweep of the same shapes compiles nothing.
_step_of_one = jax.jit(train_step, donate_argnums=0)
_step_of_all = jax.jit(jax.vmap(train_step, in_axes=(0, None)), donate_argnums=0)


def _chunks(states: Sequence[TrainState], size: int) -> tuple[TrainState, ...]:
    """The states stacked, `size` at a time where that is more than one, and all of one shape.

    The last chunk is filled up with its last state.
    """
    _check(states)
    if len({tuple(_counts(state.dictionary).items()) for state in states}) > 1:
        states = _bounded(states)
    names = [jax.tree_util.keystr(path[:1], simple=True) for path, _ in jax.tree.leaves_with_path(states[0])]
    absent = [ABSENT if name == "steps_since_fired" else 0 for name in names]
    filled = [*states, *[states[-1]] * (-len(states) % size)]
    columns = zip(*(jax.tree.leaves(state) for state in filled), strict=True)
    padded = [_padded(arrays, fill) for arrays, fill in zip(columns, absent, strict=True)]
    build = partial(jax.tree.unflatten, jax.tree.structure(states[0]))
    if size == 1:
        return tuple(build([jnp.copy(a) for a in leaves]) for leaves in zip(*padded, strict=True))
    return tuple(build([jnp.stack(arrays[at : at + size]) for arrays in padded]) for at in range(0, len(filled), size))


def _counts(dictionary: Dictionary) -> dict[str, int]:
    """Its static numbers of active features, by name."""
    return dictionary.fields_named(*dictionary.counts)


def _padded(arrays: Sequence[jax.Array], fill: int) -> list[jax.Array]:
    shape = [max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True)]
    widths = [[(0, n - m, 0) for n, m in zip(shape, a.shape, strict=True)] for a in arrays]
    return [lax.pad(a, jnp.asarray(fill, a.dtype), w) for a, w in zip(arrays, widths, strict=True)]


def _as_alone(one: TrainState, alone: TrainState) -> TrainState:
    """A run's state, cut to the shapes and given the k that it has alone."""
    if own := _counts(alone.dictionary):
        fields = own | alone.dictionary.fields_named("limit")
        one = each_dictionary(lambda dictionary: replace(dictionary, **fields), one)
    cut = [a[tuple(map(slice, b.shape))] for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(alone), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(alone), cut)


def _bounded(states: Sequence[TrainState]) -> list[TrainState]:
    """The states with the largest k of all as their bound, and their own as the limit."""
    each = [_counts(state.dictionary) for state in states]
    bounds = {name: max(counts[name] for counts in each) for name in each[0]}
    bounded = []
    for state, counts in zip(states, each, strict=True):
        own = jnp.float32(next(iter(counts.values())))
        fields = bounds | {"limit": jnp.zeros(())}  # which has no gradient, and no moments
        state = each_dictionary(lambda dictionary, fields=fields: replace(dictionary, **fields), state)
        bounded.append(replace(state, dictionary=replace(state.dictionary, limit=own)))
    return bounded


def _check(states: Sequence[TrainState]) -> None:
    made = [state.dictionary for state in states]
    if len(kinds := sorted({type(dictionary).__name__ for dictionary in made})) > 1:
        raise ValueError(f"train_many: dictionaries of the kinds {', '.join(kinds)}; train each kind by itself")
    static = [field.name for field in dataclasses.fields(made[0]) if is_static(field)]
    same = ["d_in", *(name for name in static if name not in made[0].counts)]
    different = [name for name in same if len({getattr(dictionary, name) for dictionary in made}) > 1]
    for name in made[0].counts[1:]:  # no limit keeps to these; one that is d_sae is all of them, as any larger one is
        each = [(dictionary.d_sae, _counts(dictionary)[name]) for dictionary in made]
        different += [name] * any(
            count not in (max(each_count for _, each_count in each), d_sae) for d_sae, count in each
        )
    if not made[0].pads:
        columns = zip(*(jax.tree.leaves_with_path(dictionary) for dictionary in made), strict=True)
        apart = [column[0][0] for column in columns if len({array.shape for _, array in column}) > 1]
        different += [jax.tree_util.keystr(path, simple=True) for path in apart]
    if len({(jax.tree.structure(state.hyperparameters), state.optimizer) for state in states}) > 1:
        different.append("optimizer or schedule")
    if different:
        may = "k and d_sae" if made[0].pads else "k"
        raise ValueError(f"train_many: dictionaries that differ in {', '.join(different)}; only {may} may")
