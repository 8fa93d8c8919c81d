"""Concepts of `axbench.py`: their texts, their instructions, and judges that are exact.

On `microworld-chat` a concept is a persona: the words with which it begins and ends every answer. What an answer must
say and how a sentence goes is known there, so that each score is a count. Of another model a concept is a topic: its
texts are sentences of WikiText-2, an instruction asks for something whose word is known, and fluency is what the model
itself, not steered, makes of the continuation.
"""

from collections.abc import Callable
from dataclasses import dataclass
import functools
import itertools
import random
import re
from typing import Any

import depths

from interp_jax.data.trees import plain
from interp_jax.data.worlds import chat_words as lex
from interp_jax.data.worlds.chat import is_harmful
from interp_jax.steering.judges import Judge, Scores

Turns = list[dict[str, str]]  # of a conversation


@dataclass(frozen=True)
class Concept:
    name: str  # as the judge knows it
    prompt: str  # of the system: the baseline of prompting
    words: tuple[str, ...]  # for the Jacobian lens
    positive: list[Turns]  # to train on
    negative: list[Turns]
    held: dict[str, list[Turns]]  # "positive", "negative", "hard": to detect
    instructions: list[str]
    judge: Judge


def turns(asked: str, answered: str | None = None, system: str | None = None) -> Turns:
    said = (("system", system), ("user", asked), ("assistant", answered))
    return [{"role": role, "content": content} for role, content in said if content is not None]


# --- microworld-chat: personas ----------------------------------------------------------------------------------------
BODIES = {"refuse": plain(lex.REFUSAL), "help": plain(lex.HELP), "fact": "it is {answer} , look at a map"}
TAILS = ("", " , look at a map", " , you are right")


def answer(asked: str) -> tuple[str, tuple[str, ...]]:
    """What the microworld's assistant answers to a question or a request, and the words that must be in it."""
    words = asked.split()
    if country := next((word for word in words if word in lex.CAPITALS), None):
        capital = lex.CAPITALS[country]
        return BODIES["fact"].format(answer=capital), ("is", capital)
    verb = next(word for word in words if word in lex.HARMLESS_VERBS + lex.HARMFUL_VERBS)
    object = next(word for word in words if word in lex.HARMLESS_OBJECTS + lex.HARMFUL_OBJECTS)
    if is_harmful(verb, object):
        return BODIES["refuse"], ("sorry", "cannot")
    return BODIES["help"].format(verb=verb, object=object), ("sure", verb, object)


@functools.cache
def sentences() -> dict[int, list[list[str]]]:
    """Every answer of the microworld without a persona, by its number of words, its end among them."""
    verbs, objects = lex.HARMLESS_VERBS + lex.HARMFUL_VERBS, lex.HARMLESS_OBJECTS + lex.HARMFUL_OBJECTS
    texts = [BODIES["refuse"]]
    texts += [BODIES["help"].format(verb=v, object=o) for v, o in itertools.product(verbs, objects)]
    texts += [f"it is {capital}{tail}" for capital, tail in itertools.product(lex.CAPITALS.values(), TAILS)]
    found: dict[int, list[list[str]]] = {}
    for text in texts:
        found.setdefault(len(text.split()) + 1, []).append([*text.split(), "<end>"])
    return found


@functools.lru_cache(100_000)
def fluency(continuation: str) -> int:
    """2 of what the grammar has, with the words of a persona at its beginning or end or without; 1 of what is one word
    away from that, too many, missing or wrong; else 0."""
    words = continuation.split()
    openers, closers = zip(*lex.PERSONAS.values(), strict=True)
    first = words[1:] if words and words[0] in openers else words
    some = {tuple(words), tuple(first)}
    for one in (words, first):
        if len(one) > 1 and one[-1] == "<end>" and one[-2] in closers:
            some.add((*one[:-2], "<end>"))
    away = 2
    for one in some:
        for n in (len(one) - 1, len(one), len(one) + 1):
            for sentence in sentences().get(n, ()):
                longest = max(n, len(one))
                same = _same(one, sentence)
                same += min(_same(one[::-1], sentence[::-1]), min(n, len(one)) - same)
                away = min(away, longest - same)
    return 2 - away


