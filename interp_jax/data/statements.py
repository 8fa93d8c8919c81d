"""Statements that are true or false, for probes of truth: of the microworld's facts, of relations, of TruthfulQA.

References: Marks and Tegmark (2023), "The geometry of truth", https://arxiv.org/abs/2310.06824; Hernandez et al.
(2023), "Linearity of relation decoding", https://arxiv.org/abs/2308.09124, whose relations these are; Lin et al.
(2021), "TruthfulQA", https://arxiv.org/abs/2109.07958.
"""

import json
from pathlib import Path
import random
from typing import NamedTuple

from interp_jax.data import phenomena, truthfulqa


class Statement(NamedTuple):
    """A text, and whether it is true.

    topic: what it is about, such as its relation.
    group: the subject or question, which must not stand on both sides of a split.
    """

    text: str
    true: bool
    topic: str
    group: str


def of_microworld(rng: random.Random, n: int, *, split: str = "train") -> list[Statement]:
    """The microworld's facts in words, in pairs: with the answer, and with another subject's; n in all.

    Args:
      rng: Python's.
      n: number of statements, in pairs.
      split: "train" or "heldout": of every fact one phrasing is held out.

    Raises:
      ValueError: an unknown split.

    >>> [one.text for one in of_microworld(random.Random(0), 2)]
    ['Ambrus was hired as a tailor', 'Ambrus was hired as a farmer']
    """
    found = []
    for _ in range(n // 2):
        example = phenomena.facts(rng, split)
        for word, true in ((example.answer, True), (example.distractor, False)):
            text = " ".join((*example.prompt, word))
            found.append(Statement(text, true, example.attributes["relation"], example.attributes["subject"]))
    return found


def of_relation(rng: random.Random, file: str | Path, n: int) -> list[Statement]:
    """Statements of a relation, in pairs of a subject with its object and with another's; at most n.

    Args:
      rng: Python's.
      file: JSON with "name", "prompt_templates" and "samples", a list of {"subject", "object"}.
      n: how many at most, in pairs.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such JSON, or all objects are one.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile("w") as stream:
      ...     pairs = [{"subject": "France", "object": "Paris"}, {"subject": "Peru", "object": "Lima"}]
      ...     json.dump({"name": "capital", "prompt_templates": ["The capital of {} is"], "samples": pairs}, stream)
      ...     stream.flush()
      ...     found = of_relation(random.Random(0), stream.name, 2)
      >>> [one.true for one in found], found[0].text.startswith("The capital of ")
      ([True, False], True)
    """
    try:
        relation = json.loads(Path(file).read_text(encoding="utf-8"))
        name, template = str(relation["name"]), str(relation["prompt_templates"][0])
        pairs = [(str(one["subject"]), str(one["object"])) for one in relation["samples"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{file}: not a relation, with name, prompt_templates and samples: {error!r}") from None
    right: dict[str, set[str]] = {}
    for subject, thing in pairs:
        right.setdefault(subject, set()).add(thing)
    things = sorted({thing for _, thing in pairs})
    if len(things) < 2:
        raise ValueError(f"{file}: all objects are {things}: nothing false can be said")
    found = []
    for subject in rng.sample(sorted(right), min(n // 2, len(right))):
        wrong = [thing for thing in things if thing not in right[subject]]
        for thing, true in ((rng.choice(sorted(right[subject])), True), (rng.choice(wrong or things), not wrong)):
            found.append(Statement(f"{template.format(subject)} {thing}.", true, name, subject))
    return found


def of_truthfulqa(rng: random.Random, file: str | Path, n: int) -> list[Statement]:
    """Questions of TruthfulQA with a correct and with an incorrect answer, in pairs; at most n.

    Args:
      rng: Python's.
      file: its CSV.
      n: how many at most, in pairs.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a column is missing.
    """
    questions = truthfulqa.read(file)
    found = []
    for one in rng.sample(questions, min(n // 2, len(questions))):
        for answers, true in ((one.correct, True), (one.incorrect, False)):
            found.append(Statement(f"Q: {one.text} A: {rng.choice(answers)}.", true, one.category, one.text))
    return found
