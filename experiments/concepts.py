"""Sets of prompts with a label each, read at the last token, for `concept_depth.py`, `truth.py`, `user_attributes.py`.

Of a microworld's model they are its own, with a label that is known; of any other they are texts of real data sets.
"""

from dataclasses import dataclass
import random
from typing import Any

import depths
import jax
import numpy as np

from interp_jax import models, probes
from interp_jax.data import sst2, statements, tasks


@dataclass(frozen=True)
class Concept:
    """Prompts, the label of each, and its group: what must not stand on both sides of a split."""

    prompts: list[Any]
    y: np.ndarray
    names: tuple[str, ...]  # of the labels
    groups: np.ndarray
    chat: Any = None  # as `models.tokenize` takes it

    @property
    def commonest(self) -> float:
        return float(np.bincount(self.y).max() / len(self.y))


def concept(prompts: list[Any], labels: list[str], groups: list[str], **options: Any) -> Concept:
    names, y = np.unique(labels, return_inverse=True)
    return Concept(prompts, y.astype(np.int32), tuple(map(str, names)), np.array(groups), **options)


def of_statements(found: list[statements.Statement]) -> Concept:
    return concept(
        [one.text for one in found], ["true" if one.true else "false" for one in found], [one.group for one in found]
    )


def states(model, tokenizer, these: Concept) -> np.ndarray:
    """What every layer holds at the last token of each prompt, of one size: `[layer example d_model]`."""
    tokens, mask, _ = models.tokenize(tokenizer, these.prompts, chat=these.chat)
    return depths.of_one_size(depths.layers(model, tokens, mask, lambda x: x[:, -1]))


def split(these: Concept, seed: int, share: float = 0.7) -> np.ndarray:
    """Which examples are trained on: all those of `share` of the groups, drawn among those of like labels."""
    rng, alike = np.random.default_rng(seed), {}
    for group in np.unique(these.groups):
        alike.setdefault(tuple(np.unique(these.y[these.groups == group])), []).append(group)
    chosen = [group for some in alike.values() for group in rng.permutation(some)[: round(share * len(some))]]
    return np.isin(these.groups, chosen)


def fit(x: np.ndarray, y: np.ndarray, train: np.ndarray, l2: float) -> tuple[probes.LinearProbe, np.ndarray]:
    """A logistic regression of every layer, and its accuracy `[layer]` on the examples that it was not trained on."""
    probe = probes.logistic(x, y, l2=l2, weights=train, n_classes=int(y.max()) + 1)
    return probe, np.asarray(probes.scores(probe, x, y, weights=~train).accuracy)


def of_microworld(tokenizer, n: int, seed: int) -> dict[str, Concept]:
    """From what stands in the last word to what the model has to know: language, number, sentiment, order, truth."""
    found = {}
    for name, attribute in (
        ("opposites", "language"),
        ("agreement", "number"),
        ("sentiment", "label"),
        ("ioi", "order"),
    ):
        task = tasks.TASKS[name](jax.random.key(seed), tokenizer, n, split="train")
        texts = words(tokenizer, task.clean, task.mask)
        found[f"{attribute} of {name}"] = concept(texts, list(task.attributes[attribute]), texts)
    facts = statements.of_microworld(random.Random(seed), n)
    return found | {"truth of facts": of_statements(facts)}


def words(tokenizer, tokens: Any, mask: Any) -> list[str]:
    """The texts of a world's prompts, which give the same tokens again."""
    return [tokenizer.decode(row[real][1:]) for row, real in zip(np.asarray(tokens), np.asarray(mask), strict=True)]


def of_texts(n: int, seed: int) -> dict[str, Concept]:
    """Sentiment of reviews, truth of relations, and of answers to questions that invite error."""
    rng = random.Random(seed)
    reviews = sst2.read(depths.data("sst2") / "dev.tsv", least=5, most=20)
    some = reviews.rows(rng.sample(range(len(reviews)), min(n, len(reviews))))
    texts, names = list(some.sentences), [("negative", "positive")[y] for y in some.labels]
    found = {"sentiment of reviews": concept(texts, names, texts)}
    for name, file in RELATIONS.items():
        found[name] = of_statements(statements.of_relation(rng, depths.data("relations") / file, n))
    file = depths.data("truthfulqa") / "TruthfulQA.csv"
    return found | {"truth of TruthfulQA": of_statements(statements.of_truthfulqa(rng, file, n))}


RELATIONS = {
    "truth of tenses": "verb_past_tense.json",
    "truth of landmarks": "landmark_in_country.json",
    "truth of makers": "product_by_company.json",
    "truth of seats": "company_hq.json",
}
