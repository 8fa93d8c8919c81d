"""The concepts of real models for `axbench.py`: topics, whose texts are sentences of WikiText-2.

A concept scores by its words, counted. An instruction asks for something whose word is known. Fluency is what the model
itself, not steered, makes of the continuation: its mean nats a token, by two thresholds.
"""

from collections.abc import Callable
import functools
import random
import re
from typing import Any

from axbench_concepts import Concept, turns
import depths
import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import models
from interp_jax.steering.judges import Scores

TOPICS = {  # the words of a topic; and words that it shares with others, for hard negatives
    "music": (
        "music musical song songs album albums singer guitar melody concert orchestra piano lyrics band",
        "record records single note score release",
    ),
    "the sea": (
        "sea ocean ship ships boat sailors sail coast waves fish whale harbor navy vessel",
        "port bank deck current wave command",
    ),
    "war": (
        "war battle army soldiers troops enemy military weapons regiment infantry invasion defeat",
        "attack defence campaign fire front forces victory",
    ),
}
ASKED = {  # whose answer is one word
    "What is the capital of France?": "Paris",
    "What is the capital of Italy?": "Rome",
    "What is the capital of Japan?": "Tokyo",
    "Which planet do we live on?": "Earth",
    "What color is the sky on a clear day?": "blue",
    "What do bees make?": "honey",
    "What is frozen water called?": "ice",
    "Which animal says meow?": "cat",
}
REQUEST = "Tell me something."  # to which a sentence is the answer
WIDTH = 96  # tokens of an instruction and a continuation


def concept(
    name: str, n_train: int, n_held: int, n_asked: int, seed: int, fluent: Callable[[str, str], int]
) -> Concept:
    """A topic. Hard negatives have a word that topics share, and none of the topic's own.

    Raises:
      SystemExit: it is none of `TOPICS`; too many sentences or instructions are asked for.
    """
    if name not in TOPICS:
        raise SystemExit(f"concepts: {name!r} is none of {', '.join(TOPICS)}")
    rng, (own, shared) = random.Random(f"{name} {seed}"), TOPICS[name]
    files = [depths.data("wikitext2") / name for name in ("valid.txt", "test.txt")]
    lines = [line.strip() for file in files for line in re.split(r" \. |\n", file.read_text(encoding="utf-8"))]
    words = {line: set(line.lower().split()) for line in lines if 8 <= len(line.split()) <= 20}
    words = {line: found for line, found in words.items() if not re.search("[=@<]", line)}
    kinds = {
        "positive": [line for line, found in words.items() if found & set(own.split())],
        "negative": [line for line, found in words.items() if not found & set(f"{own} {shared}".split())],
        "hard": [line for line, found in words.items() if not found & set(own.split()) and found & set(shared.split())],
    }
    sizes = {"positive": n_train + n_held, "negative": n_train + n_held, "hard": n_held}
    if any(len(kinds[kind]) < n for kind, n in sizes.items()) or n_asked >= len(ASKED):
        there = ", ".join(f"{len(some)} {kind}" for kind, some in kinds.items())
        raise SystemExit(
            f"{name}: {there} sentences, and {len(ASKED)} instructions, of which some are to train on: lower n_train, "
            "n_held or n_asked"
        )
    drawn = {kind: [turns(REQUEST, line) for line in rng.sample(kinds[kind], n)] for kind, n in sizes.items()}
    held = {kind: some[-n_held:] for kind, some in drawn.items()}
    asked, system = rng.sample(list(ASKED), n_asked), f"You always talk about {name}."
    instructions, prompted = [turns(one) for one in asked], [turns(one, system=system) for one in asked]
    others = [one for one in ASKED if one not in asked]
    pairs = [turns(one) for one in others], [turns(one, system=system) for one in others]
    train = drawn["positive"][:n_train], drawn["negative"][:n_train], *pairs
    judge = functools.partial(counted, fluent)
    return Concept(name, tuple(own.split()[:2]), *train, held, instructions, prompted, judge)


def counted(fluent: Callable[[str, str], int], instruction: str, continuation: str, concept: str) -> Scores:
    """How many of the topic's words are said, up to 2; 2 where the answer's word is; how fluent the model finds it."""
    words = set(re.findall(r"[a-z]+", continuation.lower()))
    has = len(set(TOPICS[concept][0].split()) & words)
    return Scores(min(has, 2), 2 * (ASKED[instruction].lower() in words), fluent(instruction, continuation))


def fluency(model: Any, tokenizer: Any, limits: tuple[float, float]) -> Callable[[str, str], int]:
    """A score of a continuation: 2 and 1 up to so many nats a token, of the model when it is not steered; 0 beyond, and
    where half of the words are repetitions, which are likely and not fluent."""

    @jax.jit
    def nats(model: Any, tokens: Any, mask: Any, counts: Any) -> Any:
        told = jax.nn.log_softmax(models.forward(model, tokens, attention_mask=mask)[:, :-1].astype(jnp.float32))
        each = -jnp.take_along_axis(told, tokens[:, 1:, None], axis=-1)[..., 0]
        return each.mean(where=counts[:, 1:])

    @functools.lru_cache(10_000)
    def score(instruction: str, continuation: str) -> int:
        words = continuation.lower().split()
        if len(set(words)) <= len(words) / 2:
            return 0
        prompt = tokenizer.encode(turns(instruction), chat=True)
        ids = [*prompt, *tokenizer.encode(continuation, bos=False)][:WIDTH]
        row = np.zeros((3, 1, WIDTH), np.int32)
        row[0, 0, : len(ids)], row[1, 0, : len(ids)], row[2, 0, len(prompt) : len(ids)] = ids, 1, 1
        size = float(nats(model, row[0], row[1].astype(bool), row[2].astype(bool)))
        return 2 if size <= limits[0] else int(size <= limits[1])

    return score
