"""Training a dictionary: one pure step, its state and what it reports.

    g <- gradient of dictionary.loss without its part along the decoder rows
    dictionary <- dictionary.stepped after Adam(g) or another optimizer, rate warmed up, at the end lowered to 0

Gao et al. 2024, https://arxiv.org/abs/2406.04093, appendix A; Bricken et al. 2023, Towards Monosemanticity.
Caveat: a batch whose loss is not finite leaves the state as it was; `check` (and `train`) then raise.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
import warnings

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from interp_jax.dictionaries.activations import Batches
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.training.checking import check_batch
from interp_jax.dictionaries.training.state import TrainInfo, TrainState, at_step, each_dictionary, float32

Batch = Any  # activations `[n d_in]`, or a pair of inputs and targets for what maps one site to another


def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, TrainInfo]:
    """One step of training. Pure: `jit` it with the state donated to update in place, `vmap` it over seeds or rates.

    Args:
      state: from `TrainState.create` or the step before.
      batch: activations `[n d_in]`, float32 or bfloat16, in which the loss is computed, while parameters stay as they
        are, and moments and thresholds float32; may be sharded over `n`. A pair of inputs and targets for a
        transcoder, `[n site d_in]` for a crosscoder.

    Returns:
      `(state, info)`; where the loss is not finite, the state is the one given (see `check`).

    Raises:
      ValueError: a batch of another shape, structure or dtype than the dictionary trains on.

    Example:
      >>> import jax
      >>> from interp_jax import dictionaries
      >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
      >>> state = dictionaries.TrainState.create(dictionary, n_steps=10)
      >>> state, info = dictionaries.train_step(state, jax.random.normal(jax.random.key(1), (64, 8)))
      >>> int(state.step), float(info.l0)
      (1, 4.0)
    """
    batch = _as_arrays(batch)
    check_batch(state.dictionary, batch)
    return _train_step(state, batch)


def _as_arrays(batch: Batch) -> Batch:
    if isinstance(batch, dict):
        return {name: _as_arrays(part) for name, part in batch.items()}
    return tuple(map(jnp.asarray, batch)) if isinstance(batch, tuple) else jnp.asarray(batch)


@jax.jit
def _train_step(state: TrainState, batch: Batch) -> tuple[TrainState, TrainInfo]:
    mesh = jax.typeof(jax.tree.leaves(batch)[0]).sharding.mesh
    if jax.sharding.AxisType.Explicit not in mesh.axis_types:
        return _step(state, batch)
    # Gathers and scatters of a sharded batch are left to the compiler: with explicit axes each would need its own
    # output sharding. The state keeps the sharding that it came with.
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shardings = jax.tree.map(lambda x: jax.sharding.NamedSharding(mesh, jax.typeof(x).sharding.spec), state), replicated
    return jax.sharding.auto_axes(_step, out_sharding=shardings)(state, batch)  # pyright: ignore[reportCallIssue]


def _step(state: TrainState, batch: Batch) -> tuple[TrainState, TrainInfo]:
    context = state.context()
    x, target = batch if isinstance(batch, tuple) else (batch, batch)
    norm = jnp.mean(jnp.linalg.norm(x.astype(jnp.float32), axis=-1))
    if state.dictionary.normalization != "none":
        batch = target = state.dictionary.entering(x)

    def loss_fn(dictionary: Dictionary) -> tuple[Array, dict[str, Array]]:
        dictionary = replace(dictionary.cast(x.dtype), normalization="none")  # the batch is normalised already
        return dictionary.loss(batch, context)

    (loss, out), gradient = jax.value_and_grad(loss_fn, has_aux=True)(state.dictionary)
    with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
        gradient, parameters = float32(state.dictionary.tangent(gradient)), float32(state.dictionary)
        updates, opt_state = state.optimizer.update(gradient, state.opt_state, parameters)
    schedule = state.hyperparameters.learning_rate
    rate: Array = jnp.ones(()) if schedule is None else -at_step(schedule, state.step)
    moved = jax.tree.map(lambda p, u: p + (rate * u).astype(p.dtype), state.dictionary, updates)
    moved = moved.stepped(out | {"step": state.step})
    gone = state.step.astype(jnp.float32)
    before = jnp.zeros(()) if state.dictionary.mean_norm is None else state.dictionary.mean_norm
    moved = replace(moved, mean_norm=(before * gone + norm) / (gone + 1))
    since = jnp.where(out["fired"], 0, state.steps_since_fired + 1)
    after = replace(state, dictionary=moved, opt_state=opt_state, steps_since_fired=since, step=state.step + 1)

    error = out["error"].astype(jnp.float32)
    x = target.reshape(error.shape).astype(jnp.float32)
    info = TrainInfo(
        step=state.step,
        loss=loss,
        fvu=jnp.sum(error**2) / jnp.sum((x - x.mean(0)) ** 2),
        l0=out["l0"],
        dead=jnp.mean(state.dead(), where=state.steps_since_fired >= 0, dtype=jnp.float32),
        aux=out["aux"],
        sparsity=out["sparsity"],
    )
    finite = jnp.isfinite(loss)
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state), info


def check(info: TrainInfo) -> None:
    """Raises FloatingPointError, naming the step, if a step was refused because its loss was not finite."""
    refused = ~np.isfinite(np.asarray(info.loss))
    if refused.any():
        step = int(jnp.max(info.step))
        runs = f" of run {', '.join(map(str, np.flatnonzero(refused)))}" if refused.ndim else ""
        raise FloatingPointError(
            f"step {step}: the loss{runs} is not finite; the batch has NaN or inf, or the learning rate is too high "
            f"(the state is that before step {step})"
        )


def train(
    state: Any,
    batches: Iterable[Batch],
    *,
    until: int | None = None,
    report: Callable[[Any, Any, Batch], None] | None = None,
    every: int = 20,
) -> Any:
    """Takes one step for each batch, until the run is over.

    Args:
      state: where to start, or a dict of states for several sites at once; its arrays stay as they are. To go on later:
        `save(path, state)`, then `load_state(path)` and `harvest(..., start=int(state.step))`.
      batches: activations `[n d_in]`, or what `train_step` takes, all of one shape; a dict where `state` is one. May
        be endless: no more are taken than the run has steps left. From `harvest` they say where they were read, and the
        dictionary remembers it as its `sites`.
      until: the step at which to pause; the end of the run by default.
      report: called with the state, the info and the batch of every `every`-th step, such as a `Monitor`.
      every: how often to look; in between nothing waits for the device.

    Returns:
      The last state. Where the batches end before the run does, a UserWarning says so.

    Raises:
      ValueError: there is no batch; batches of other sites than the dictionary's; as `train_step`.
      FloatingPointError: the loss of a step is not finite; names the step.

    Example:
      >>> import jax
      >>> from interp_jax import dictionaries
      >>> x = jax.random.normal(jax.random.key(0), (512, 8))
      >>> dictionary = dictionaries.TopK.create(jax.random.key(1), d_in=8, d_sae=32, k=4)
      >>> state = dictionaries.TrainState.create(dictionary, n_steps=5)
      >>> int(dictionaries.train(state, dictionaries.shuffled(x, batch_size=64)).step)
      5
    """

    def look(state: Any, info: Any, batch: Batch) -> None:
        for one in jax.tree.leaves(info, is_leaf=lambda node: isinstance(node, TrainInfo)):
            check(one)
        if report is not None:
            report(state, info, batch)

    # The steps give up their arrays, and those given here may be somebody else's.
    state = placed(jax.tree.map(jnp.copy, state), batches)
    return run(_step_of_each, state, batches, look, every, until)


def run(
    step: Callable[[Any, Batch], tuple[Any, Any]],
    state: Any,
    batches: Iterable[Batch],
    look: Callable[[Any, Any, Batch], None],
    every: int,
    until: int | None = None,
) -> Any:
    """The loop of `train`, over any step from states and a batch to states and infos, which `look` looks at."""
    states = jax.tree.leaves(state, is_leaf=_is_state)
    n_left = max(int(jnp.max(one.hyperparameters.n_steps - one.step)) for one in states)
    if until is not None:
        n_left = min(n_left, max(until - int(jnp.max(one.step)) for one in states))
    i, info, batch = 0, None, None
    for i, batch in zip(range(1, n_left + 1), batches, strict=False):
        state, info = step(state, _as_arrays(batch))
        if i % every == 0 or i == n_left:
            look(state, info, batch)
    if i == 0 and n_left > 0:
        raise ValueError("train: there is no batch; give activations")
    if i % every and i != n_left:
        look(state, info, batch)
    if i < n_left:
        warnings.warn(
            f"train: the batches ended after {i} of {n_left} steps, before the rate was lowered; give more, such as "
            "harvest(...) without epochs, or a smaller n_steps",
            stacklevel=3,
        )
    return state


def placed(state: Any, batches: Iterable[Batch]) -> Any:
    """The states, whose dictionaries know from now on where the batches were read.

    Raises:
      ValueError: a dictionary was trained at other sites.
    """
    if not isinstance(batches, Batches) or batches.where is None:
        return state
    if not _is_state(state):
        return {name: _placed(one, batches.where[name]) for name, one in state.items()}
    return _placed(state, batches.where)


def _placed(state: TrainState, where: Any) -> TrainState:
    where, known = tuple(where) if isinstance(where, list) else where, state.dictionary.sites
    if known not in (None, where):
        raise ValueError(f"train: a dictionary trained at {known!r}, and batches of {where!r}; harvest its own sites")
    return each_dictionary(lambda dictionary: replace(dictionary, sites=where), state)


def _train_step_of_each(states: Any, batch: Any) -> tuple[Any, Any]:
    if _is_state(states):
        return train_step(states, batch)
    if not isinstance(batch, dict) or set(states) - set(batch):
        raise ValueError(f"train: states of {', '.join(states)} want a dict with a batch for each of them")
    steps = {name: train_step(state, batch[name]) for name, state in states.items()}
    return {name: step[0] for name, step in steps.items()}, {name: step[1] for name, step in steps.items()}


_step_of_each = jax.jit(_train_step_of_each, donate_argnums=0)


def _is_state(node: Any) -> bool:
    return isinstance(node, TrainState)
