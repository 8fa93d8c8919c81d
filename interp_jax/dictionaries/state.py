"""The state of training, its numbers, and what one step reports."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import optax

from interp_jax.dictionaries.dictionary import Dictionary, with_fields

ABSENT = -(2**30)  # of `steps_since_fired`: a feature that only fills up a stack of dictionaries, see `sweeps`


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparameters:
    """Numbers of a run, as arrays `[]`: a stack of them, mapped by `vmap`, is a sweep in one program.

    Attributes:
      learning_rate: its largest value.
      n_steps: length of the run.
      n_warmup: steps over which the rate rises from 0.
      n_decay: steps at the end over which it falls to 0.
      aux_coefficient: weight of the auxiliary loss.
      sparsity_coefficient: weight of the sparsity term, its largest value.
      n_sparsity_warmup: steps over which that weight rises from 0.
      dead_after: steps without firing after which a feature is dead.
    """

    learning_rate: Any
    n_steps: Any
    n_warmup: Any
    n_decay: Any
    aux_coefficient: Any
    sparsity_coefficient: Any
    n_sparsity_warmup: Any
    dead_after: Any

    def rate(self, step: Array) -> Array:
        """The learning rate `[]` of a step `[]`."""
        n_left = (self.n_steps - step).astype(jnp.float32)
        rising = (step + 1).astype(jnp.float32) / self.n_warmup
        return self.learning_rate * jnp.clip(jnp.minimum(rising, n_left / self.n_decay), 0.0, 1.0)

    def sparsity(self, step: Array) -> Array:
        """The weight of the sparsity term `[]` at a step `[]`."""
        rising = (step + 1).astype(jnp.float32) / self.n_sparsity_warmup
        return self.sparsity_coefficient * jnp.minimum(rising, 1.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """What one step hands to the next.

    Attributes:
      dictionary: what is trained.
      opt_state: Adam's moments.
      steps_since_fired: int32, one for each feature.
      step: int32 `[]`, how many steps have been taken.
      hyperparameters: the numbers of the run.
    """

    dictionary: Any
    opt_state: Any
    steps_since_fired: Any
    step: Any
    hyperparameters: Any

    @classmethod
    def create(
        cls,
        dictionary: Dictionary,
        n_steps: int,
        *,
        learning_rate: float | Array | None = None,
        n_warmup: int | None = None,
        n_decay: int | None = None,
        aux_coefficient: float | Array = 1 / 32,
        sparsity_coefficient: float | Array | None = None,
        n_sparsity_warmup: int | None = None,
        dead_after: int | None = None,
    ) -> "TrainState":
        """The state before the first step.

        Args:
          dictionary: from `create`.
          n_steps: length of the run, for the schedule of the learning rate.
          learning_rate: the peak; by default the paper's law, 2e-4 / sqrt(d_sae / 2^14).
          n_warmup: steps of linear warm-up, a twentieth of the run by default.
          n_decay: steps of linear decay to 0, a fifth of the run by default.
          aux_coefficient: weight of the auxiliary loss.
          sparsity_coefficient: weight of the sparsity term; by default the architecture's published one.
          n_sparsity_warmup: steps over which that weight rises, a twentieth of the run by default.
          dead_after: steps without firing after which a feature is dead; by default a tenth of the run, at most 1000.

        Raises:
          ValueError: n_steps is not positive.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
          >>> int(dictionaries.TrainState.create(dictionary, n_steps=100).step)
          0
        """
        if n_steps < 1:
            raise ValueError(f"TrainState: n_steps={n_steps} must be at least 1")
        rate = 2e-4 / (dictionary.d_sae / 2**14) ** 0.5 if learning_rate is None else learning_rate
        sparsity = dictionary.sparsity_coefficient if sparsity_coefficient is None else sparsity_coefficient
        hyperparameters = Hyperparameters(
            learning_rate=jnp.asarray(rate, jnp.float32),
            n_steps=jnp.asarray(n_steps, jnp.int32),
            n_warmup=jnp.asarray(max(1, n_steps // 20 if n_warmup is None else n_warmup), jnp.float32),
            n_decay=jnp.asarray(max(1, n_steps // 5 if n_decay is None else n_decay), jnp.float32),
            aux_coefficient=jnp.asarray(aux_coefficient, jnp.float32),
            sparsity_coefficient=jnp.asarray(sparsity, jnp.float32),
            n_sparsity_warmup=jnp.asarray(
                max(1, n_steps // 20 if n_sparsity_warmup is None else n_sparsity_warmup), jnp.float32
            ),
            dead_after=jnp.asarray(max(1, min(1000, n_steps // 10)) if dead_after is None else dead_after, jnp.int32),
        )
        precise = {name: jnp.asarray(getattr(dictionary, name), jnp.float32) for name in dictionary.precise}
        dictionary = with_fields(dictionary, **precise, mean_norm=jnp.zeros(()))
        never = jnp.zeros(dictionary.feature_shape, jnp.int32)
        moments = adam().init(float32(dictionary))
        return cls(dictionary, moments, never, jnp.zeros((), jnp.int32), hyperparameters)


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

    step: Any
    loss: Any
    fvu: Any
    l0: Any
    dead: Any
    aux: Any
    sparsity: Any


def adam() -> optax.GradientTransformation:
    """The optimizer of every dictionary, before the learning rate."""
    return optax.scale_by_adam()


def float32(tree: Any) -> Any:
    """The arrays in float32, as moments are whatever the parameters' dtype."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
