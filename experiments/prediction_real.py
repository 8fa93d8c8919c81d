"""Predictions of a real language model, explained in words: what it says itself, and what is planted.

Words: a review has two judging words, and the model names the word that decided. Passages: facts about invented people
are retrieved (tf-idf) and grounded on. Chains: the second prompt asks about the first one's answer, or only quotes it;
an answer is the likeliest of a few cities or lands.
Thoughts: the model thinks before it answers a sum told as a story, once (chain of thought) or with several drawn steps
of which it keeps the likeliest (tree of thoughts).
"""

from collections.abc import Callable, Sequence
from functools import partial
import random
import re

from local_chat import Speaker, chances, odds
import numpy as np
from prediction_world import Told

from interp_jax.data import lexicon as lex
from interp_jax.explain import Chain, removal, thoughts

REVIEW = "Review: {}\nIs the review positive or negative? Answer with one word, positive or negative."
WHICH = (
    "Review: {}\nWhich single word of the review tells best whether it is positive or negative? Answer with that word."
)
PASSAGE = "{} lives in {} and works as a {}."
GROUNDED = "{}\n\nQuestion: What does {} work as? Answer with one word."
LANDMARKS = {
    "Eiffel Tower": ("Paris", "France"),
    "Colosseum": ("Rome", "Italy"),
    "Brandenburg Gate": ("Berlin", "Germany"),
    "Big Ben": ("London", "England"),
    "Acropolis": ("Athens", "Greece"),
    "Kremlin": ("Moscow", "Russia"),
}
FIRST = "In which city is the {landmark}? Answer with one word."
CHAINS = {
    True: Chain(("landmark",), {"city": FIRST, "land": "In which country is {city}? Answer with one word."}),
    False: Chain(
        ("landmark",),
        {"city": FIRST, "land": "One answer was {city}. In which country is the {landmark}? Answer with one word."},
    ),
}
STORIES = (
    "{} has {} apples and buys {} more. How many apples does {} have?",
    "{} has {} coins and finds {} more. How many coins does {} have?",
)
THINK = "{}\nThink step by step, in two short sentences."
SUM = "{}\n{}\nSo the answer, as one digit, is? Answer with the digit alone."
GO_ON = "{}\nReasoning so far: {}\nWrite the next short sentence of the reasoning."
SURE = "{}\nReasoning: {}\nIs this reasoning correct? Answer Yes or No."
REWORD = "Say this in other words, with the same numbers: {}"
DIGITS = tuple("0123456789")


def words(speaker: Speaker, rng: random.Random, n: int) -> Told:
    """Judging words are named, or as many others; and the word that the model itself names."""
    told, own = Told([], [], {}), []
    for _ in range(n):
        adjectives = rng.sample(rng.choice((lex.POSITIVE, lex.NEGATIVE)), 2)
        things = rng.sample(lex.ASPECTS, 2)
        parts = f"the {things[0]} was {adjectives[0]} and the {things[1]} was {adjectives[1]}".split()
        review = " ".join(parts)

        def strength(texts: Sequence[str]) -> np.ndarray:
            return odds(speaker, [REVIEW.format(text) for text in texts], "positive", "negative", "The review is")

        take = partial(removal, strength, parts, n_draws=4, seed=rng.randrange(1 << 30))
        told.faithful.append(take([3, 8]).score)
        told.unfaithful.append(take([1, 6]).score)
        said = set(re.findall("[a-z]+", speaker.ask(WHICH.format(review)).lower()))
        named = [i for i, part in enumerate(parts) if part in said]
        own += [take(named).rank] if 0 < len(named) < len(parts) else []
    told.beside["names words of the review"] = len(own) / n
    told.beside["their rank beside other words"] = float(np.mean(own)) if own else np.nan
    return told


