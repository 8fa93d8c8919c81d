"""Tasks that only examples tell, as pairs of words and as prompts: the microworld's, and those of real data sets."""

from collections.abc import Sequence
from dataclasses import dataclass
import json
from typing import Any

import depths
import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import models
from interp_jax.data.worlds.context import TABLES

Pairs = list[tuple[str, str]]
FORMS = {True: ("", "{} : {} ; ", "{} :", ""), False: ("", "Q: {}\nA: {}\n\n", "Q: {}\nA:", " ")}  # of the microworld


@dataclass(frozen=True)
class Prompts:
    """Prompts padded on the left; `end` counts the last token in real tokens, `answers` are first tokens."""

    tokens: jax.Array  # [prompt position]
    mask: jax.Array
    last: jax.Array  # [prompt], a column
    end: jax.Array  # [prompt]
    answers: jax.Array  # [prompt]

    def rows(self, which: Any) -> "Prompts":
        return jax.tree.map(lambda x: x[jnp.asarray(which)], self)


jax.tree_util.register_dataclass(Prompts)


def tasks(tokenizer: Any, names: Sequence[str], world: bool, least: int) -> tuple[dict[str, Pairs], str]:
    """The pairs of each task whose answers are one token each, and how many were left out, in words."""
    found, left = {}, []
    for name in names:
        if world:
            pairs = list(TABLES[name].items())
        else:
            text = (depths.data("function-vectors") / f"{name}.json").read_text(encoding="utf-8")
            pairs = [(str(row["input"]), str(row["output"])) for row in json.loads(text)]
        kept = [(x, y) for x, y in pairs if len(tokenizer.encode(FORMS[world][3] + y, bos=False)) == 1]
        if len(kept) < least:
            raise SystemExit(f"{name}: {len(kept)} of {len(pairs)} answers are one token, and {least} pairs are needed")
        found[name] = kept
        if len(kept) < len(pairs):
            left.append(f"{name} {len(pairs) - len(kept)} of {len(pairs)}")
    return found, f"Left out, since the answer is not one token: {', '.join(left)}." if left else ""


def split(pairs: Pairs, rng: np.random.Generator, n: int) -> tuple[Pairs, Pairs]:
    """Pairs to make a vector of, and `n` at most, or a third, that no prompt of those has."""
    order = [pairs[i] for i in rng.permutation(len(pairs))]
    n = min(n, len(order) // 3)
    return order[n:], order[:n]


def prompts(
    tokenizer: Any,
    rng: np.random.Generator,
    asked: Pairs,
    shown: Pairs,
    n_shown: int,
    *,
    world: bool,
    shuffled: bool = False,
) -> Prompts:
    """A prompt for each pair asked, with `n_shown` others as examples.

    Shuffled, no example tells the task: their answers are exchanged; of the microworld, where any answer tells it, each
    is that of a task drawn for it.
    """
    before, example, question, space = FORMS[world]
    texts = []
    for pair in asked:
        others = [other for other in shown if other != pair]
        some = [others[i] for i in rng.choice(len(others), n_shown, replace=False)]
        answers = [y for _, y in some]
        if shuffled and world:
            drawn = rng.choice(tuple(TABLES), n_shown)
            answers = [TABLES[task][x] for task, (x, _) in zip(drawn, some, strict=True)]
        elif shuffled:
            answers = answers[1:] + answers[:1]
        lines = [example.format(x, y) for (x, _), y in zip(some, answers, strict=True)]
        texts.append(before + "".join(lines) + question.format(pair[0]))
    tokens, mask, last = models.tokenize(tokenizer, texts)
    ids = jnp.array([tokenizer.token_id(space + y) for _, y in asked])
    return Prompts(tokens, mask, last, mask.sum(-1).astype(jnp.int32) - 1, ids)
