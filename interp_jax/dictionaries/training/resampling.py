"""Resampling: dead features start again in the direction of inputs that the dictionary reconstructs badly.

    inputs are drawn with probability proportional to |x - x'|^4
    W_dec row <- (x - b_dec) scaled to the rows' norm,  W_enc column <- 0.2 mean |alive columns| along it,  biases <- 0
    (where none is alive: the mean of all)

Bricken et al. 2023, Towards Monosemanticity, appendix "Neuron Resampling", four times in a run; also used for gated
dictionaries. The optimizer's moments of what is reset are set to zero.
"""

from dataclasses import replace
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import row_norms, unit_rows
from interp_jax.dictionaries.training.state import TrainState, each_dictionary


@jax.jit
def resample(key: PRNGKeyArray, state: TrainState, x: Float[Array, "n d_in"]) -> TrainState:
    """The state with its dead features started again.

    Args:
      key: for the draw of inputs.
      state: of a dictionary of one site; dead are the features that have not fired for `dead_after` steps.
      x: `[n d_in]`, as the dictionary was trained on.

    Raises:
      ValueError: an architecture that has no such form, such as a transcoder.

    Example:
      >>> import jax
      >>> from dataclasses import replace
      >>> from interp_jax import dictionaries
      >>> dictionary = dictionaries.ReLU.create(jax.random.key(0), 8, 32, form="towards")
      >>> state = dictionaries.TrainState.create(dictionary, n_steps=100)
      >>> state = replace(state, steps_since_fired=state.steps_since_fired.at[3].set(99))
      >>> after = dictionaries.resample(jax.random.key(1), state, jax.random.normal(jax.random.key(2), (64, 8)))
      >>> changed = (after.dictionary.W_dec != state.dictionary.W_dec).any(-1)
      >>> changed.sum().item(), changed[3].item()
      (1, True)
    """
    dictionary = state.dictionary
    if not dictionary.resampled_fields:
        raise ValueError(f"resample: {type(dictionary).__name__} has no form of it; use an auxiliary loss instead")
    dead = state.dead()
    x = dictionary.inputs(x)
    centred = dictionary.entering(x) - dictionary.b_dec
    error = jnp.sum(jnp.square(dictionary(x) - x), axis=-1)
    chosen = jax.random.categorical(key, 2 * jnp.log(error + 1e-20), shape=dead.shape)
    rows = unit_rows(centred[chosen])
    fresh = _fresh(dictionary, rows, ~dead)

    def reset(tree: Any, values: dict[str, Array]) -> Any:
        return replace(tree, **{n: _where(n, dead, v, getattr(tree, n)) for n, v in values.items()})

    zeros = {name: jnp.zeros_like(value) for name, value in fresh.items()}
    opt_state = each_dictionary(lambda moments: reset(moments, zeros), state.opt_state)
    since = jnp.where(dead, 0, state.steps_since_fired)
    return replace(state, dictionary=reset(dictionary, fresh), opt_state=opt_state, steps_since_fired=since)


def _fresh(dictionary: Any, rows: Array, alive: Array) -> dict[str, Array]:
    counted = alive | ~alive.any()

    def mean_of_alive(norms: Array) -> Array:
        mean = jnp.mean(norms, where=counted)
        return jnp.where(mean > 0, mean, jnp.ones_like(mean))  # else what starts again stays at zero for ever

    values = {name: jnp.zeros_like(getattr(dictionary, name)) for name in dictionary.resampled_fields}
    norm = 1.0 if dictionary.unit_rows else mean_of_alive(row_norms(dictionary.W_dec))
    values["W_dec"] = norm * rows
    if "W_enc" in values:  # a tied one has no encoder of its own
        values["W_enc"] = (0.2 * mean_of_alive(row_norms(dictionary.W_enc.T)) * rows).T
    return values


def _where(name: str, dead: Array, new: Array, old: Array) -> Array:
    return jnp.where(dead[:, None] if name == "W_dec" else dead, new, old)