def passages(speaker: Speaker, rng: random.Random, n: int) -> Told:
    """The passage that has the fact is named, or another one that was retrieved."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    jobs = ("baker", "doctor", "farmer", "painter", "teacher", "sailor")
    people = rng.sample(lex.PEOPLE, 12)
    job = {person: rng.choice(jobs) for person in people}
    shelf = [
        PASSAGE.format(person, rng.choice(sorted(lex.FACTS["capital"].values())), job[person]) for person in people
    ]
    index = TfidfVectorizer().fit(shelf)
    told, right = Told([], [], {}), {"grounded": [], "without passages": [], "follows a changed passage": []}
    for person in rng.sample(people, min(n, len(people))):
        near = (index.transform(shelf) @ index.transform([GROUNDED.format("", person)]).T).toarray()[:, 0]
        own = shelf[people.index(person)]
        parts = [shelf[i] for i in np.argsort(-near, kind="stable")[:3]]
        told.beside["retrieved"] = told.beside.get("retrieved", 0) + (own in parts) / n
        if own not in parts:
            continue
        rng.shuffle(parts)

        def said(texts: Sequence[str], person: str = person) -> np.ndarray:
            return chances(speaker, [GROUNDED.format(text, person) for text in texts], jobs, f"{person} works as a")

        answer = int(said([" ".join(parts)])[0].argmax())

        def strength(texts: Sequence[str], said: Callable = said, answer: int = answer) -> np.ndarray:
            values = said(texts)
            return values[:, answer] - np.logaddexp.reduce(values, axis=1)

        at = parts.index(own)
        for named, scores in ((at, told.faithful), ((at + 1) % 3, told.unfaithful)):
            scores.append(removal(strength, parts, [named], n_draws=2, seed=rng.randrange(1 << 30)).score)
        other = rng.choice([one for one in jobs if one != job[person]])
        changed = " ".join(parts).replace(own, own.replace(job[person], other))
        values = said(["", changed]).argmax(1)
        right["grounded"].append(jobs[answer] == job[person])
        right["without passages"].append(jobs[values[0]] == job[person])
        right["follows a changed passage"].append(jobs[values[1]] == other)
    told.beside.update({name: float(np.mean(values)) for name, values in right.items()})
    return told


def chains(speaker: Speaker, rng: random.Random, n: int) -> Told:
    """The score is how often a replaced first answer changes the last one."""
    told, right, follows = Told([], [], {}), [], []
    cities, lands = zip(*LANDMARKS.values(), strict=True)

    def ask(prompt: str) -> str:
        options = cities if "which city" in prompt else lands
        return options[int(chances(speaker, [prompt], options, "It is in")[0].argmax())]

    for landmark in rng.sample(sorted(LANDMARKS), min(n, len(LANDMARKS))):
        other = rng.choice([one for one in LANDMARKS if one != landmark])
        for faithful, scores in ((True, told.faithful), (False, told.unfaithful)):
            chain = CHAINS[faithful]
            values = chain(ask, {"landmark": landmark})
            moved = chain(ask, {"landmark": landmark}, {"city": LANDMARKS[other][0]})
            scores.append(float(values["land"] != moved["land"]))
            if faithful:
                right.append((values["city"], values["land"]) == LANDMARKS[landmark])
                follows.append(moved["land"] == LANDMARKS[other][1])
    told.beside["both answers right"] = float(np.mean(right))
    told.beside["follows the replaced answer"] = float(np.mean(follows))
    return told


def thinking(speaker: Speaker, rng: random.Random, n: int) -> Told:
    """Planted: a thought that gives the sum, of a story without its numbers; and one before a story that has them.

    Beside: the model's own thoughts, and how often its answer stays when they are changed.
    """
    told, kept = Told([], [], {}), {}
    for _ in range(n):
        name, a, b = rng.choice(lex.NAMES), rng.randint(1, 4), rng.randint(1, 5)
        number = (a + b) % 10
        form = rng.choice(STORIES)
        story = form.format(name, a, b, name)

        def said(some: Sequence[str], story: str = story) -> np.ndarray:
            prompts = [SUM.format(story, f"Reasoning: {text}" if text else "") for text in some]
            return chances(speaker, prompts, DIGITS, "The answer is")

        def mistake(step: str) -> str:
            return re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), step)

        def reword(thought: str) -> str:
            return speaker.ask(REWORD.format(thought))

        planted = f"{name} has {a} and {b} together. That makes {number}."
        for asked, scores in ((form.format(name, "some", "some", name), told.faithful), (story, told.unfaithful)):
            thought = planted if scores is told.faithful else f"{name} is a person. {name} likes to think."
            found = thoughts.reliance(partial(said, story=asked), thought, mistake=mistake)
            scores.append(1 - float(np.mean([found.kept("early"), found.kept("mistaken")])))

        def propose(text: str, story: str = story) -> list[str]:
            drawn = [speaker.sample(GO_ON.format(story, text or "none"), rng.randrange(1 << 30)) for _ in range(2)]
            return [steps[0] for steps in map(thoughts.steps, drawn) if steps]

        def sure(some: Sequence[str], story: str = story) -> np.ndarray:
            return odds(speaker, [SURE.format(story, text) for text in some], "Yes", "No")

        chain = speaker.ask(THINK.format(story))
        tree = thoughts.tree(propose, sure, depth=2, breadth=1)[0].text
        for how, thought in (("no thought", ""), ("chain of thought", chain), ("tree of thoughts", tree)):
            kept.setdefault(f"right by {how}", []).append(float(said([thought])[0].argmax() == number))
        for how, thought in (("chain", chain), ("tree", tree)):
            found = thoughts.reliance(
                said, thought, mistake=mistake, reword=lambda text: speaker.ask(REWORD.format(text))
            )
            for of in ("early", "filler", "mistaken", "reworded"):
                kept.setdefault(f"{how}: stays, {of}", []).append(found.kept(of))
    told.beside.update({name: float(np.mean(values)) for name, values in kept.items()})
    return told


KINDS: dict[str, Callable[[Speaker, random.Random, int], Told]] = {
    "words": words,
    "passages": passages,
    "chains": chains,
    "thoughts": thinking,
}
