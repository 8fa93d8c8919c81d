"""Examples as batches of prompts: clean and corrupted, aligned position by position.

A row of `corrupted` is its row of `clean` with a few words changed, so that the other answer is the right one. Prompts
are padded on the left: the last column is the last token of every prompt.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
import itertools
import random
from typing import Any, NamedTuple

import jax
import numpy as np

from interp_jax.data.examples import Example

MAX_MISSES = 2000  # draws in a row that do not fit, after which a task is refused


@partial(jax.tree_util.register_dataclass, meta_fields=[], drop_fields=["attributes"], data_fields=[
    "clean", "corrupted", "mask", "last", "answers", "distractors", "positions", "accepted",
])  # fmt: skip
@dataclass(frozen=True)
class Task:
    """A batch of pairs of prompts, clean and corrupted, each with its answer.

    It is a pytree of its arrays, so that it may be an argument of `jit`. The attributes are text and no part of the
    pytree: a task inside `jit`, or one that `jax.tree.map` gives, has none.

    Attributes:
      clean, corrupted: int32 `[batch position]`, of one shape, equal wherever the two prompts say the same.
      mask: bool `[batch position]`, False at padding; the same for both.
      last: int32 `[batch]`, the column of the last prompt token, at which the answer is read (`logits_at=`).
      answers, distractors: int32 `[batch]`, the answer after the clean prompt, and after the corrupted one.
      positions: name -> int32 `[batch]`, of the named words, counted in real tokens as in `at(edit, position=)`.
      accepted: int32 `[batch option]`, every right answer after the clean prompt. Where a prompt has fewer than
        another, its answer stands again.
      attributes: name -> str `[batch]`, what is known of the clean prompts.
    """

    clean: jax.Array
    corrupted: jax.Array
    mask: jax.Array
    last: jax.Array
    answers: jax.Array
    distractors: jax.Array
    positions: dict[str, jax.Array]
    accepted: jax.Array
    attributes: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, jax.Array]:
        """Columns of the named words in `clean` and in captured values, padding counted: name -> int32 `[batch]`."""
        padding = self.last - self.positions["end"]
        return {name: position + padding for name, position in self.positions.items()}


def share_correct(forward: Callable[..., jax.Array], model: Any, task: Task) -> float:
    """The share of clean prompts after which a right answer is the likeliest of all tokens.

    Args:
      forward, model, task: as in `correct`.

    Returns:
      A number from 0 to 1.

    Example:
      >>> from interp_jax import models
      >>> from interp_jax.data import tasks
      >>> model, tokenizer = models.load("microworld")
      >>> share_correct(models.forward, model, tasks.ioi(jax.random.key(0), tokenizer, n=16)) > 0.9
      True
    """
    return float(correct(forward, model, task).mean(dtype=np.float64))


def correct(forward: Callable[..., jax.Array], model: Any, task: Task) -> np.ndarray:
    """Whether a right answer is the likeliest of all tokens after each clean prompt: bool `[batch]`.

    Args:
      forward: called as `models.forward(model, tokens, attention_mask=..., logits_at=...)`, gives `[batch d_vocab]`.
      model: its first argument.
      task: the prompts and their right answers.
    """
    likeliest = forward(model, task.clean, attention_mask=task.mask, logits_at=task.last).argmax(-1)
    return np.asarray((likeliest[:, None] == task.accepted).any(-1))


class Encoded(NamedTuple):
    """One pair of a task in tokens, not padded; its two prompts have the same length."""

    clean: list[int]
    corrupted: list[int]
    accepted: list[int]  # right answers after the clean prompt, the answer first
    distractor: int
    positions: dict[str, int]
    attributes: dict[str, str]


def batch(rows: Sequence[Encoded]) -> Task:
    """Pads rows on the left to one batch, with the positions and attributes that every row has."""
    n, width = len(rows), max(len(row.clean) for row in rows)
    clean, corrupted = (np.zeros((n, width), np.int32) for _ in range(2))
    mask = np.zeros((n, width), bool)
    for i, row in enumerate(rows):
        start = width - len(row.clean)
        clean[i, start:] = row.clean
        corrupted[i, start:] = row.corrupted
        mask[i, start:] = True
    options = max(len(row.accepted) for row in rows)
    accepted = np.array([row.accepted + row.accepted[:1] * (options - len(row.accepted)) for row in rows], np.int32)
    places, known = _shared([row.positions for row in rows]), _shared([row.attributes for row in rows])
    arrays = dict(
        clean=clean,
        corrupted=corrupted,
        mask=mask,
        last=np.full(n, width - 1, np.int32),
        answers=accepted[:, 0],
        distractors=np.array([row.distractor for row in rows], np.int32),
        positions={name: np.array([row.positions[name] for row in rows], np.int32) for name in places},
        accepted=accepted,
    )
    told = {name: np.array([row.attributes[name] for row in rows]) for name in known}
    return Task(**jax.tree.map(jax.numpy.asarray, arrays), attributes=told)


def _shared(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The names that every row has."""
    return [name for name in rows[0] if all(name in row for row in rows)]


