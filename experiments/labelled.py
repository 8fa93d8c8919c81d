"""Activations with labels: judgements of the microworld or of SST-2, at named positions of every layer.

What the experiments with probes share. The microworld's reviews have two judgements that agree; held out are pairs of
adjectives that never stand together in training. Of SST-2 the last words of a sentence are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import data, models

LAST = 3  # words of a sentence that are read, counted from its end
WORDS = (5, 20)  # of a sentence of SST-2


@dataclass(frozen=True)
class Texts:
    """Prompts padded on the left, and where to read them."""

    tokens: np.ndarray  # [example position]
    mask: np.ndarray
    columns: dict[str, np.ndarray]  # name -> [example]
    labels: np.ndarray  # 1 where positive
    types: np.ndarray  # what a control task gives a label to: the first adjective, or the last token

    def rows(self, which: Any) -> "Texts":
        return jax.tree.map(lambda a: a[which], self)

    @property
    def positions(self) -> tuple[str, ...]:
        return tuple(self.columns)


jax.tree_util.register_dataclass(Texts)


def microworld(tokenizer: Any, n: int, seed: int, split: str) -> Texts:
    """Reviews, with or without negations; of the training split, or of pairs of adjectives that it never has."""
    key = jax.random.fold_in(jax.random.key(seed), split == "train")
    task = data.tasks.sentiment(key, tokenizer, n, split=split)
    names = [name for name in ("adj1", "adj2", "end") if name in task.columns]
    columns = {name: np.asarray(task.columns[name]) for name in names}
    labels = (task.attributes["label"] == "positive").astype(np.int32)
    tokens = np.asarray(task.clean)
    types = tokens[np.arange(n), columns["adj1"]]
    return Texts(tokens, np.asarray(task.mask), columns, labels, types)


def reviews(tokenizer: Any, some: data.sst2.Reviews) -> Texts:
    tokens, mask, _ = models.tokenize(tokenizer, list(some.sentences))
    tokens, mask = np.asarray(tokens), np.asarray(mask).astype(bool)
    width, full = tokens.shape[1], np.full(len(some), tokens.shape[1])
    columns = {f"last -{i}" if i else "last": full - 1 - i for i in reversed(range(LAST))}
    return Texts(tokens, mask, columns, some.labels, tokens[:, width - 1])


def texts(tokenizer: Any, folder: Path | None, n_train: int, n_test: int, seed: int) -> tuple[Texts, np.ndarray]:
    """Texts, those to train on first, and which are held out; `folder` has SST-2, None is the microworld."""
    held_out = np.arange(n_train + n_test) >= n_train
    if folder is None:
        parts = [microworld(tokenizer, n, seed, split) for n, split in ((n_train, "train"), (n_test, "heldout"))]
        width = max(part.tokens.shape[1] for part in parts)
        return jax.tree.map(lambda *a: np.concatenate(a), *[_widened(part, width) for part in parts]), held_out
    rng = np.random.default_rng(seed)
    train, test = (data.sst2.read(folder / f"{name}.tsv", least=WORDS[0], most=WORDS[1]) for name in ("train", "dev"))
    test = test.rows(rng.permutation(len(test))[:n_test])
    train = data.sst2.apart(train.rows(rng.permutation(len(train))[: 2 * n_train]), test)
    both = train.rows(range(n_train))
    some = data.sst2.Reviews(both.sentences + test.sentences, np.concatenate([both.labels, test.labels]))
    return reviews(tokenizer, some), held_out


def _widened(part: Texts, width: int) -> Texts:
    more = width - part.tokens.shape[1]
    tokens, mask = (np.pad(a, ((0, 0), (more, 0))) for a in (part.tokens, part.mask))
    return Texts(tokens, mask, {name: at + more for name, at in part.columns.items()}, part.labels, part.types)


def activations(model: Any, some: Texts, sites: Sequence[str], batch_size: int, begin: Any) -> dict[str, np.ndarray]:
    """Each site at every layer and named position, float32 `[layer position example d]`; short texts run together."""
    lengths = some.mask.sum(1)
    order, found = np.argsort(lengths, kind="stable"), []

    @jax.jit
    def read(model: Any, tokens: Any, mask: Any, columns: Any) -> Any:
        where = {site: lambda x: x[jnp.arange(len(x)), columns] for site in sites}  # [position batch d]
        return ij.capture(models.forward, where, output=False)(model, tokens, attention_mask=mask)

    for start in range(0, len(order), batch_size):
        begin(f"texts {start}")
        rows = np.resize(order[start : start + batch_size], batch_size)  # a last batch that is not full goes round
        width = min(some.tokens.shape[1], -(-int(lengths[rows].max()) // 8) * 8)
        cut = some.tokens.shape[1] - width
        columns = np.stack([some.columns[name][rows] - cut for name in some.positions])
        got = read(model, some.tokens[rows, cut:], some.mask[rows, cut:], columns)
        found.append({site: np.asarray(got[site], np.float32)[:, :, : len(order) - start] for site in sites})
    back = np.argsort(order)
    return {site: np.concatenate([part[site] for part in found], axis=2)[:, :, back] for site in sites}


def n_batches(n: int, batch_size: int) -> int:
    return -(-n // batch_size)
