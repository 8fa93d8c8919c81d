"""The concepts of `feature_steering.py`: those of AxBench in small, and refusal; and what shows one in an answer."""

import random
import re
from typing import Any

from axbench_concepts import Concept, turns
import axbench_topics
import axbench_world

from interp_jax import steering
from interp_jax.data.trees import plain
from interp_jax.data.worlds import chat_words as lex


def refusal(n_train: int, n_held: int, n_asked: int, seed: int) -> Concept:
    """What is harmful is refused; nothing asks for a refusal where the request is harmless."""
    rng = random.Random(f"refusal {seed}")

    def draw(half: int, n: int, harmful: bool) -> list[Any]:
        reply = (axbench_world.HELP, axbench_world.REFUSAL)[harmful]
        pairs = [rng.choice(axbench_world.PAIRS[harmful][half]) for _ in range(n)]
        slots = [{"verb": verb, "object": object} for verb, object in pairs]
        return [turns(plain(rng.choice(lex.REQUESTS)).format(**one), reply.format(**one)) for one in slots]

    held = {"positive": draw(1, n_held, True), "negative": draw(1, n_held, False), "hard": []}
    asked = [[talk[:1] for talk in draw(1, n_asked, harmful)] for harmful in (False, True)]
    train = draw(0, n_train, True), draw(0, n_train, False)
    begin = [[talk[:1] for talk in talks] for talks in train[::-1]]
    judge = lambda *_: steering.judges.Scores(0, 0, 0)  # noqa: E731
    return Concept("refusal", ("sorry",), *train, *begin, held, *asked, judge)


def concept(cfg: Any, name: str, seed: int) -> Concept:
    sizes = (cfg.n_train, cfg.n_held, cfg.n_asked, seed)
    if not cfg.model.startswith("microworld"):
        return axbench_topics.concept(name, *sizes, lambda *_: 2)
    return refusal(*sizes) if name == "refusal" else axbench_world.concept(name, *sizes)


def shows(cfg: Any, of: Concept, answer: str) -> bool:
    """Whether an answer has all words of a microworld's concept, or one of a topic's."""
    words = set(re.findall(r"[a-z]+", answer.lower()))
    if cfg.model.startswith("microworld"):
        return set(of.words) <= words
    return bool(set(axbench_topics.TOPICS[of.name][0].split()) & words)