def prompts(
    key: jax.Array, tokenizer: Any, n: int, make: Callable[[random.Random], Example], attributes: dict[str, object]
) -> Task:
    """Draws n examples that have the attributes, as a batch.

    Args:
      key: a jax PRNG key.
      tokenizer: of the model. Examples with a word that is not one token of it are drawn again.
      n: number of examples.
      make: a phenomenon of one split.
      attributes: name -> the value that the examples must have, compared as text.

    Raises:
      ValueError: n is below 1, an attribute is unknown, or no such example comes up.
    """
    if n < 1:
        raise ValueError(f"n={n}: a task has at least one example")
    rng = random.Random(int(jax.random.bits(key)))
    return batch(list(itertools.islice(_encoded(rng, tokenizer, make, attributes), n)))


def check_tokenizer(tokenizer: Any) -> None:
    """Raises ValueError where there is no tokenizer, as `models.load` gives None for a folder without one."""
    if tokenizer is None:
        raise ValueError("a task needs a tokenizer, and this is None: the model's folder has no tokenizer.json")


def _encoded(
    rng: random.Random, tokenizer: Any, make: Callable[[random.Random], Example], attributes: dict[str, object]
) -> Iterator[Encoded]:
    """Examples without end that have the attributes and whose words are one token each."""
    check_tokenizer(tokenizer)
    prefix = tokenizer.encode("")  # what the tokenizer puts before every text: its <bos>, or nothing
    misses, why = 0, ""
    while misses < MAX_MISSES:
        example = make(rng)
        if unknown := set(attributes) - set(example.attributes):
            known = ", ".join(example.attributes)
            raise ValueError(f"{example.phenomenon}: no attribute {', '.join(sorted(unknown))}; there are {known}")
        misses += 1
        if any(example.attributes[name] != str(value) for name, value in attributes.items()):
            why = f"none of {misses} examples has {attributes}"
            continue
        accepted = (example.answer, *example.accepted)
        texts = [(*example.prompt, answer) for answer in accepted] + [(*example.corrupted, example.distractor)]
        *right, wrong = [tokenizer.encode(" ".join(words), bos=False) for words in texts]
        whole = {len(ids) for ids in (*right, wrong)} == {len(texts[0])}
        if not whole or any(tokenizer.unk_id in ids for ids in (*right, wrong)):
            text = " ".join(texts[0])
            why = f"{text!r} is not one token a word in this tokenizer; use that of models.load('microworld')"
            continue
        misses = 0
        positions = {name: len(prefix) + position for name, position in example.positions.items()}
        clean, corrupted = ([*prefix, *ids[:-1]] for ids in (right[0], wrong))
        yield Encoded(clean, corrupted, [ids[-1] for ids in right], wrong[-1], positions, example.attributes)
    raise ValueError(f"{example.phenomenon}: {why}")
