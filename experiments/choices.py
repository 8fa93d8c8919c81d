"""TruthfulQA by multiple choice: which of its given answers to a question a model finds likeliest.

MC1 is the share of questions whose best true answer is likelier than every false one; MC2 the share of probability that
is on the true answers (Lin et al. 2022). An answer's log probability is the sum over its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import depths
import jax
import jax.numpy as jnp
import numpy as np
import optax

import interp_jax as ij
from interp_jax import models
from interp_jax.data import truthfulqa

FORM = "Q: {}\nA:"


@dataclass(frozen=True)
class Choices:
    """All answers of some questions, padded on the left: arrays of the first axis `answer`."""

    tokens: np.ndarray  # [answer position]
    mask: np.ndarray
    said: np.ndarray  # [answer position], the tokens of the answer
    question: np.ndarray  # [answer], its number
    true: np.ndarray
    best: np.ndarray


def questions(seed: int, n: int, n_tokens: int, tokenizer: Any) -> list[truthfulqa.Question]:
    """Questions drawn by a seed, whose longest answer ends within `n_tokens` tokens."""
    read = truthfulqa.read(depths.data("truthfulqa") / "TruthfulQA.csv")
    found = []
    for i in np.random.default_rng(seed).permutation(len(read)):
        one = read[i]
        texts = [f"{FORM.format(one.text)} {answer}" for answer in (*one.correct, *one.incorrect)]
        if one.incorrect and max(len(tokenizer.encode(text)) for text in texts) <= n_tokens:
            found.append(one)
        if len(found) == n:
            return found
    raise SystemExit(f"TruthfulQA has {len(found)} questions of at most {n_tokens} tokens, not {n}")


def choices(tokenizer: Any, some: Sequence[truthfulqa.Question]) -> Choices:
    rows = [(i, one, answer) for i, one in enumerate(some) for answer in (*one.correct, *one.incorrect)]
    tokens, mask, _ = models.tokenize(tokenizer, [f"{FORM.format(one.text)} {answer}" for _, one, answer in rows])
    asked = np.array([len(tokenizer.encode(FORM.format(one.text))) for _, one, _ in rows])
    mask = np.asarray(mask).astype(bool)
    said = mask & (np.cumsum(mask, axis=1) > asked[:, None])
    true = np.array([answer in one.correct for _, one, answer in rows])
    best = np.array([answer == one.best for _, one, answer in rows])
    return Choices(np.asarray(tokens), mask, said, np.array([i for i, _, _ in rows]), true, best)


def log_probs(model: Any, given: Choices, edits: Any, chunk: int = 32) -> np.ndarray:
    """The log probability of each answer, in nats, `[answer]`."""
    f, parts = ij.intervene(models.forward, edits), []
    for start in range(0, len(given.tokens), chunk):
        rows = np.minimum(np.arange(start, start + chunk), len(given.tokens) - 1)  # of one size: one program
        tokens = jnp.asarray(given.tokens[rows])
        logits = f(model, tokens, attention_mask=jnp.asarray(given.mask[rows]))
        parts.append(np.asarray(_sums(logits, tokens, jnp.asarray(given.said[rows]))))
    return np.concatenate(parts)[: len(given.tokens)]


@jax.jit
def _sums(logits: jax.Array, tokens: jax.Array, said: jax.Array) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1].astype(jnp.float32), tokens[:, 1:])
    return -jnp.where(said[:, 1:], losses, 0).sum(-1)


def mc(given: Choices, log_probs: np.ndarray) -> tuple[float, float]:
    """MC1 and MC2."""
    first, second = [], []
    for i in np.unique(given.question):
        here = given.question == i
        values, true = log_probs[here], given.true[here]
        first.append(values[given.best[here]].max() > values[~true].max())
        weights = np.exp(values - values.max())
        second.append(weights[true].sum() / weights.sum())
    return float(np.mean(first)), float(np.mean(second))
