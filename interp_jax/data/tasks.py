"""The microworld's phenomena as batches of prompts: clean and corrupted, aligned position by position.

A row of `corrupted` is its row of `clean` with a few words changed, so that the other answer is the right one. Prompts
are padded on the left: the last column is the last token of every prompt. All are from the held-out split unless told.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
import itertools
import random
from typing import Any

import jax
import numpy as np

from interp_jax.data import phenomena
from interp_jax.data.phenomena import Example

MAX_MISSES = 2000  # draws that do not fit, in a row, before a task gives up


@partial(jax.tree_util.register_dataclass, meta_fields=[], data_fields=[
    "clean", "corrupted", "mask", "at", "answers", "distractors", "positions",
])  # fmt: skip
@dataclass(frozen=True)
class Task:
    """Prompts with a right and a wrong answer.

    clean, corrupted: int32 [batch position], the same shape, equal wherever the twins say the same.
    mask: bool [batch position], False at padding; the same for both.
    at: int32 [batch], the column of the last prompt token (`logits_at` of `models.forward`).
    answers, distractors: int32 [batch], the answer after the clean prompt, and after the corrupted one.
    positions: name -> int32 [batch], the columns of the named words.
    """

    clean: jax.Array
    corrupted: jax.Array
    mask: jax.Array
    at: jax.Array
    answers: jax.Array
    distractors: jax.Array
    positions: dict[str, jax.Array]


def ioi(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Indirect objects: `when Mary and John went to the park , John gave a ring to` -> Mary; in the twin Mary gives.

    Positions: io, s1, s2, place, object, end. Attributes: order (ABBA or BABA), template, place, object.

    Args:
      key: a jax PRNG key.
      tokenizer: of the model. Each word must be one token of it; prompts with a word that is not are drawn again.
      n: number of prompts.
      split: "heldout" or "train".
      **attributes: only examples that have these attributes, e.g. `order="ABBA", template=0` for aligned positions.

    Raises:
      ValueError: an unknown attribute, or no example that has these attributes and whose words are single tokens.

    Example:
      >>> from interp_jax import models
      >>> _, tokenizer = models.load("microworld")
      >>> task = ioi(jax.random.key(0), tokenizer, n=4, order="ABBA", template=0)
      >>> task.clean.shape, sorted(task.positions)
      ((4, 15), ['end', 'io', 'object', 'place', 's1', 's2'])
    """
    return _task(key, tokenizer, n, partial(phenomena.ioi, split=split), attributes)


