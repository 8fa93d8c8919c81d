"""Direct preference optimization: a policy is trained to prefer one answer to another, beside a reference.

    loss = -log sigmoid(beta ((log pi(w) - log ref(w)) - (log pi(l) - log ref(l))))      w preferred to l

Rafailov et al. 2023, "Direct preference optimization", https://arxiv.org/abs/2305.18290.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from interp_jax import models


def log_probs(model: Any, tokens: jax.Array, mask: jax.Array, answered: jax.Array) -> jax.Array:
    """The log probability of each text's answer, float32 `[text]`; all arguments `[text position]`."""
    logits = models.forward(model, tokens, attention_mask=mask)[:, :-1].astype(jnp.float32)
    each = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.where(answered[:, 1:], each, 0).sum(-1)


def dpo_loss(policy: tuple[Any, Any], reference: tuple[Any, Any], beta: float) -> jax.Array:
    """The mean loss of pairs of answers.

    Args:
      policy, reference: log probabilities of the preferred answers and of the others, `[pair]` each.
      beta: the strength of the pull towards the reference, above 0.

    Raises:
      ValueError: beta is not above 0, or arrays of other shapes.
    """
    if not beta > 0:
        raise ValueError(f"dpo_loss: beta={beta}: give a number above 0")
    if len({jnp.shape(x) for x in (*policy, *reference)}) > 1:
        shapes = [list(jnp.shape(x)) for x in (*policy, *reference)]
        raise ValueError(f"dpo_loss: log probabilities of shapes {shapes}: give one for each pair")
    margin = (policy[0] - reference[0]) - (policy[1] - reference[1])
    return -jax.nn.log_sigmoid(beta * margin).mean()


def aligned(cfg: Any, model: Any, some: Any, seed: int) -> tuple[Any, np.ndarray]:
    """The model after DPO, and the loss of each step; the tied embeddings stay as they are.

    Args:
      cfg: has `learning_rate`, `n_steps`, `batch_size` and `beta`.
      model: the start, and the reference.
      some: preferred answers and the others, each with `tokens`, `mask` and `answered`, `[text position]`.
      seed: of the order of pairs.
    """
    weights = {name: w for name, w in models.weights(model).items() if name not in ("W_E", "W_U")}
    optimizer = optax.adam(cfg.learning_rate)

    def logs(model: Any, batch: Any) -> tuple[Any, Any]:
        return log_probs(model, *batch[0]), log_probs(model, *batch[1])

    @jax.jit
    def step(model: Any, weights: Any, state: Any, batch: Any) -> Any:
        reference = logs(model, batch)

        def loss(weights: Any) -> jax.Array:
            return dpo_loss(logs(models.with_weights(model, weights), batch), reference, cfg.beta)

        value, slope = jax.value_and_grad(loss)(weights)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(weights, updates), state, value

    rng, state, losses = np.random.default_rng(seed), optimizer.init(weights), []
    for _ in range(cfg.n_steps):
        rows = rng.choice(len(some[0].tokens), cfg.batch_size, replace=False)
        batch = tuple(tuple(jnp.asarray(x[rows]) for x in (one.tokens, one.mask, one.answered)) for one in some)
        weights, state, loss = step(model, weights, state, batch)
        losses.append(float(loss))
    return models.with_weights(model, weights), np.array(losses)
