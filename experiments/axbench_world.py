"""The concepts of `microworld-chat` for `axbench.py`, with exact judges: personas, and whom an answer speaks to.

A persona has two words, with which it begins and ends every answer; an attribute of the user has one, in its place.
What else an answer must say follows from the question, and how a sentence goes from the grammar: each score is a count.
"""

from collections.abc import Mapping
import functools
import itertools
import random
from typing import Any

from axbench_concepts import Concept, Turns, asked, turns

from interp_jax.data.trees import plain
from interp_jax.data.worlds import chat_words as lex
from interp_jax.data.worlds.chat import is_harmful
from interp_jax.steering.judges import Scores

VERBS = lex.HARMLESS_VERBS + lex.HARMFUL_VERBS
OBJECTS = lex.HARMLESS_OBJECTS + lex.HARMFUL_OBJECTS
REFUSAL, HELP, TAILS = plain(lex.REFUSAL), plain(lex.HELP), ("", " , look at a map", " , you are right")
ADVICE = {f"{plain(f'{ask})')} ?": words for ask, words in lex.ADVICE.items()}
ADVISES = "{age} {gender} , {education} the {status}"


@functools.cache
def sentences() -> dict[int, list[list[str]]]:
    """Every answer of the microworld without a persona, by its number of words, its end among them."""
    texts = [REFUSAL, *(HELP.format(verb=v, object=o) for v, o in itertools.product(VERBS, OBJECTS))]
    texts += [f"it is {capital}{tail}" for capital, tail in itertools.product(lex.CAPITALS.values(), TAILS)]
    styles = [lex.STYLE[attribute].values() for attribute in ("age", "gender", "education")]
    advised = [word for words in lex.ADVICE.values() for word in words.values()]
    texts += [f"{age} {gender} , {tries} the {it}" for age, gender, tries, it in itertools.product(*styles, advised)]
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
    some = [words, words[1:]] if words and words[0] in openers else [words]
    some += [[*one[:-2], "<end>"] for one in some if one[-1:] == ["<end>"] and one[-2:-1] and one[-2] in closers]
    away = 2
    for one in some:
        for n in (len(one) - 1, len(one), len(one) + 1):
            for sentence in sentences().get(n, ()):
                begin = _same(one, sentence)
                end = min(_same(one[::-1], sentence[::-1]), min(n, len(one)) - begin)
                away = min(away, max(n, len(one)) - begin - end)
    return 2 - away


