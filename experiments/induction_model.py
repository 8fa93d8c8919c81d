"""A two-layer attention-only model trained on repeated sequences: the data, and its training, for `induction.py`."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from interp_jax import models


@dataclass(frozen=True)
class Training:
    n_steps: int
    batch_size: int
    learning_rate: float
    periods: tuple[int, int]  # a sequence repeats after so many words, no word twice before
    model: models.Config  # d_mlp = 0: attention only


def sequences(cfg: Training, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Tokens `[n n_ctx]`, and whether the next is a repetition, `[n n_ctx - 1]`."""
    of_period, of_words = jax.random.split(key)
    period = jax.random.randint(of_period, (n, 1), cfg.periods[0], cfg.periods[1] + 1)
    words = jax.vmap(partial(jax.random.permutation, x=cfg.model.d_vocab))(jax.random.split(of_words, n))
    place = jnp.arange(cfg.model.n_ctx)
    return jnp.take_along_axis(words, place % period, axis=1), place[:-1] >= period


def twins(cfg: Training, key: jax.Array, n: int) -> tuple[jax.Array, ...]:
    """Clean and corrupted prompts `[n position]`, answers and distractors `[n]`; a pair has two words swapped."""
    words = jax.vmap(partial(jax.random.permutation, x=cfg.model.d_vocab))(jax.random.split(key, n))
    period = sum(cfg.periods) // 2
    last, other = period // 2, period // 2 + 2 + np.arange(n) % (period - period // 2 - 3)
    clean = jnp.concatenate([words[:, :period], words[:, : last + 1]], axis=1)
    row = np.arange(n)
    corrupted = clean.at[row, last].set(clean[row, other]).at[row, other].set(clean[row, last])
    return clean, corrupted, clean[:, last + 1], clean[row, other + 1]


def trained(cfg: Training, seed: int) -> tuple[models.Decoder, np.ndarray]:
    """The model, and its loss on repetitions step by step."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, cfg.learning_rate, cfg.n_steps // 10, cfg.n_steps)
    optimizer = optax.adamw(schedule, weight_decay=0.01)

    def loss(model: models.Decoder, tokens: jax.Array, told: jax.Array) -> jax.Array:
        logits = models.forward(model, tokens[:, :-1])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]), where=told)

    def step(state: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
        model, moments = state
        value, slope = jax.value_and_grad(loss)(model, *sequences(cfg, key, cfg.batch_size))
        change, moments = optimizer.update(slope, moments, model)
        return (optax.apply_updates(model, change), moments), value

    of_model, of_data = jax.random.split(jax.random.key(seed))
    model = models.Decoder.create(of_model, cfg.model)
    keys = jax.random.split(of_data, cfg.n_steps)
    (model, _), losses = jax.jit(partial(jax.lax.scan, step))((model, optimizer.init(model)), keys)
    return model, np.asarray(losses)
