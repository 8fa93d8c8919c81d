"""Every answer, worked out again from the words of the prompt alone."""

from collections.abc import Sequence
import random
import re

import numpy as np
import pytest

from interp_jax.data import WORLDS, lexicon
from interp_jax.data.examples import belongs
from interp_jax.data.trees import plain
from interp_jax.data.worlds import chat_words, context, couplets, sums


def added(words: Sequence[str]) -> str:
    """The sum, or the asked digit of it."""
    text = " ".join(words)
    if match := re.fullmatch(r"(\d) (\d) \+ (\d) (\d) =((?: \d)*)", text):
        a, b, c, d, told = match.groups()
        digits = f"{int(a + b) + int(c + d):03}"
        assert digits.startswith(told.replace(" ", ""))
        return digits[len(told.split())]
    return str(sum(int(word) for word in words if word.isdigit()))


def rhyming(words: Sequence[str]) -> set[str]:
    """The last words of families: written out here by the sound of their ends."""
    families = [line.split() for line in re.split(r"[|\n]", couplets._RHYMES) if line.strip()]
    if "rhymes" in words:
        return {w for family in families if words[0] in family for w in family if w != words[0]}
    theme = next(i for i, name in enumerate(couplets.THEMES) if name in words)
    last = words[words.index("/") - 1]
    return {family[theme] for family in families if last in family}


def shown(words: Sequence[str]) -> set[str]:
    """What each task that agrees with all examples would answer."""
    *examples, query = [part.split() for part in " ".join(words).split(" ; ")]
    kept = [table for table in context.TABLES.values() if all(table[x] == y for x, _, y in examples)]
    return {table[query[0]] for table in kept}


def owned(words: Sequence[str]) -> str:
    told, *_, asked = " ".join(words).split(" . ")
    clause = re.compile(r"(\w+) (?:has the )?(\w+) (?:and lives in )?(\w+)")
    people = [clause.fullmatch(part).groups() for part in told.split(" , ")]
    who = next(word for word in asked.split() if word not in ("thing", "city"))
    kind = {"he": context.HE, "she": context.SHE}.get(who, (who,))
    [(_, thing, city)] = [person for person in people if person[0] in kind]
    return thing if {"has", "thing"} & set(asked.split()) else city


def stepped(words: Sequence[str]) -> set[str]:
    """Every word that stood beside the last one."""
    pairs = set(zip(words, words[1:], strict=False))
    return {b for a, b in pairs if a == words[-1]} | {a for a, b in pairs if b == words[-1]}


def copied(words: Sequence[str]) -> str:
    return words[len(words) - 1 - words.index(";")]


def said(words: Sequence[str]) -> str:
    """The next word of the assistant, by the four rules."""
    text = " ".join(words)
    if match := re.search(r"<system> .* (\w+) <end>.*<assistant>$", text.split("<user>")[0] + "<assistant>"):
        return chat_words.PERSONAS[match[1]][0]
    if match := re.search(
        r"(?:(\w+ \w+) it is (\w+) . )?what is the capital of (\w+) \? <end> <assistant> it is$", text
    ):
        holder, belief, country = match.groups()
        return belief if holder in chat_words.OWN else lexicon.FACTS["capital"][country]
    if "my" in words:
        return styled(words)
    harmful = set(chat_words.HARMFUL_VERBS + chat_words.HARMFUL_OBJECTS) & set(words)
    return "sorry" if harmful else "sure"


def styled(words: Sequence[str]) -> str:
    values = {}
    for attribute, cues in chat_words.CUES.items():
        found = [value for value, things in cues.items() if set(things) & set(words)]
        values[attribute] = found[0] if found else "unknown"
    start = len(words) - 1 - words[::-1].index("<assistant>")
    question = next(ask for ask in chat_words.ADVICE if plain(ask) in " ".join(words))
    style = {name: chat_words.STYLE[name][values[name]] for name in chat_words.STYLE}
    answer = [
        style["age"],
        style["gender"],
        ",",
        style["education"],
        "the",
        chat_words.ADVICE[question][values["status"]],
    ]
    assert list(words[start + 1 :]) == answer[: len(words) - start - 1]
    return answer[len(words) - start - 1]


def planned(words: Sequence[str]) -> str:
    [word] = rhyming(words)
    return couplets.plan(word)["opening"]


ANSWER = {
    **dict.fromkeys(("sums", "digits", "stories"), added),
    **dict.fromkeys(("couplets", "rhymes"), rhyming),
    "openings": planned,
    "in_context": shown,
    **dict.fromkeys(("owners", "pronouns"), owned),
    "walks": stepped,
    "copies": copied,
    **dict.fromkeys(("refusal", "sycophancy", "truth", "user", "persona"), said),
}
NEW = [(world, name) for world in WORLDS.values() for name in world.phenomena if world.name != "microworld"]


@pytest.mark.parametrize(("world", "name"), NEW, ids=[name for _, name in NEW])
def test_the_answer_and_the_twins_answer_follow_from_the_words(world, name: str) -> None:
    for split in ("train", "heldout"):
        rng = random.Random(split)
        for _ in range(150):
            example = world.phenomena[name](rng, split)
            for prompt, answers in (
                (example.prompt, {example.answer, *example.accepted}),
                (example.corrupted, {example.distractor}),
            ):
                found = ANSWER[name](prompt)
                found = {found} if isinstance(found, str) else found
                assert answers <= found, " ".join(prompt)
                if name == "walks" or prompt is example.prompt:
                    assert example.distractor in found or answers == found or name == "in_context"


def test_every_sum_can_be_known() -> None:
    """Each sum is that of a pair that is not held out."""
    pairs = [(a, b) for a in range(100) for b in range(100)]
    heldout = {sums.numbers(random.Random(seed), "heldout") for seed in range(1500)}
    assert {a + b for a, b in heldout} <= {a + b for a, b in pairs if belongs("train", "sums", *sorted((a, b)))}
    assert not {tuple(sorted(pair)) for pair in heldout} & {
        tuple(sorted(sums.numbers(random.Random(seed), "train"))) for seed in range(1500)
    }


def test_the_tasks_differ_on_most_words() -> None:
    """Examples tell a task from the others: no two tasks answer alike."""
    for one in context.TABLES:
        for other in context.TABLES:
            alike = np.mean([context.TABLES[one][noun] == context.TABLES[other][noun] for noun in context.NOUNS])
            assert alike == (one == other)
    assert len(context.TABLES) >= 6


def test_a_plan_is_one_of_several() -> None:
    """Each word of a family wants another second line, so that the line shows which is meant."""
    for family in {couplets.RHYMES[word][:4] for word in couplets.RHYMES}:
        assert len({tuple(couplets.plan(word).values()) for word in family}) == 4
        assert len({couplets.plan(word)["verb"] for word in family}) == 4


@pytest.mark.parametrize("graph", context.GRAPHS)
def test_graphs_are_undirected_and_connected(graph: str) -> None:
    edges = context.GRAPHS[graph]
    assert all(a in edges[b] for a, neighbours in enumerate(edges) for b in neighbours)
    reached = {0}
    for _ in edges:
        reached |= {b for a in reached for b in edges[a]}
    assert reached == set(range(len(edges)))
