"""A planner that begins a dialogue with a prefix of its own, for `dialogue_action_tokens.py`: cloning, then reward.

    prefix = base + U a,   a = mlp(s) + sigma e,   s: what a middle layer holds at the end of the dialogue so far

Li et al. 2024, "Dialogue action tokens", https://arxiv.org/abs/2406.05946. The base is trained so that the model goes
on as it does without a prefix (self-cloning); then only the planner is trained, by reward. Departures: U is made of
principal components of the word embeddings, not learnt; and the paper's TD3+BC, whose critic looks ahead over turns, is
a policy gradient here, with the mean over samples of the same state as the baseline and each turn judged by itself,
since what users say next is not up to the answers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import interp_jax as ij
from interp_jax import metrics, models
from interp_jax.interventions import add, at, chain

Edits = dict[str, Any]


class Dialogues(NamedTuple):
    """Dialogues up to where the model is to speak, with room for a prefix; arrays of the first axis `dialogue`."""

    tokens: jax.Array  # [dialogue position], padded on the left
    mask: jax.Array
    last: jax.Array  # a column
    wanted: jax.Array  # the token with which the answer is to begin
    states: jax.Array  # [dialogue d_model]

    def rows(self, which: Any) -> "Dialogues":
        return Dialogues(*(x[which] for x in self))


class Space(NamedTuple):
    """Where actions go: the base `[token d_model]`, U `[token action d_model]`, the position of the first token."""

    base: jax.Array
    U: jax.Array
    first: int


def room(tokenizer: Any, tokens: Any, mask: Any, n: int) -> tuple[jax.Array, jax.Array]:
    """Tokens and mask with n more tokens at the beginning, after that which begins every text if there is one."""
    rows = [list(row[real]) for row, real in zip(np.asarray(tokens), np.asarray(mask).astype(bool), strict=True)]
    first = int(tokenizer.bos_id is not None)
    rows = [[*row[:first], *[tokenizer.pad_id or 0] * n, *row[first:]] for row in rows]
    width = max(map(len, rows))
    real = np.array([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    filled = np.array([[0] * (width - len(row)) + row for row in rows], np.int32)
    return jnp.asarray(filled), jnp.asarray(real)


def components(W_E: jax.Array, n: int) -> jax.Array:
    """The first n principal components of word embeddings, at their deviations, `[n d_model]`."""
    x = np.asarray(W_E, np.float32)
    _, deviations, rows = np.linalg.svd((x - x.mean(0))[:: max(1, len(x) // 4096)], full_matrices=False)
    size = np.linalg.norm(x, axis=-1).mean() / np.sqrt((deviations[:n] ** 2).sum())
    return jnp.asarray(size * deviations[:n, None] * rows[:n])


def edits(space: Space, actions: jax.Array) -> Edits:
    """The prefix of each dialogue, from actions `[dialogue token action]`, as an edit of the embeddings."""
    prefix = space.base + jnp.einsum("bta,tad->btd", actions, space.U)
    each = [at(add(prefix[:, i : i + 1]), position=space.first + i) for i in range(space.U.shape[0])]
    return {"embed": chain(*each)}


def logits(model: Any, space: Space, some: Dialogues, actions: jax.Array) -> jax.Array:
    f = partial(models.forward, attention_mask=some.mask, logits_at=some.last)
    return ij.intervene(f, edits(space, actions))(model, some.tokens)


def cloned(model: Any, space: Space, some: Dialogues, plain: jax.Array, n_steps: int) -> tuple[Space, jax.Array]:
    """The space with a base under which the model says what it does without a prefix, and the divergence by step.

    Args:
      plain: the logits without a prefix, `[dialogue d_vocab]`.
    """
    none = jnp.zeros((len(some.last), *space.U.shape[:2]))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, n_steps))

    def loss(base: jax.Array) -> jax.Array:
        return metrics.kl(plain)(logits(model, space._replace(base=base), some, none)).mean()

    @jax.jit
    def step(base: jax.Array, state: Any) -> Any:
        value, slope = jax.value_and_grad(loss)(base)
        change, state = optimizer.update(slope, state)
        return optax.apply_updates(base, change), state, value

    base, state, losses = space.base, optimizer.init(space.base), []
    for _ in range(n_steps):
        base, state, value = step(base, state)
        losses.append(value)
    return space._replace(base=base), jnp.stack(losses)


def new(key: jax.Array, d_state: int, width: int, shape: tuple[int, int]) -> dict[str, jax.Array]:
    """A planner of one hidden layer, whose actions `[token action]` are 0 at first."""
    into = jax.random.normal(key, (d_state, width)) / jnp.sqrt(d_state)
    return {"into": into, "b": jnp.zeros(width), "out": jnp.zeros((width, *shape)), "c": jnp.zeros(shape)}


def plan(planner: dict[str, jax.Array], states: jax.Array) -> jax.Array:
    """The mean actions, `[dialogue token action]`."""
    hidden = jax.nn.gelu(states @ planner["into"] + planner["b"])
    return jnp.einsum("bh,hta->bta", hidden, planner["out"]) + planner["c"]


def constant(planner: dict[str, jax.Array], states: jax.Array) -> jax.Array:
    """The same action whatever the state: what is trained without planning."""
    return jnp.broadcast_to(planner["c"], (len(states), *planner["c"].shape))


def trained(
    model: Any,
    space: Space,
    planner: dict[str, jax.Array],
    policy: Callable[..., jax.Array],
    some: Dialogues,
    key: jax.Array,
    *,
    n_steps: int,
    n_states: int,
    n_samples: int,
    sigma: float,
    learning_rate: float,
    through: bool = False,
) -> tuple[dict[str, jax.Array], np.ndarray]:
    """The planner after steps on `n_states` dialogues with `n_samples` actions each, and the mean reward by step.

    The reward of an action is the log probability of the wanted token, in nats. The model's gradient is not used, but
    if it is to go `through` the model: then the slope is that of the reward itself, as a perfect critic would know it.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, n_steps))

    @jax.jit
    def step(model: Any, space: Space, planner: Any, state: Any, some: Dialogues, key: jax.Array) -> Any:
        choose, draw = jax.random.split(key)
        rows = jax.random.choice(choose, len(some.last), (n_states,), replace=False)
        many = some.rows(jnp.repeat(rows, n_samples))
        noise = jax.random.normal(draw, (n_states * n_samples, *space.U.shape[:2]))

        def rewards(planner: Any) -> jax.Array:
            actions = policy(planner, many.states) + sigma * noise
            return metrics.log_prob(many.wanted)(logits(model, space, many, actions))

        reward = rewards(planner)
        of_state = reward.reshape(n_states, n_samples)
        better = ((of_state - of_state.mean(1, keepdims=True)) / (of_state.std(1, keepdims=True) + 1e-4)).ravel()

        def loss(planner: Any) -> jax.Array:  # its slope is that of -better * log density, at the drawn actions
            if through:
                return -rewards(planner).mean()
            return -(better * (policy(planner, many.states) * noise).sum((1, 2)) / sigma).mean()

        change, state = optimizer.update(jax.grad(loss)(planner), state)
        return optax.apply_updates(planner, change), state, reward.mean()

    state, rewards = optimizer.init(planner), []
    for i in range(n_steps):
        planner, state, reward = step(model, space, planner, state, some, jax.random.fold_in(key, i))
        rewards.append(reward)
    return planner, np.asarray(jnp.stack(rewards))
