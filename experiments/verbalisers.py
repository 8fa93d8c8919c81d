"""A verbaliser and a reconstructor of the microworld's activations: their warm start, and their training by reward.

Both begin as copies of the subject. Warm start: the verbaliser learns to write the texts of contexts where an
activation stands in a token's place, the reconstructor to make the activation of the text. By reward: the verbaliser
writes several texts for each activation, and learns of each in proportion to how much better it does than its group
(GRPO, Shao et al. 2024, https://arxiv.org/abs/2402.03300, one step a group), while a penalty holds its words near the
warm start's; the reconstructor learns from the same texts.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from verbal_contexts import START, Contexts, padded

import interp_jax as ij
from interp_jax import models
from interp_jax.explain import Reconstructor, as_token, reconstruct, reward


class Speech(NamedTuple):
    """What makes words of vectors and vectors of words."""

    verbaliser: Any
    reconstructor: Reconstructor


class Place(NamedTuple):
    """How vectors and texts are held."""

    site: str  # that is put in words
    head: tuple[int, ...]  # tokens before a text: <bos>, and the one that the vector replaces
    stop: int
    n_tokens: int  # of a text, at most
    norm: Any  # of the vector, among embeddings


def states(model: Any, site: str, some: Contexts) -> jax.Array:
    """The activations at the end of contexts, `[context d_model]`, as directions of length sqrt(d_model)."""
    read = ij.capture(models.forward, {site: lambda x: x[..., -1, :]}, output=False)
    x = read(model, jnp.asarray(some.tokens), attention_mask=jnp.asarray(some.mask))[site].astype(jnp.float32)
    return x * jnp.sqrt(x.shape[-1]) / jnp.linalg.norm(x, axis=-1, keepdims=True)


def rows(place: Place, texts: list[list[int]]) -> tuple[jax.Array, jax.Array]:
    """Texts after what begins them, padded on the right to one width: tokens and mask `[text position]`."""
    tokens, mask = padded([[*place.head, *text] for text in texts], START + place.n_tokens, left=False)
    return jnp.asarray(tokens), jnp.asarray(mask)


def log_probs(verbaliser: Any, place: Place, vectors: jax.Array, tokens: jax.Array) -> jax.Array:
    """The log probabilities of all words where a text's words stand, `[text word d_vocab]`."""
    f = ij.intervene(models.forward, as_token(vectors, START - 1, place.norm))
    return jax.nn.log_softmax(f(verbaliser, tokens)[:, START - 1 : -1])


def said(verbaliser: Any, place: Place, vectors: jax.Array, key: Any = None) -> tuple[jax.Array, jax.Array]:
    """What is written for vectors, the likeliest or drawn by a key: tokens and mask `[text position]`."""
    start = jnp.tile(jnp.array(place.head, jnp.int32), (len(vectors), 1))
    edits = as_token(vectors, START - 1, place.norm)
    options = {} if key is None else {"key": key, "temperature": 1.0}
    tokens = models.generate(verbaliser, start, place.n_tokens, edits=edits, stop=place.stop, **options)
    ended = jnp.cumsum(tokens == place.stop, axis=1)
    return tokens, (ended == 0) | ((tokens == place.stop) & (jnp.cumsum(ended, axis=1) == 1))


def vectors_of(reconstructor: Reconstructor, place: Place, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """The vectors that texts `[text position]` are heard as; the token of the vector itself is left out."""
    keep = mask.at[:, START - 1].set(False)
    order = jnp.argsort(keep, axis=1, stable=True)  # the words to the right
    tokens, keep = (jnp.take_along_axis(x, order, axis=1) for x in (tokens, keep))
    return reconstruct(models.forward, place.site)(reconstructor, tokens, attention_mask=keep)


def begun(model: Any, place: Place, some: Contexts, x: jax.Array, cfg: Any, rng: Any) -> Speech:
    """The warm start, on the texts of contexts and their activations; `cfg` has the sizes."""
    tokens, mask = rows(place, some.texts)
    d = x.shape[1]
    first = Speech(model, Reconstructor(model, jnp.eye(d), jnp.zeros(d)))

    def loss(speech: Speech, tokens: jax.Array, mask: jax.Array, x: jax.Array) -> jax.Array:
        each = jnp.take_along_axis(log_probs(speech.verbaliser, place, x, tokens), tokens[:, START:, None], 2)[..., 0]
        words = -(each * mask[:, START:]).sum() / mask[:, START:].sum()
        return words - reward(x, vectors_of(speech.reconstructor, place, tokens, mask)).mean()

    step = _step(loss, optax.adam(optax.cosine_decay_schedule(cfg.learning_rate, cfg.n_steps)))
    speech, state = first, step.init(first)
    for _ in range(cfg.n_steps):
        at = rng.integers(len(x), size=cfg.batch_size)
        speech, state, _ = step.take(speech, state, tokens[at], mask[at], x[at])
    return speech


def rewarded(
    speech: Speech, place: Place, x: jax.Array, cfg: Any, rng: Any, key: jax.Array
) -> tuple[Speech, np.ndarray]:
    """The speech after steps by reward, and the mean reward of each."""
    begin = speech.verbaliser

    def loss(speech: Speech, tokens: jax.Array, mask: jax.Array, x: jax.Array, better: jax.Array) -> jax.Array:
        now, then = (log_probs(verbaliser, place, x, tokens) for verbaliser in (speech.verbaliser, begin))
        words = mask[:, START:]
        each = jnp.take_along_axis(now, tokens[:, START:, None], 2)[..., 0]
        drift = (jnp.exp(now) * (now - jax.lax.stop_gradient(then))).sum(-1)
        policy = ((cfg.penalty * drift - better[:, None] * each) * words).sum() / words.sum()
        return policy - reward(x, vectors_of(speech.reconstructor, place, tokens, mask)).mean()

    step = _step(loss, optax.adam(cfg.learning_rate_reward))
    heard = jax.jit(partial(vectors_of, place=place))
    state, told = step.init(speech), []
    for i in range(cfg.n_steps_reward):
        at = np.repeat(rng.integers(len(x), size=cfg.batch_size // cfg.n_samples), cfg.n_samples)
        tokens, mask = said(speech.verbaliser, place, x[at], jax.random.fold_in(key, i))
        value = reward(x[at], heard(speech.reconstructor, tokens=tokens, mask=mask))
        group = value.reshape(-1, cfg.n_samples)
        better = (group - group.mean(1, keepdims=True)) / (group.std(1, keepdims=True) + 1e-3)
        speech, state, _ = step.take(speech, state, tokens, mask, x[at], better.ravel())
        told.append(float(value.mean()))
    return speech, np.array(told)


class _Step(NamedTuple):
    init: Callable[..., Any]
    take: Callable[..., Any]


def _step(loss: Callable[..., jax.Array], optimizer: optax.GradientTransformation) -> _Step:
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optimizer)

    @jax.jit
    def take(speech: Speech, state: Any, *batch: Any) -> tuple[Speech, Any, jax.Array]:
        value, slope = jax.value_and_grad(loss)(speech, *batch)
        change, state = optimizer.update(slope, state)
        return optax.apply_updates(speech, change), state, value

    return _Step(optimizer.init, take)
