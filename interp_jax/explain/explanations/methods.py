"""Ways to explain units and to score the explanations, from the texts of each to a line of `explanations.jsonl`.

`offline` needs no language model; `by_model` asks one. A user's own way is a `Method` as well: what explains, and what
scores, each a function that makes a question.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from interp_jax.explain.explanations import judges, scores, simulators
from interp_jax.explain.explanations.asking import Cost, Question, ask, cost, known, together
from interp_jax.explain.explanations.evidence import Evidence, TooFew
from interp_jax.explain.explanations.explainers import by_activations, by_contrast, by_marks
from interp_jax.explain.explanations.explanations import Explanation, load_explanations, save_explanation
from interp_jax.explain.explanations.scores import Scored
from interp_jax.explain.explanations.token_statistics import by_statistics
from interp_jax.io.chat import Chat

EXPLAINERS = {"activations": by_activations, "marks": by_marks, "contrast": by_contrast}
SIMULATORS = {
    "in_one_pass": simulators.in_one_pass,
    "as_written": simulators.as_written,
    "one_by_one": simulators.one_by_one,
}
OFFLINE = ("simulation", "detection", "fuzzing")
SCORES = (*OFFLINE, "intruder", "surprisal", "embedding")
UNITS = 8  # that are asked about together
_LIKELY = (
    "words of a kind, which stand before or after something that is said about them"  # as long as explanations are
)

Scorer = Callable[[Any, Evidence], Question[Scored]]


class Method(NamedTuple):
    """A way to explain units.

    Attributes:
      name: that explanations bear.
      explain: from a unit's texts to the question of its explanation: anything whose `str` is the text, or None.
      scorers: by name, from an explanation and the texts to the question of its scores.
    """

    name: str
    explain: Callable[[Evidence], Question[Any]]
    scorers: Mapping[str, Scorer]


class Explained(NamedTuple):
    """What came of it.

    Attributes:
      explanations: of the units that were explained now or before, in their order.
      skipped: unit -> why it was not explained.
      used, unusable: of how many texts something usable was said, and of how many not.
    """

    explanations: tuple[Explanation, ...]
    skipped: Mapping[int, str]
    used: int
    unusable: int


def offline(wanted: Sequence[str] = OFFLINE) -> Method:
    """Explains by token statistics, whose simulator is scored; no language model is asked.

    Raises:
      ValueError: a score that needs a language model or an embedder.
    """
    _check(wanted, OFFLINE, "without a language model")
    made: dict[str, Scorer] = {
        "simulation": lambda found, evidence: scores.simulation(found.simulate, evidence),
        "detection": lambda found, evidence: scores.detection(judges.by_simulator(found.simulate), evidence),
        "fuzzing": lambda found, evidence: scores.fuzzing(judges.by_simulator(found.simulate), evidence),
    }
    return Method("statistics", by_statistics, {name: made[name] for name in wanted})


def by_model(
    explainer: str = "marks",
    wanted: Sequence[str] = OFFLINE,
    *,
    simulator: str = "as_written",
    most: int = 10,
    embed: Callable[[Sequence[str]], Any] | None = None,
) -> Method:
    """Explains and scores by a language model.

    Args:
      explainer: one of `EXPLAINERS`: "activations", "marks" or "contrast".
      wanted: which of `SCORES`.
      simulator: one of `SIMULATORS`, for the score "simulation".
      most: the largest level in its prompts, as the simulators have it.
      embed: for the score "embedding", from texts to their vectors.

    Raises:
      ValueError: an unknown name, or the score "embedding" without `embed`.
    """
    _check([explainer], EXPLAINERS, "explainer")
    _check([simulator], SIMULATORS, "simulator")
    _check(wanted, SCORES, "score")
    if "embedding" in wanted and embed is None:
        raise ValueError('by_model: the score "embedding" needs embed=, a function from texts to their vectors')
    simulate: Any = SIMULATORS[simulator]
    made: dict[str, Scorer] = {
        "simulation": lambda text, evidence: scores.simulation(simulate(text, most=most), evidence),
        "detection": lambda text, evidence: scores.detection(judges.by_chat(text), evidence),
        "fuzzing": lambda text, evidence: scores.fuzzing(judges.by_chat(text), evidence),
        "intruder": lambda text, evidence: scores.intruder(evidence),
        "surprisal": scores.surprisal,
        "embedding": lambda text, evidence: known(scores.embedding(embed, text, evidence)),  # type: ignore[arg-type]
    }
    return Method(explainer, EXPLAINERS[explainer], {name: made[name] for name in wanted})


def explain_units(
    method: Method,
    records: str,
    units: Iterable[int],
    evidence: Callable[[int], Evidence],
    *,
    chat: Chat | None = None,
    path: str | Path | None = None,
    shown: bool = True,
) -> Explained:
    """Explains units and scores the explanations, a few units at a time.

    Each explanation is appended to `path` when it is scored. What stands there with all scores that are wanted is not
    asked for again, so that a run that was killed goes on where it was.

    Args:
      method: `offline()`, `by_model(...)`, or one's own.
      records: the name of the records that the units are of.
      units: their numbers.
      evidence: from a unit to its texts; it raises `TooFew` where there are too few, and the unit is skipped.
      chat: the language model, where the method asks one.
      path: `explanations.jsonl`, or the folder that it is in; None keeps nothing.
      shown: whether progress is shown.

    Raises:
      ConnectionError: as the chat; what was explained until then is kept.
      ValueError: as `ask` and `load_explanations`.
    """
    kept = {} if path is None else load_explanations(path)
    done: dict[int, Explanation] = {}
    skipped: dict[int, str] = {}
    open_: list[int] = []
    wanted = list(dict.fromkeys(units))
    for unit in wanted:
        before = kept.get((records, unit, method.name))
        if before is not None and _complete(method, before):
            done[unit] = before
        else:
            open_.append(unit)
    used = unusable = 0
    for start in range(0, len(open_), UNITS):
        some: dict[int, Evidence] = {}
        for unit in open_[start : start + UNITS]:
            try:
                some[unit] = evidence(unit)
            except TooFew as few:
                skipped[unit] = str(few)
        texts = ask(chat, together([method.explain(one) for one in some.values()]), what="explaining", shown=shown)
        found = {unit: text for unit, text in zip(some, texts, strict=True) if text is not None}
        skipped |= {unit: "the language model gave no explanation" for unit in some if unit not in found}
        asked = [
            together([score(text, some[unit]) for score in method.scorers.values()]) for unit, text in found.items()
        ]
        for (unit, text), scored in zip(
            found.items(), ask(chat, together(asked), what="scoring", shown=shown), strict=True
        ):
            used, unusable = used + sum(one.used for one in scored), unusable + sum(one.unusable for one in scored)
            all_scores = {name: score for one in scored for name, score in one.scores.items()}
            before = kept.get((records, unit, method.name))
            if before is not None and before.text == str(text):  # scored in another way then
                all_scores = {**before.scores, **all_scores}
            done[unit] = Explanation(records, unit, str(text), method.name, all_scores)
            if path is not None:
                save_explanation(path, done[unit])
    return Explained(tuple(done[unit] for unit in wanted if unit in done), skipped, used, unusable)


def cost_of(method: Method, some: Sequence[Evidence], n: int) -> Cost:
    """What it takes to explain `n` units, from the texts of some of them, before anything is asked."""
    total = Cost(0, 0, 0)
    for one in some:
        first = method.explain(one)
        if first.requests:
            questions = [first, *(score(_LIKELY, one) for score in method.scorers.values())]
            total = Cost(*(a + b for a, b in zip(total, cost(together(questions)), strict=True)))
    return Cost(*(round(count * n / max(len(some), 1)) for count in total))


def _complete(method: Method, explanation: Explanation) -> bool:
    """Whether there is a score of each kind that is wanted; one that was not defined is tried again."""
    return all(any(name.startswith(kind) for name in explanation.scores) for kind in method.scorers)


def _check(names: Iterable[str], known_names: Iterable[str], what: str) -> None:
    for name in names:
        if name not in known_names:
            raise ValueError(f"{name!r} is no {what}; there are {', '.join(known_names)}")