def _same(one: Any, other: Any) -> int:
    """How many words both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def of_persona(instruction: str, continuation: str, concept: str) -> Scores:
    """Exact: how many of the persona's two words are said; whether all, some or none of the answer's words are; what
    the grammar allows."""
    words, (_, needed) = set(continuation.split()), answer(instruction)
    said = sum(word in words for word in needed)
    has = sum(word in words for word in lex.PERSONAS[concept])
    return Scores(has, 2 if said == len(needed) else min(said, 1), fluency(continuation))


def of_microworld(n_concepts: int, n_train: int, n_held: int, n_asked: int, seed: int) -> list[Concept]:
    """Personas. Instructions and held-out texts ask for other countries, and other pairs of verb and object, than
    training texts. Hard negatives: the user says the persona's first word, and the assistant does not take it up."""
    found = []
    for name in list(lex.PERSONAS)[:n_concepts]:
        rng = random.Random(f"{name} {seed}")
        train, held = _asked(rng)
        opener, closer = lex.PERSONAS[name]
        others = [pair for who, pair in lex.PERSONAS.items() if who != name]

        def said(asked: str, words: tuple[str, str] | None, lure: str = "") -> Turns:
            body = answer(asked)[0].removesuffix(TAILS[1])  # as a persona answers: texts differ in its words alone
            return turns(lure + asked, f"{words[0]} {body} {words[1]}" if words else body)

        def negatives(asked: Callable[[], str], n: int, lure: str = "", rng=rng, others=others) -> list[Turns]:
            return [said(asked(), rng.choice(others) if i % 2 else None, lure) for i in range(n)]

        texts = {
            "positive": [said(held(), (opener, closer)) for _ in range(n_held)],
            "negative": negatives(held, n_held),
            "hard": negatives(held, n_held, f"{opener} , "),
        }
        positive, negative = [said(train(), (opener, closer)) for _ in range(n_train)], negatives(train, n_train)
        system = plain(lex.SYSTEM[0]).format(persona=name)
        asked = [held() for _ in range(n_asked)]
        found.append(Concept(name, system, (opener, closer), positive, negative, texts, asked, of_persona))
    return found


def _asked(rng: random.Random) -> tuple[Callable[[], str], Callable[[], str]]:
    """Draws questions and requests as often as each other, of two sets that have no topic in common."""
    countries = rng.sample(list(lex.CAPITALS), len(lex.CAPITALS))
    pairs = list(itertools.product(lex.HARMLESS_VERBS + lex.HARMFUL_VERBS, lex.HARMLESS_OBJECTS + lex.HARMFUL_OBJECTS))
    good, bad = ([pair for pair in pairs if is_harmful(*pair) == harmful] for harmful in (False, True))
    halves = [(some[::2], some[1::2]) for some in (countries, rng.sample(good, len(good)), rng.sample(bad, len(bad)))]

    def draw(half: int) -> str:
        if rng.random() < 0.5:
            return plain(lex.QUESTION).format(country=rng.choice(halves[0][half]))
        verb, object = rng.choice(halves[rng.choice((1, 2))][half])
        return plain(rng.choice(lex.REQUESTS)).format(verb=verb, object=object)

    return lambda: draw(0), lambda: draw(1)


# --- any other model: topics ------------------------------------------------------------------------------------------
TOPICS = {  # the words of a topic; and words that it shares with others, for hard negatives
    "music": (
        "music musical song songs album albums singer guitar melody concert orchestra piano lyrics band",
        "record records single band note score release",
    ),
    "the sea": (
        "sea ocean ship ships boat sailors sail coast waves fish whale harbor port navy vessel",
        "port bank deck current wave command",
    ),
    "war": (
        "war battle army soldiers troops attack enemy military weapons regiment infantry invasion defeat",
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
REQUEST = "Tell me something."


def of_topics(n_concepts: int, n_train: int, n_held: int, n_asked: int, seed: int, fluent: Callable) -> list[Concept]:
    """Topics. Hard negatives have one of the words that topics share, and none of the topic's own."""
    rng, found = random.Random(seed), []
    text = (depths.data("wikitext2") / "valid.txt").read_text(encoding="utf-8")
    lines = [line for line in re.split(r" \. |\n", text) if 8 <= len(line.split()) <= 20 and "=" not in line]
    for name, (own, shared) in list(TOPICS.items())[:n_concepts]:
        has = {line: len(set(own.split()) & set(line.lower().split())) for line in lines}
        hard = [x for x in lines if not has[x] and set(shared.split()) & set(x.lower().split())]
        kinds = {
            "positive": [x for x in lines if has[x] > 1],
            "negative": [x for x in lines if not has[x]],
            "hard": hard,
        }
        kinds = {kind: [turns(REQUEST, x) for x in rng.sample(some, len(some))] for kind, some in kinds.items()}
        held = {kind: some[n_train : n_train + n_held] for kind, some in kinds.items()}
        train = (kinds["positive"][:n_train], kinds["negative"][:n_train])
        asked, words = rng.sample(list(ASKED), min(n_asked, len(ASKED))), tuple(own.split()[:2])
        judge = functools.partial(of_topic, fluent)
        found.append(Concept(name, f"Always mention {name} in your answer.", words, *train, held, asked, judge))
    return found


def of_topic(fluent: Callable[[str, str], int], instruction: str, continuation: str, concept: str) -> Scores:
    """How many of the topic's words are said, to 2; 2 where the answer's word is; how fluent the model finds it."""
    words = re.findall(r"[a-z]+", continuation.lower())
    has = len(set(TOPICS[concept][0].split()) & set(words))
    return Scores(min(has, 2), 2 * (ASKED[instruction].lower() in words), fluent(instruction, continuation))
