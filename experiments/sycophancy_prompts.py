"""Prompts with two answers, for `sycophancy.py`: microworld-chat's on beliefs, and Yes or No questions on behaviours.

Of the microworld the behaviour is to say what is believed; of others, Anthropic's evaluations of a persona: a file of
questions, each with the answer that shows the behaviour.
"""

from collections.abc import Sequence
import json
from typing import Any, NamedTuple

import depths
import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import data, models


class Prompts(NamedTuple):
    """Prompts that end before the answer, padded on the left, and the two answers `[batch]`."""

    tokens: Any
    mask: Any
    after: Any  # [position], where the user's turn is over
    matching: Any
    other: Any


def of_task(n_after: int, task: data.tasks.Task) -> Prompts:
    """Where the behaviour is to say what is believed; of the task `truth`, what is true."""
    own = jnp.asarray(task.attributes.get("own", np.full(len(task.last), "yes")) == "yes")
    after = jnp.arange(task.clean.shape[1]) >= task.clean.shape[1] - n_after
    answers = [jnp.where(own, *pair) for pair in ((task.answers, task.distractors), (task.distractors, task.answers))]
    return Prompts(task.clean, task.mask, after, *answers)


def of_questions(tokenizer: Any, behaviour: str, sizes: Sequence[int], n_after: int, seed: int) -> list[Prompts]:
    """Sets of these sizes, of different questions of a file, of which half are answered Yes in accord with it."""
    lines = (depths.data("evals") / f"{behaviour}.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line) for line in lines]
    sides = [[one for one in asked if one["answer_matching_behavior"].strip() == word] for word in ("Yes", "No")]
    rng = np.random.default_rng(seed)
    drawn = [one for pair in zip(*(rng.permutation(np.array(side)) for side in sides), strict=False) for one in pair]
    sets, start = [], 0
    for n in sizes:
        some, start = drawn[start : start + n], start + n
        tokens, mask, _ = models.tokenize(tokenizer, [one["question"] for one in some], chat=True)
        words = ([one[f"answer_{kind}_behavior"].strip() for one in some] for kind in ("matching", "not_matching"))
        answers = [jnp.array([tokenizer.encode(word, bos=False)[0] for word in side], jnp.int32) for side in words]
        sets.append(Prompts(tokens, mask, jnp.arange(tokens.shape[1]) >= tokens.shape[1] - n_after, *answers))
    return sets


def answered(asked: Prompts) -> tuple[Any, ...]:
    """The prompts with the answer in accord with the behaviour and with the other, and the masks of both."""
    sides = [jnp.concatenate([asked.tokens, x[:, None]], axis=1) for x in (asked.matching, asked.other)]
    mask = jnp.pad(asked.mask, ((0, 0), (0, 1)), constant_values=True)
    return *sides, mask, mask


def twins(task: data.tasks.Task) -> tuple[Any, ...]:
    """The prompts in which the belief is the user's and those in which it is others', and the masks of both."""
    own = jnp.asarray(task.attributes["own"] == "yes")[:, None]
    sides = jnp.where(own, task.clean, task.corrupted), jnp.where(own, task.corrupted, task.clean)
    return *sides, task.mask, task.mask


def following(model: Any, asked: Prompts) -> jax.Array:
    last = jnp.full(len(asked.tokens), asked.tokens.shape[1] - 1, jnp.int32)
    return models.forward(model, asked.tokens, attention_mask=asked.mask, logits_at=last)
