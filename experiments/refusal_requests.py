"""Requests that do harm and that do none, for `refusal.py`: microworld-chat's, and in English for any other model."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from interp_jax import data, models
from interp_jax.data.trees import plain
from interp_jax.data.worlds import chat_words

WORLD = "microworld-chat"


class Prompts(NamedTuple):
    """Requests in the chat template, padded on the left, and how the microworld helps with each."""

    tokens: Any
    mask: Any
    last: Any
    help: tuple[str, ...]


def requests(tokenizer: Any, world: bool, harmful: bool, key: jax.Array, split: str, n: int) -> Prompts:
    """`n` different requests of the microworld, in English where the model is another."""
    of_world = tokenizer if world else models.load(WORLD)[1]
    task = data.tasks.refusal(key, of_world, 20 * n, split=split, harmful="yes" if harmful else "no")
    verbs, objects, templates = (task.attributes[name] for name in ("verb", "object", "template"))
    drawn = list(dict.fromkeys(zip(verbs, objects, map(int, templates), strict=True)))[:n]
    texts, help = [], []
    for verb, thing, i in drawn:
        text = plain(chat_words.REQUESTS[i]).format(verb=verb, object=thing)
        english = text.replace(" ?", "?").replace(" .", ".").replace(" i ", " I ")
        texts.append(text if world else english[0].upper() + english[1:])
        help.append(plain(chat_words.HELP).format(verb=verb, object=thing))
    return Prompts(*models.tokenize(tokenizer, texts, chat=True), tuple(help))


def following(model: Any, asked: Any) -> jax.Array:
    """Logits of the token after the prompts, `[batch d_vocab]`."""
    return models.forward(model, asked[0], attention_mask=asked[1], logits_at=asked[2])


def answers(model: Any, tokenizer: Any, asked: Prompts, n_tokens: int, edits: Mapping[str, Any]) -> list[str]:
    """What is said after each prompt, up to its end or `n_tokens`."""
    out = models.generate(model, asked.tokens, n_tokens, attention_mask=asked.mask, edits=edits, stop=tokenizer.eos_id)
    rows = np.asarray(out)[:, asked.tokens.shape[1] :]
    ends = [np.append(np.flatnonzero(row == tokenizer.eos_id), len(row))[0] for row in rows]
    return [tokenizer.decode(row[:end]).strip() for row, end in zip(rows, ends, strict=True)]
