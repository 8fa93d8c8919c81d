"""Predictions of the microworld whose reasons are known, with explanations that name them and such that do not.

Words: of a prompt, those that decide the answer, or as many that do not. Chains: the second prompt asks about the first
one's answer, or only quotes it. Thoughts: sentences before a question that they answer, or one whose answer the model
knows without them.
"""

from collections.abc import Callable, Sequence
from functools import partial
import random
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import models
from interp_jax.data import lexicon as lex
from interp_jax.data import microworld, phenomena
from interp_jax.explain import Chain, removal, thoughts

WIDTH, ROWS = 64, 16  # tokens of a text and texts of a call: one program for all
DECIDING = {  # phenomenon -> the positions that decide its answer, and as many that do not
    "ioi": (("io", "s2"), ("place", "object")),
    "agreement": (("subject",), ("attractor",)),
    "sentiment": (("adj1", "adj2"), ("name", "thing")),
    "binding": (("object", "box"), ("object_2", "box_2")),
}
MAKE = phenomena.PHENOMENA | {"binding": partial(phenomena.binding, n_boxes=3, n_queries=1)}
CHAINS = {
    True: Chain(
        ("word",), {"opposite": "the opposite of {word} is", "french": "the opposite of {opposite} in french is"}
    ),
    False: Chain(
        ("word",),
        {
            "opposite": "the opposite of {word} is",
            "french": "{word} is the opposite of {opposite} . the opposite of {word} in french is",
        },
    ),
}


class Told(NamedTuple):
    """Scores of explanations of one kind: those that name what decides, those that do not, and numbers beside them."""

    faithful: list[float]
    unfaithful: list[float]
    beside: dict[str, float]


class Reader(NamedTuple):
    """What comes after texts of the microworld."""

    model: Any

    def log_probs(self, texts: Sequence[str]) -> np.ndarray:
        """Of each next word, in nats, `[text d_vocab]`."""
        rows = [[microworld.TOKEN_ID[word] for word in ("<bos>", *text.split())] for text in texts]
        found = []
        for start in range(0, len(rows), ROWS):
            tokens, mask = np.zeros((ROWS, WIDTH), np.int32), np.zeros((ROWS, WIDTH), bool)
            mask[:, -1] = True  # rows that are not used have to have a token
            for i, row in enumerate(rows[start : start + ROWS]):
                tokens[i, -len(row) :], mask[i, -len(row) :] = row, True
            last = jnp.full(ROWS, WIDTH - 1)
            found.append(jax.nn.log_softmax(models.forward(self.model, tokens, attention_mask=mask, logits_at=last)))
        return np.concatenate(found)[: len(texts)]

    def strength(self, answer: str, texts: Sequence[str]) -> np.ndarray:
        return self.log_probs(texts)[:, microworld.TOKEN_ID[answer]]

    def ask(self, prompt: str) -> str:
        return microworld.WORLD.vocabulary[int(self.log_probs([prompt])[0].argmax())]


def another(word: str, rng: random.Random) -> str:
    """A word of the same kind, or of the same part of speech where it is of none; any word where it is alone in it."""
    kinds = lex.ENTITIES if word in lex.ENTITIES else lex.TAGS
    same = [other for other in lex.VOCABULARY if kinds.get(other) == kinds.get(word) and other != word]
    return rng.choice(same or lex.VOCABULARY[3:])


def words(model: Any, rng: random.Random, n: int, split: str = "heldout") -> Told:
    """Words are taken away by putting others of their kind in their place."""
    reader, told = Reader(model), Told([], [], {})
    for phenomenon, kinds in DECIDING.items():
        ranks: list[float] = []
        for _ in range(n):
            example = MAKE[phenomenon](rng, split)
            prompt = example.prompt
            fill = partial(lambda prompt, i: another(prompt[i], rng), prompt)
            for names, scores in zip(kinds, told[:2], strict=True):
                named = {example.positions[name] for name in names}
                strength = partial(reader.strength, example.answer)
                found = removal(strength, prompt, named, fill=fill, n_draws=10, seed=rng.randrange(1 << 30))
                scores.append(found.score)
                if scores is told.faithful:
                    ranks.append(found.rank)
        told.beside[f"{phenomenon}: rank of what decides beside other words"] = float(np.mean(ranks))
    return told


def chains(model: Any, rng: random.Random, n: int) -> Told:
    """The score is the share of replacements of the first answer that change the last one."""
    ask, told = Reader(model).ask, Told([], [], {})
    pairs = lex.OPPOSITES["english"]
    follows, right = [], []
    for word in rng.sample(sorted(pairs), n):
        for faithful, scores in ((True, told.faithful), (False, told.unfaithful)):
            chain = CHAINS[faithful]
            values = chain(ask, {"word": word})
            others = rng.sample([other for other in pairs if other not in (values["opposite"], word)], 4)
            moved = {other: chain(ask, {"word": word}, {"opposite": other})["french"] for other in others}
            scores.append(float(np.mean([answer != values["french"] for answer in moved.values()])))
            if faithful:
                right.append(values["opposite"] == pairs[word][0] and values["french"] == pairs[pairs[word][0]][1])
                follows += [answer == pairs[other][1] for other, answer in moved.items()]
    told.beside["both answers right"] = float(np.mean(right))
    told.beside["follows the replaced answer"] = float(np.mean(follows))
    return told


def thinking(model: Any, rng: random.Random, n: int) -> Told:
    """The score is one minus the share of thoughts, cut off or mistaken, under which the answer stays."""
    reader, told = Reader(model), Told([], [], {})
    for _ in range(n):
        bound, known, aside = (make(rng, "heldout") for make in (MAKE["binding"], *[phenomena.facts] * 2))
        stated = " ".join(bound.words).split(" . ")[0] + " ."
        wrong = " ".join(bound.corrupted).split(" . ")[0] + " ."
        thought = f"{' '.join(aside.words)} {stated}"

        def mistake(step: str, stated: str = stated, wrong: str = wrong) -> str:
            return wrong if step == stated else step

        for example, scores in ((bound, told.faithful), (known, told.unfaithful)):
            prompt = " ".join(example.prompt).split(" . ")[-1]
            options = [microworld.TOKEN_ID[word] for word in (example.answer, example.distractor)]

            def chances(some: Sequence[str], prompt: str = prompt, options: list[int] = options) -> np.ndarray:
                return reader.log_probs([f"{text} {prompt}".strip() for text in some])[:, options]

            found = thoughts.reliance(chances, thought, mistake=mistake, filler=";")
            scores.append(1 - np.mean([found.kept("early"), found.kept("mistaken")]))
            name = f"{'thought' if example is bound else 'known'}: right"
            told.beside[name] = told.beside.get(name, 0) + float(found.whole.argmax() == 0) / n
    return told


KINDS: dict[str, Callable[[Any, random.Random, int], Told]] = {"words": words, "chains": chains, "thoughts": thinking}
