"""A model that is read and steered at one layer, and what steering is to change. For `shared_geometry.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
import itertools
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import models
from interp_jax.data import lexicon, microworld
from interp_jax.interventions import add, at


@dataclass(frozen=True)
class Behaviour:
    """A vector leads from the mean state after `less` to that after `more`; it is judged by the words after prompts."""

    name: str
    more: tuple[str, ...]
    less: tuple[str, ...]
    prompts: tuple[str, ...]
    likelier: tuple[str, ...]
    unlikelier: tuple[str, ...]


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    model: Any
    tokenizer: Any
    layer: int

    @classmethod
    def load(cls, name: str, depth: float) -> "Side":
        model, tokenizer = models.load(name, dtype="float32")
        return cls(model, tokenizer, round(depth * (model.config.n_layers - 1)))

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.resid_post"

    def words(self) -> list[str]:
        return self.tokenizer.to_str_tokens(range(self.tokenizer.d_vocab))

    def state_after(self, texts: Sequence[str]) -> jax.Array:
        """The mean residual stream after texts `[d_model]`."""
        tokens, mask, last = models.tokenize(self.tokenizer, texts)
        reduce = {self.site: lambda x: x[jnp.arange(len(x)), last].mean(0)}
        return ij.capture(models.forward, reduce, output=False)(self.model, tokens, attention_mask=mask)[self.site]

    def steered(self, behaviour: Behaviour, directions: jax.Array, strengths: Sequence[float]) -> np.ndarray:
        """Log odds of the wanted words `[direction strength prompt]`, after strength 0 too."""
        tokens, mask, last = models.tokenize(self.tokenizer, behaviour.prompts)
        counted = mask & (jnp.cumsum(mask, axis=1) > 1)  # the first token is a giant in some models
        f = partial(models.forward, attention_mask=mask, logits_at=last)
        resid = ij.capture(f, self.site, output=False)(self.model, tokens)[self.site]
        length = jnp.linalg.norm(resid, axis=-1).mean(where=counted)
        ids = [jnp.array([self.tokenizer.token_id(w) for w in b]) for b in (behaviour.likelier, behaviour.unlikelier)]

        def log_odds(vector: jax.Array) -> jax.Array:
            logits = ij.intervene(f, {self.site: at(add(vector), mask=counted)})(self.model, tokens)
            wanted, others = (jax.nn.logsumexp(logits[:, i], axis=-1) for i in ids)
            return wanted - others

        scaled = jnp.array((0.0, *strengths))[:, None] * length * directions[:, None]
        flat = jax.jit(partial(jax.lax.map, log_odds))(scaled.reshape(-1, scaled.shape[-1]))
        return np.asarray(flat).reshape(*scaled.shape[:2], -1)


def of_microworld(seed: int, n: int) -> list[Behaviour]:
    """Reviews, good and bad, whose last word follows; opposites in French and in English. Judged on held-out ones.

    Of reviews both kinds: a vector that only destroys what they say would make bad ones better, and good ones worse.
    """
    good, bad = zip(*(verdicts for _, *verdicts in lexicon.SENTIMENT_TEMPLATES), strict=True)
    sentiment = Behaviour(
        "sentiment",
        _drawn("sentiment", "train", seed, n, label="positive"),
        _drawn("sentiment", "train", seed, n, label="negative"),
        _drawn("sentiment", "heldout", seed, n // 2, label="positive")
        + _drawn("sentiment", "heldout", seed, n // 2, label="negative"),
        good,
        bad,
    )
    french, english = (tuple(lexicon.OPPOSITES[language]) for language in ("french", "english"))
    language = Behaviour(
        "French",
        _drawn("opposites", "train", seed, n, language="french", answer_language="french"),
        _drawn("opposites", "train", seed, n, language="english", answer_language="english"),
        _drawn("opposites", "heldout", seed, n, language="english"),
        french,
        english,
    )
    return [sentiment, language]


def _drawn(phenomenon: str, split: str, seed: int, n: int, **attributes: str) -> tuple[str, ...]:
    """Prompts of the microworld that have these attributes."""
    stream = microworld.WORLD.examples(random.Random(f"{phenomenon} {seed}"), {phenomenon: 1.0}, split)
    fitting = (e for e in stream if attributes.items() <= e.attributes.items())
    return tuple(" ".join(example.prompt) for example in itertools.islice(fitting, n))


OPENINGS = (
    "The film was", "I found the book", "We thought that the hotel was", "My meal there was", "Their new song is",
    "The service at the bank was", "Her speech was", "The weather on our trip was",
)  # fmt: skip
POSITIVE = "wonderful brilliant lovely superb delightful fantastic charming beautiful perfect pleasant".split()
NEGATIVE = "dreadful boring ugly disappointing annoying miserable nasty disgusting painful unpleasant".split()
PROMPTS = (
    "The food at the new restaurant is", "In my opinion, the concert was", "The old house on the hill looks",
    "My friend says that the game is", "I think the new teacher is", "Everyone agreed that the party was",
    "We left early, since the play was", "I want my money back: the food was", "Nobody likes it there; the beds are",
    "It rained, we were cold, and the trip was", "He was fired because his work was", "Do not buy it. The sound is",
)  # fmt: skip
GOOD, BAD = (" good", " great", " excellent", " amazing"), (" bad", " terrible", " awful", " horrible")


def of_english(seed: int, n: int) -> list[Behaviour]:
    """Sentences with a good or a bad word; judged by other words, after prompts that are neither or rather bad."""
    pairs = list(itertools.product(OPENINGS, range(len(POSITIVE))))
    drawn = random.Random(seed).sample(pairs, min(n, len(pairs)))
    more, less = (
        tuple(f"{opening} {words[i]}. All in all it was" for opening, i in drawn) for words in (POSITIVE, NEGATIVE)
    )
    return [Behaviour("sentiment", more, less, PROMPTS, GOOD, BAD)]
