"""A two-layer attention-only model trained on words that are said again: data and training, for `induction.py`."""

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
    model: models.Config  # d_mlp = 0: attention only


def sequences(cfg: Training, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Tokens `[n n_ctx]`: different words, then pairs of neighbours of them; whether the next ends a pair.

    Pairs by chance, not the words said twice in their order: there a model also finds its place by what stands around.
    """
    of_words, of_pairs = jax.random.split(key)
    half = cfg.model.n_ctx // 2
    words = jax.vmap(partial(jax.random.permutation, x=cfg.model.d_vocab))(jax.random.split(of_words, n))[:, :half]
    first = jax.random.randint(of_pairs, (n, half // 2), 0, half - 1)
    pairs = jnp.take_along_axis(words, jnp.stack([first, first + 1], -1).reshape(n, half), axis=1)
    place = jnp.arange(1, cfg.model.n_ctx)
    return jnp.concatenate([words, pairs], 1), jnp.broadcast_to((place >= half) & (place % 2 == 1), (n, len(place)))


def twins(cfg: Training, key: jax.Array, n: int) -> tuple[jax.Array, ...]:
    """Clean and corrupted prompts `[n position]`, answers and distractors `[n]`: two words have changed places."""
    words = jax.vmap(partial(jax.random.permutation, x=cfg.model.d_vocab))(jax.random.split(key, n))
    half, row = cfg.model.n_ctx // 2, np.arange(n)
    place = row % (half // 2 - 1)
    other = place + half // 2
    said, elsewhere = words[row, place], words[row, other]
    clean = jnp.concatenate([words[:, :half], said[:, None]], axis=1)
    corrupted = clean.at[row, place].set(elsewhere).at[row, other].set(said)
    return clean, corrupted, clean[row, place + 1], clean[row, other + 1]


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
