"""The state of training, its numbers, and what one step reports."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
from jax import Array
import jax.numpy as jnp
from jax.typing import ArrayLike
import optax

from interp_jax.dictionaries.kinds.arrays import Parameter
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.kinds.losses import LossContext

if TYPE_CHECKING:
    Schedule = optax.Schedule
else:
    Schedule = Any  # a pytree that is called, in whose place jax puts what it likes when it rebuilds one

ABSENT = -(2**30)  # of `steps_since_fired`: a feature that only fills up a stack of dictionaries, see `sweeps`
ADAM = optax.scale_by_adam()  # one for the process, so that two states have the same


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ramp:
    """An optax schedule that rises linearly from 0 to its peak, and in the end falls linearly to 0.

    Its numbers are arrays `[]`, where optax's own schedules have Python's: a stack of ramps, mapped by `vmap`, is a
    sweep in one program.

    Attributes:
      peak: its largest value.
      n_warmup: steps over which it rises.
      n_decay: steps at the end over which it falls; None where it stays at its peak.
      n_steps: length of the run.
    """

    peak: Parameter
    n_warmup: Parameter
    n_decay: Parameter | None
    n_steps: Parameter

    def __call__(self, count: ArrayLike) -> Array:
        """Its value `[]` at a step `[]`."""
        count = jnp.asarray(count)
        share = (count + 1).astype(jnp.float32) / self.n_warmup
        if self.n_decay is not None:
            share = jnp.minimum(share, (self.n_steps - count).astype(jnp.float32) / self.n_decay)
        return self.peak * jnp.clip(share, 0.0, 1.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparameters:
    """Numbers of a run, as arrays `[]`: a stack of them, mapped by `vmap`, is a sweep in one program.

    Attributes:
      n_steps: length of the run.
      learning_rate: its schedule; None where the optimizer has its own.
      sparsity_coefficient: the schedule of the weight of the sparsity term.
      aux_coefficient: weight of the auxiliary loss.
      dead_after: steps without firing after which a feature is dead.
    """

    n_steps: Parameter
    learning_rate: Schedule | None
    sparsity_coefficient: Schedule
    aux_coefficient: Parameter
    dead_after: Parameter


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """What one step hands to the next.

    Attributes:
      dictionary: what is trained.
      opt_state: the optimizer's state, such as Adam's moments, float32.
      steps_since_fired: int32, one for each feature.
      step: int32 `[]`, how many steps have been taken.
      hyperparameters: the numbers of the run.
      optimizer: of optax; static.
    """

    dictionary: Dictionary
    opt_state: Any  # a pytree of the optimizer's own form
    steps_since_fired: Parameter
    step: Parameter
    hyperparameters: Hyperparameters
    optimizer: optax.GradientTransformation = field(default=ADAM, metadata={"static": True})

    @classmethod
    def create(
        cls,
        dictionary: Dictionary,
        n_steps: int,
        *,
        optimizer: optax.GradientTransformation | None = None,
        learning_rate: float | Array | Callable[[Any], Any] | None = None,
        n_warmup: int | None = None,
        n_decay: int | None = None,
        aux_coefficient: float | Array = 1 / 32,
        sparsity_coefficient: float | Array | Callable[[Any], Any] | None = None,
        n_sparsity_warmup: int | None = None,
        dead_after: int | None = None,
    ) -> "TrainState":
        """The state before the first step.

        Args:
          dictionary: from `create`, or of a kind of your own.
          n_steps: length of the run, for the schedule of the learning rate.
          optimizer: any of optax's, with its learning rate, such as `optax.lion(1e-4)`; by default Adam at
            `learning_rate`. Of a sweep all have the same one.
          learning_rate: the peak; by default the paper's law, 2e-4 / sqrt(d_sae / 2^14). Or a schedule of optax's.
          n_warmup: steps of linear warm-up, a twentieth of the run by default.
          n_decay: steps of linear decay to 0, a fifth of the run by default.
          aux_coefficient: weight of the auxiliary loss.
          sparsity_coefficient: weight of the sparsity term; by default the architecture's published one. Or a schedule
            of optax's.
          n_sparsity_warmup: steps over which that weight rises, a twentieth of the run by default.
          dead_after: steps without firing after which a feature is dead; by default a tenth of the run, at most 1000.

        Raises:
          ValueError: n_steps is not positive; a learning rate beside an optimizer, or steps of warm-up or decay beside
            a schedule, which has its own.

        Example:
          >>> import jax, optax
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
          >>> int(dictionaries.TrainState.create(dictionary, n_steps=100).step)
          0
          >>> cosine = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)
          >>> state = dictionaries.TrainState.create(dictionary, n_steps=100, learning_rate=cosine)
          >>> state = dictionaries.TrainState.create(dictionary, n_steps=100, optimizer=optax.lion(cosine))
        """
        if n_steps < 1:
            raise ValueError(f"TrainState: n_steps={n_steps} must be at least 1")
        own = {"learning_rate": learning_rate, "n_warmup": n_warmup, "n_decay": n_decay}
        beside = [name for name, value in own.items() if value is not None]
        if optimizer is not None and beside:
            raise ValueError(f"TrainState: {beside[0]} beside an optimizer, which has its own: leave one of them out")
        rate = 2e-4 / (dictionary.d_sae / 2**14) ** 0.5 if learning_rate is None else learning_rate
        sparsity = dictionary.sparsity_coefficient if sparsity_coefficient is None else sparsity_coefficient
        hyperparameters = Hyperparameters(
            n_steps=jnp.asarray(n_steps, jnp.int32),
            learning_rate=_schedule("learning_rate", rate, n_steps, n_warmup, n_decay, falls=True)
            if optimizer is None
            else None,
            sparsity_coefficient=_schedule("sparsity_coefficient", sparsity, n_steps, n_sparsity_warmup),
            aux_coefficient=jnp.asarray(aux_coefficient, jnp.float32),
            dead_after=jnp.asarray(max(1, min(1000, n_steps // 10)) if dead_after is None else dead_after, jnp.int32),
        )
        precise = {
            name: array.astype(jnp.float32) for name, array in dictionary.fields_named(*dictionary.precise).items()
        }
        dictionary = replace(dictionary, **precise, mean_norm=jnp.zeros(()))
        optimizer = ADAM if optimizer is None else optimizer
        never = jnp.zeros(dictionary.feature_shape, jnp.int32)
        moments = optimizer.init(float32(dictionary))
        return cls(dictionary, moments, never, jnp.zeros((), jnp.int32), hyperparameters, optimizer)

    def dead(self) -> Array:
        """Which features have not fired for `dead_after` steps, bool `[*features]`."""
        return self.steps_since_fired >= self.hyperparameters.dead_after

    def context(self) -> LossContext:
        """What the loss of the next step is told."""
        hyper = self.hyperparameters
        return LossContext(
            dead=self.dead(),
            aux_coefficient=hyper.aux_coefficient,
            sparsity_coefficient=at_step(hyper.sparsity_coefficient, self.step),
            progress=self.step.astype(jnp.float32) / hyper.n_steps.astype(jnp.float32),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainInfo:
    """What one step reports, arrays `[]`.

    Attributes:
      step: which step it was, from 0.
      loss: with the auxiliary loss.
      fvu: fraction of the batch's variance that is not reconstructed.
      l0: mean number of active features.
      dead: share of the features that have not fired for `dead_after` steps.
      aux: the auxiliary loss before its coefficient.
      sparsity: the sparsity term before its coefficient.
    """

    step: Parameter
    loss: Parameter
    fvu: Parameter
    l0: Parameter
    dead: Parameter
    aux: Parameter
    sparsity: Parameter


def _schedule(
    name: str, value: Any, n_steps: int, n_warmup: int | None, n_decay: int | None = None, *, falls: bool = False
) -> Schedule:
    """A schedule as a pytree: a function of optax's as it is, a number as the peak of a ramp, which may fall again."""
    if callable(value):
        for what, steps in (("warm-up", n_warmup), ("decay", n_decay)):
            if steps is not None:
                raise ValueError(f"TrainState: steps of {what} beside a schedule as {name}, which has its own")
        return jax.tree_util.Partial(value)
    rising = jnp.asarray(max(1, n_steps // 20 if n_warmup is None else n_warmup), jnp.float32)
    falling = jnp.asarray(max(1, n_steps // 5 if n_decay is None else n_decay), jnp.float32) if falls else None
    return Ramp(jnp.asarray(value, jnp.float32), rising, falling, jnp.asarray(n_steps, jnp.int32))


def each_dictionary(change: Callable[[Dictionary], Dictionary], tree: Any) -> Any:
    """A state, or the optimizer's, with each dictionary in it changed: moments have the form of what is trained."""

    def is_dictionary(node: Any) -> bool:
        return isinstance(node, Dictionary)

    return jax.tree.map(lambda node: change(node) if is_dictionary(node) else node, tree, is_leaf=is_dictionary)


def at_step(schedule: Schedule, step: Array) -> Array:
    """The value of a schedule, float32 `[]`."""
    with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
        return jnp.asarray(schedule(step), jnp.float32)


def float32(tree: Any) -> Any:
    """The arrays in float32, as moments are whatever the parameters' dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
