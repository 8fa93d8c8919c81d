"""Pairs of a truth and a falsehood for `truthx.py`, as activations, and what scores a model on others."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import choices
import doses
import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import models
from interp_jax.data import tasks

SITES = ("blocks.attn_out", "blocks.mlp_out")
Acts = dict[str, np.ndarray]  # site -> [layer pair d_model]
Scored = Callable[[doses.Edits], dict[str, float]]  # what is wanted comes first


class Sizes(Protocol):
    """How many prompts, or questions of at most `n_tokens` tokens with an answer."""

    @property
    def n_train(self) -> int: ...
    @property
    def n_choose(self) -> int: ...
    @property
    def n_test(self) -> int: ...
    @property
    def n_tokens(self) -> int: ...


def written(model: Any, tokens: Any, mask: Any, chunk: int = 32) -> Acts:
    """What attention and MLPs write at the last token."""
    reduce = {site: lambda x: x[:, -1].astype(jnp.float32) for site in SITES}
    read, parts = ij.capture(models.forward, reduce, output=False), []
    for start in range(0, len(tokens), chunk):
        rows = np.minimum(np.arange(start, start + chunk), len(tokens) - 1)
        acts = read(model, jnp.asarray(tokens)[rows], attention_mask=jnp.asarray(mask)[rows])
        parts.append(jax.tree.map(np.asarray, acts))
    return {site: np.concatenate([part[site] for part in parts], axis=1)[:, : len(tokens)] for site in SITES}


def of_world(cfg: Sizes, model: Any, tokenizer: Any, seed: int) -> tuple[Acts, Acts, np.ndarray, Scored, Scored]:
    """Both sides of pairs, which to train on, and what scores edits to choose by and on held-out examples."""
    keys = jax.random.split(jax.random.key(seed), 3)
    sizes = zip(keys, (cfg.n_train, cfg.n_choose, cfg.n_test), ("train", "train", "heldout"), strict=True)
    train, known, test = (tasks.sycophancy(key, tokenizer, n, split=split) for key, n, split in sizes)

    def scored(task: Any, edits: doses.Edits) -> dict[str, float]:
        f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
        said, own = np.asarray(ij.intervene(f, edits)(model, task.clean).argmax(-1)), task.attributes["own"] == "yes"
        right = said == np.where(own, task.distractors, task.answers)
        return {"truth against the user": float(right[own].mean()), "else": float(right[~own].mean())}

    own = (train.attributes["own"] == "yes")[:, None]
    sides = (np.where(own, a, b) for a, b in ((train.corrupted, train.clean), (train.clean, train.corrupted)))
    positive, negative = (written(model, tokens, train.mask) for tokens in sides)
    groups = np.array(
        [f"{a} {b}" for a, b in zip(train.attributes["country"], train.attributes["belief"], strict=True)]
    )
    return positive, negative, groups, partial(scored, known), partial(scored, test)


def of_questions(cfg: Sizes, model: Any, tokenizer: Any, seed: int) -> tuple[Acts, Acts, np.ndarray, Scored, Scored]:
    """The same of TruthfulQA: as many pairs of a question as it has true and false answers."""
    some = choices.questions(seed, cfg.n_train + cfg.n_choose + cfg.n_test, cfg.n_tokens, tokenizer)
    train, known, test = (
        choices.choices(tokenizer, part)
        for part in (some[: cfg.n_train], some[cfg.n_train : -cfg.n_test], some[-cfg.n_test :])
    )
    sides, groups = ([], []), []
    for i in range(cfg.n_train):
        rows = [np.flatnonzero((train.question == i) & (train.true == side)) for side in (True, False)]
        for pair in zip(*rows, strict=False):
            groups.append(i)
            for side, row in zip(sides, pair, strict=True):
                side.append(row)

    def scored(given: choices.Choices, edits: doses.Edits) -> dict[str, float]:
        return dict(zip(("MC1", "MC2"), choices.mc(given, choices.log_probs(model, given, edits)), strict=True))

    acts = written(model, train.tokens, train.mask)
    positive, negative = ({site: x[:, side] for site, x in acts.items()} for side in sides)
    return positive, negative, np.array(groups), partial(scored, known), partial(scored, test)
