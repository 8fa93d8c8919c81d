"""Texts of two classes for `explain_data.py`: sentences whose rule is planted, or reviews of films; who judges them."""

import random
from typing import Any, NamedTuple

import data_explanations as explaining
import local_chat
import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from interp_jax.data import lexicon as lex
from interp_jax.data import microworld, sst2

WORDS = r"\S+"
REVIEW = "Review: {}\nIs the review positive or negative? Answer with one word, positive or negative."


class Source(NamedTuple):
    """Texts with labels to learn from and held out, what labels them, and what is planted."""

    train: sst2.Reviews
    test: sst2.Reviews
    process: explaining.Judge
    rule: frozenset[str] = frozenset()
    decoy: str = ""


def planted(cfg: Any, seed: int) -> Source:
    """Sentences about people, places and objects; some objects make class 1."""
    rng = random.Random(f"rule {seed}")
    rule, decoy = frozenset(rng.sample(lex.OBJECTS, cfg.n_rule)), rng.choice(lex.PLACES)
    places = [place for place in lex.PLACES if place != decoy]

    def draw(n: int, split: str, shares: tuple[float, float], noise: float) -> sst2.Reviews:
        stream = microworld.WORLD.examples(rng, {"ioi": 1.0}, split)
        texts, labels = [], []
        while len(texts) < n:
            example, label = next(stream), len(texts) % 2
            words = list(example.words)
            words[example.positions["place"]] = decoy if rng.random() < shares[label] else rng.choice(places)
            if (example.attributes["object"] in rule) == label:
                texts.append(" ".join(words))
                labels.append(label if rng.random() >= noise else 1 - label)
        return sst2.Reviews(tuple(texts), np.array(labels, np.int32))

    def process(texts: explaining.Texts) -> np.ndarray:
        return np.array([2.0 * bool(rule & set(text.split())) - 1 for text in texts])

    train = draw(cfg.n_train, "train", (0.1 * cfg.together, cfg.together), cfg.noise)
    return Source(train, draw(cfg.n_test, "heldout", (0.5, 0.5), 0.0), process, rule, decoy)


def reviews(cfg: Any, seed: int, speaker: local_chat.Speaker | None) -> Source:
    """SST-2; what judges has learnt from other reviews, or is the language model itself."""
    rng = np.random.default_rng(seed)
    assert cfg.data is not None
    test = sst2.read(cfg.data / "dev.tsv", least=4)
    test = test.rows(rng.permutation(len(test))[: cfg.n_test])
    rest = sst2.apart(sst2.read(cfg.data / "train.tsv", least=4), test)
    some = rng.permutation(len(rest))
    train, others = rest.rows(some[: cfg.n_train]), rest.rows(some[cfg.n_train :])
    if speaker is None:
        return Source(train, test, bag(others).decision_function)

    def process(texts: explaining.Texts) -> np.ndarray:
        return local_chat.odds(
            speaker, [REVIEW.format(text) for text in texts], "positive", "negative", "The review is"
        )

    return Source(train, test, process)


def bag(some: sst2.Reviews) -> Any:
    """A logistic regression on which words a text has."""
    words = CountVectorizer(token_pattern=WORDS, binary=True, lowercase=False)
    return make_pipeline(words, LogisticRegression(max_iter=2000)).fit(some.sentences, some.labels)


def kind(source: Source, one: explaining.Explanation) -> str:
    """Whether an explanation is of the planted rule, the decoy, or neither."""
    if one.words & source.rule:
        return "rule"
    return "decoy" if source.decoy in one.words else "neither"
