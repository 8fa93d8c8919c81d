"""Training of edge probes: the cross-entropy of the items' labels, by Adam or any of optax's.

Tenney et al. 2019, arXiv:1905.06316. The model stays as it is; a probe, or every prefix of its layers at once, learns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np
import optax

from interp_jax.probes.edge import PARAMETERS, EdgeProbe, Edges, check_edges
from interp_jax.runs import check_counts


@partial(jax.tree_util.register_dataclass, data_fields=["probe", "opt_state", "step"], meta_fields=["optimizer"])
@dataclass(frozen=True)
class EdgeState:
    """What one step of training hands to the next: the probe, the optimizer's state, and int32 `[]`, the steps taken.

    Of a stack of `prefixes` each has a leading axis.
    """

    probe: Any
    opt_state: Any
    step: Any
    optimizer: optax.GradientTransformation

    @classmethod
    def create(cls, probe: EdgeProbe, optimizer: optax.GradientTransformation | None = None) -> "EdgeState":
        """The state before the first step; the optimizer is any of optax's, by default `adam(1e-3)`.

        It sees the parameters as a dict of the probe's attributes, `a` and `gamma` being the mix.
        """
        optimizer = optax.adam(1e-3) if optimizer is None else optimizer
        init = jax.vmap(optimizer.init) if probe.a.ndim > 1 else optimizer.init
        return cls(probe, init(_parameters(probe)), jnp.zeros(probe.a.shape[:-1], jnp.int32), optimizer)


@jax.jit
def edge_step(state: EdgeState, edges: Edges) -> tuple[EdgeState, dict[str, Array]]:
    """Takes one step of training. It is a pure function; `jax.vmap(edge_step, (0, None))` takes one for each prefix.

    Args:
      state: from `EdgeState.create` or the step before.
      edges: a batch of sentences with their items.

    Returns:
      `(state, info)`: float32 `[]` loss, in nats, and accuracy, the means over the batch's items before the step.

    Raises:
      ValueError: as a call of `EdgeProbe`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import probes
      >>> edges = probes.Edges(jnp.ones((2, 3, 5, 8)), jnp.array([[[[1, 3]]]] * 3), jnp.zeros((3, 1), int))
      >>> state = probes.EdgeState.create(probes.EdgeProbe.create(jax.random.key(0), 2, d_model=8, n_labels=4))
      >>> state, info = probes.edge_step(state, edges)
      >>> int(state.step), sorted(info)
      (1, ['accuracy', 'loss'])
    """
    counted = edges.labels >= 0
    n = jnp.maximum(counted.sum(), 1).astype(jnp.float32)
    labels = jnp.maximum(edges.labels, 0)

    def loss(parameters: Any) -> tuple[Array, Array]:
        logits = replace(state.probe, **parameters)(edges.x, edges.spans)
        each = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
        right = (logits.argmax(-1) == labels) & counted
        return jnp.where(counted, each, 0).sum() / n, right.sum().astype(jnp.float32) / n

    parameters = _parameters(state.probe)
    (value, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
    with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
        updates, opt_state = state.optimizer.update(gradient, state.opt_state, parameters)
        moved: Any = optax.apply_updates(parameters, updates)
    after = EdgeState(replace(state.probe, **moved), opt_state, state.step + 1, state.optimizer)
    return after, {"loss": value, "accuracy": accuracy}


def train_edges(
    key: Array,
    state: EdgeState,
    edges: Edges,
    n_steps: int,
    *,
    batch_size: int = 32,
    report: Callable[[EdgeState, dict[str, np.ndarray]], None] | None = None,
    every: int = 50,
) -> EdgeState:
    """Takes steps on sentences drawn at random. A stack of `prefixes` learns in one compiled call a step.

    Args:
      key: a jax PRNG key, of the order of the sentences.
      state: from `EdgeState.create`, of a probe or of a stack.
      edges: all sentences with their items.
      n_steps: how many steps.
      batch_size: sentences in a step, no sentence twice; at most all of them.
      report: called with the state and what `edge_step` tells, `[*prefix]`, of every `every`-th step.
      every: how often to look; in between nothing waits for the device.

    Returns:
      The last state.

    Raises:
      ValueError: as `check_edges` says; all labels are one; a count below 1.
      FloatingPointError: a loss is not finite.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import probes
      >>> x = jax.random.normal(jax.random.key(0), (2, 20, 5, 8))
      >>> edges = probes.Edges(x, jnp.tile(jnp.array([1, 2]), (20, 1, 1, 1)), (x[1, :, 1, :1] > 0).astype(jnp.int32))
      >>> probe = probes.EdgeProbe.create(jax.random.key(1), n_layers=2, d_model=8, n_labels=2)
      >>> state = probes.EdgeState.create(probes.prefixes(probe))
      >>> state = probes.train_edges(jax.random.key(2), state, edges, 100)
      >>> float(probes.edge_scores(state.probe, edges)[1])  # the label stands at layer 1
      1.0
    """
    check_counts(n_steps=n_steps, batch_size=batch_size, every=every)
    check_edges(edges, state.probe.W_out.shape[-1])
    labels = np.asarray(edges.labels)
    if len(np.unique(labels[labels >= 0])) < 2:
        raise ValueError(
            f"train_edges: every label is {labels.max()}: one class tells nothing; give items of two or more"
        )
    edges = Edges(*map(jnp.asarray, edges))
    size = min(batch_size, len(labels))
    infos: list[dict[str, Array]] = []
    for step in range(n_steps):
        state, info = _drawn_step(jax.random.fold_in(key, step), state, edges, size)
        infos.append(info)
        if len(infos) == every or step == n_steps - 1:
            told = jax.device_get(infos)
            _check_finite(told, step + 1 - len(infos))
            infos = []
            if report is not None:
                report(state, told[-1])
    return state


@partial(jax.jit, static_argnums=3)
def _drawn_step(key: Array, state: EdgeState, edges: Edges, size: int) -> tuple[EdgeState, dict[str, Array]]:
    rows = jax.random.permutation(key, len(edges.labels))[:size]
    batch = Edges(edges.x[:, rows], edges.spans[rows], edges.labels[rows])
    step = edge_step if state.probe.a.ndim == 1 else jax.vmap(edge_step, (0, None))
    return step(state, batch)


def _check_finite(infos: list[dict[str, np.ndarray]], first: int) -> None:
    for i, info in enumerate(infos):
        if not np.isfinite(info["loss"]).all():
            raise FloatingPointError(
                f"train_edges: step {first + i}: the loss is not finite; the layers have NaN or inf, or the learning "
                "rate is too high"
            )


def _parameters(probe: EdgeProbe) -> dict[str, Any]:
    return {name: getattr(probe, name) for name in PARAMETERS if getattr(probe, name) is not None}