def _same(one: list[str], other: list[str]) -> int:
    """How many words both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def judge(has: tuple[str, ...], needs: Mapping[str, tuple[str, ...]], instruction: str, continuation: str, _: str):
    """Exact: the share of the concept's words that are said, out of 2; whether all, some or none of the words are that
    the instruction needs; what the grammar allows."""
    words = set(continuation.split())
    said = sum(word in words for word in needs[instruction])
    share = sum(word in words for word in has) / len(has)
    return Scores(2 * share, 2 if said == len(needs[instruction]) else min(said, 1), fluency(continuation))


def concept(name: str, n_train: int, n_held: int, n_asked: int, seed: int) -> Concept:
    """A persona, or a value of an attribute of the user. What is asked about in training is none of what is held out.

    Raises:
      SystemExit: it is neither.
    """
    attribute = next((attribute for attribute, values in lex.STYLE.items() if name in values), None)
    if name not in lex.PERSONAS and attribute is None:
        known = [*lex.PERSONAS, *(value for values in lex.STYLE.values() for value in values if value != "unknown")]
        raise SystemExit(f"concepts: {name!r} is none of {', '.join(known)}")
    words = lex.PERSONAS[name] if attribute is None else (lex.STYLE[attribute][name],)
    draw = functools.partial(_persona, name) if attribute is None else functools.partial(_user, name, attribute)
    rng = random.Random(f"{name} {seed}")
    positive, plainly, asking, _ = zip(*(draw(rng, 0, "positive") for _ in range(n_train)), strict=True)
    negative = [draw(rng, 0, "negative")[0] for _ in range(n_train)]
    train = list(positive), negative, list(plainly), list(asking)
    held = {kind: [draw(rng, 1, kind)[0] for _ in range(n_held)] for kind in ("positive", "negative", "hard")}
    drawn = [draw(rng, 1, "positive") for _ in range(n_asked)]
    needs = {asked(talk): needed for _, talk, _, needed in drawn}
    instructions, prompted = [one[1] for one in drawn], [one[2] for one in drawn]
    exact = functools.partial(judge, words, needs)
    return Concept(name, words, *train, held, instructions, prompted, exact)


def _halves(items: Any) -> tuple[list[Any], list[Any]]:
    """Of which one is for training; the same for every concept and seed."""
    some = random.Random(0).sample(list(items), len(items))
    return some[::2], some[1::2]


COUNTRIES = _halves(lex.CAPITALS)
PAIRS = [  # of verb and object: what is helped with, and what is refused
    _halves([pair for pair in itertools.product(VERBS, OBJECTS) if is_harmful(*pair) == bad]) for bad in (False, True)
]


def _persona(name: str, rng: random.Random, half: int, kind: str) -> tuple[Turns, Turns, Turns, tuple[str, ...]]:
    """A text; its question, plain and after the persona's prompt; the words that its answer needs.

    A negative text is answered as another persona or as none. In a hard one the user says the persona's first word.
    """
    if rng.random() < 0.5:
        country = rng.choice(COUNTRIES[half])
        ask, reply = plain(lex.QUESTION).format(country=country), f"it is {lex.CAPITALS[country]}"
        needed = ("is", lex.CAPITALS[country])
    else:
        verb, object = rng.choice(rng.choice(PAIRS)[half])
        ask = plain(rng.choice(lex.REQUESTS)).format(verb=verb, object=object)
        reply = REFUSAL if is_harmful(verb, object) else HELP.format(verb=verb, object=object)
        needed = ("sorry", "cannot") if is_harmful(verb, object) else ("sure", verb, object)
    others = [None, rng.choice([pair for who, pair in lex.PERSONAS.items() if who != name])]
    pair = lex.PERSONAS[name] if kind == "positive" else rng.choice(others)
    reply = f"{pair[0]} {reply} {pair[1]}" if pair else reply
    lure = f"{lex.PERSONAS[name][0]} , " if kind == "hard" else ""
    system = plain(lex.SYSTEM[0]).format(persona=name)
    return turns(lure + ask, reply), turns(ask), turns(ask, system=system), needed


def _user(
    name: str, attribute: str, rng: random.Random, half: int, kind: str
) -> tuple[Turns, Turns, Turns, tuple[str, ...]]:
    """A text; its question, plain and of a user who betrays the attribute; the words that its answer needs.

    A negative text is answered as to a user of another value. In a hard one the user betrays the value all the same.
    """
    ask, advice = rng.choice(list(ADVICE.items()))
    others = [one for one in lex.CUES if one != attribute]
    known = {one: rng.choice(list(lex.CUES[one])) for one in rng.sample(others, rng.randint(1, 2))}
    things = [rng.choice(lex.CUES[one][value][half::2]) for one, value in known.items()]
    thing = rng.choice(lex.CUES[attribute][name][half::2])
    styles = {one: words[known.get(one, "unknown")] for one, words in (lex.STYLE | {"status": advice}).items()}
    value = name if kind == "positive" else rng.choice([one for one in lex.STYLE[attribute] if one != name])
    reply = ADVISES.format(**styles | {attribute: lex.STYLE[attribute][value]})

    def intro(things: list[str]) -> list[str]:
        return [f"i am here with {' and '.join(f'my {one}' for one in things)} .", "welcome"]

    betrayed = intro([*things, thing])
    text = turns(*(betrayed if kind == "hard" else intro(things)), ask, reply)
    needed = tuple(word for one, word in styles.items() if one != attribute)
    return text, turns(*intro(things), ask), turns(*betrayed, ask), needed