def facts(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Facts: `the capital of France is` -> Paris; the twin has another subject. Arguments and errors as in `ioi`.

    Positions: subject, end. Attributes: relation (capital, language, continent, profession, city, instrument), subject,
    phrasing.
    """
    return _task(key, tokenizer, n, partial(phenomena.facts, split=split), attributes)


def agreement(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Agreement: `today the dogs near the tree` -> are, not is; in the twin the subject has the other number.

    Positions: cue, subject, attractor, end. Attributes: number, attractor_number, cue. Arguments and
    errors as in `ioi`.
    """
    return _task(key, tokenizer, n, partial(phenomena.agreement, split=split), attributes)


def sentiment(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Sentiment: a review, then `so Anna felt` -> happy, not sad; the twin judges the other way.

    Positions: adj1, adj2, aspect, aspect2, name, thing, end. Attributes: label (positive or negative), template,
    negations. Arguments and errors as in `ioi`.
    """
    return _task(key, tokenizer, n, partial(phenomena.sentiment, split=split), attributes)


def opposites(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """Opposites in two languages: `le contraire de chaud est` -> froid; the twin has another word.

    Positions: word, end. Attributes: language, answer_language (another one only in the train split), template, word.
    Arguments and errors as in `ioi`.
    """
    return _task(key, tokenizer, n, partial(phenomena.opposites, split=split), attributes)


def binding(
    key: jax.Array, tokenizer: Any, n: int = 64, *, n_boxes: int = 3, split: str = "heldout", **attributes: object
) -> Task:
    """Binding: `the keys are in box A , … . box A contains` -> keys; in the twin it has changed places with another.

    Positions: object, box, object_other, box_other, object_2 and box_2 and so on, query, end.
    Attributes: clause (wording of the sentence), query (of the question: box or list).
    Other arguments and errors as in `ioi`.
    """
    make = partial(phenomena.binding, split=split, n_boxes=n_boxes, n_queries=1)
    return _task(key, tokenizer, n, make, attributes)


def repeated(key: jax.Array, tokenizer: Any, n: int = 64, *, split: str = "heldout", **attributes: object) -> Task:
    """A random sequence that repeats after `;`: its next word; the twin has another one in the first half.

    Positions: source (the word to copy, in the first half), end. Attributes: length. Arguments and errors as in `ioi`.
    """
    return _task(key, tokenizer, n, partial(phenomena.repeated, split=split), attributes)


TASKS: dict[str, Callable[..., Task]] = {
    "ioi": ioi,
    "facts": facts,
    "agreement": agreement,
    "sentiment": sentiment,
    "opposites": opposites,
    "binding": binding,
    "repeated": repeated,
}


def accuracy(forward: Callable[..., jax.Array], model: Any, task: Task) -> float:
    """The share of prompts after which the answer is the likeliest of all tokens.

    Args:
      forward: as `models.forward`: (model, tokens, attention_mask=, logits_at=) -> [batch d_vocab].
      model: its first argument.
      task: any.

    Example:
      >>> from interp_jax import models
      >>> model, tokenizer = models.load("microworld")
      >>> accuracy(models.forward, model, ioi(jax.random.key(0), tokenizer, n=16)) > 0.9
      True
    """
    logits = forward(model, task.clean, attention_mask=task.mask, logits_at=task.at)
    return int((logits.argmax(-1) == task.answers).sum()) / len(task.answers)


def _task(
    key: jax.Array, tokenizer: Any, n: int, make: Callable[[random.Random], Example], attributes: dict[str, object]
) -> Task:
    encoded = list(itertools.islice(_encoded(random.Random(int(jax.random.bits(key))), tokenizer, make, attributes), n))
    prefix = tokenizer.encode("")  # what the tokenizer puts before every text: its <bos>, or nothing
    width = len(prefix) + max(len(clean) for _, clean, *_ in encoded)
    clean, corrupted = (np.zeros((n, width), np.int32) for _ in range(2))
    mask = np.zeros((n, width), bool)
    for row, (_, clean_ids, corrupted_ids, _, _) in enumerate(encoded):
        start = width - len(prefix) - len(clean_ids)
        clean[row, start:] = [*prefix, *clean_ids]
        corrupted[row, start:] = [*prefix, *corrupted_ids]
        mask[row, start:] = True
    names = set.intersection(*(set(example.positions) for example, *_ in encoded))
    starts = np.array([width - len(clean_ids) for _, clean_ids, *_ in encoded], np.int32)
    positions = {
        name: starts + np.array([example.positions[name] for example, *_ in encoded], np.int32)
        for name in sorted(names)
    }
    answers, distractors = (np.array(column, np.int32) for column in list(zip(*encoded, strict=True))[3:])
    arrays = (clean, corrupted, mask, positions["end"], answers, distractors, positions)
    return Task(*jax.tree.map(jax.numpy.asarray, arrays))


def _encoded(
    rng: random.Random, tokenizer: Any, make: Callable[[random.Random], Example], attributes: dict[str, object]
) -> Iterator[tuple[Example, list[int], list[int], int, int]]:
    """Examples with the attributes and words of one token each; with clean ids, corrupted ids, answer, distractor."""
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
        clean, corrupted = ((*example.prompt, example.answer), (*example.corrupted, example.distractor))
        clean_ids, corrupted_ids = (tokenizer.encode(" ".join(words), bos=False) for words in (clean, corrupted))
        whole = len(clean_ids) == len(corrupted_ids) == len(clean)
        if not whole or tokenizer.unk_id in (*clean_ids, *corrupted_ids):
            why = (
                f"{' '.join(clean)!r} is not one token a word in this tokenizer; use that of models.load('microworld')"
            )
            continue
        misses = 0
        yield example, clean_ids[:-1], corrupted_ids[:-1], clean_ids[-1], corrupted_ids[-1]
    raise ValueError(f"{example.phenomenon}: {why}")
