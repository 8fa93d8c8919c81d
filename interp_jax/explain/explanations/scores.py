"""Scores of an explanation: how well it tells where a unit fires. Each is a question, answered by names and numbers.

    simulation   Pearson's correlation of simulated and real activations, over the strongest and random texts together,
                 and over random ones alone                                                      Bills et al. 2023
    detection    does the unit react to this text?    balanced accuracy, F1, area of P(1) / (P(0) + P(1))
    fuzzing      does it react to just the marked tokens?    likewise; of silent texts, as many are marked at random as
                 are strong in the others on average
    intruder     which of five marked texts is one on which the unit is silent? It asks for no explanation, and says
                 whether there is something to explain
    surprisal    does the explanation make a text less surprising where the unit fires? area of the difference
    embedding    is the explanation nearer to texts on which the unit fires? area of the cosine
                 Paulo et al. 2024, https://arxiv.org/abs/2410.13928; Paulo and Belrose 2025 (intruders)

What could not be judged is left out and counted. A score that is not defined, as where there is nothing to judge, is
absent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import random
from typing import Any

import numpy as np

from interp_jax.explain.explanations import estimates
from interp_jax.explain.explanations.answers import number
from interp_jax.explain.explanations.asking import Question, known
from interp_jax.explain.explanations.estimates import Score
from interp_jax.explain.explanations.evidence import Evidence, marked, on_one_line, strong, strongest
from interp_jax.explain.explanations.judges import Judge, Shown, Verdict
from interp_jax.explain.explanations.simulators import Simulated, Simulator
from interp_jax.explain.records.excerpts import Excerpt
from interp_jax.io.chat import Reply, Request, says

N_STRONGEST = 5  # texts of the simulation beside random ones
N_SHOWN = 5  # texts of which one is the intruder
_PLAIN = "a text"


@dataclass(frozen=True)
class Scored:
    """Scores by name, of how many texts, and how many more there were of which nothing usable was said."""

    scores: Mapping[str, Score]
    used: int
    unusable: int


def simulation(simulate: Simulator, evidence: Evidence, n_strongest: int = N_STRONGEST) -> Question[Scored]:
    """`simulation`, over the strongest texts of the test and all random ones; `simulation_random`, over these alone."""
    top = strongest(evidence.test)[:n_strongest]
    shown = (*top, *evidence.random)
    strata = [0] * len(top) + [1] * len(evidence.random)

    def read(simulated: Simulated) -> Scored:
        usable = [(i, levels) for i, levels in enumerate(simulated) if levels is not None]
        real = [np.maximum(np.asarray(shown[i].values, np.float64), 0) for i, _ in usable]
        levels, kinds = [levels for _, levels in usable], [strata[i] for i, _ in usable]
        first = sum(kind == 0 for kind in kinds)
        found = {
            "simulation": estimates.correlation(levels, real, kinds),
            "simulation_random": estimates.correlation(levels[first:], real[first:], kinds[first:]),
        }
        return _scored(found, len(usable), len(shown) - len(usable))

    return simulate([one.tokens for one in shown]).then(read)


def detection(judge: Judge, evidence: Evidence, seed: int = 0) -> Question[Scored]:
    """`detection`, `detection_f1` and `detection_auc`, over all texts of the test and all quiet ones, mixed."""
    shown = [Shown(one.tokens) for one in (*evidence.test, *evidence.quiet)]
    return _classified("detection", judge, shown, len(evidence.test), seed)


def fuzzing(judge: Judge, evidence: Evidence, seed: int = 0) -> Question[Scored]:
    """`fuzzing`, `fuzzing_f1` and `fuzzing_auc`, over the same texts with marks."""
    rng = random.Random(seed)
    n = _mean_marks(evidence.test)
    shown = [Shown(one.tokens, strong(one)) for one in evidence.test]
    shown += [Shown(one.tokens, _random_marks(one, n, rng)) for one in evidence.quiet]
    return _classified("fuzzing", judge, shown, len(evidence.test), seed)


def intruder(evidence: Evidence, seed: int = 0, n_shown: int = N_SHOWN) -> Question[Scored]:
    """`intruder`: the share of silent texts that are found among `n_shown` - 1 of about one strength."""
    rng = random.Random(seed)
    by_strength, n, trials = strongest(evidence.test), _mean_marks(evidence.test), []
    if len(by_strength) < n_shown - 1:
        return known(Scored({}, 0, 0))
    system = (
        f"{n_shown} texts are shown, with some tokens between << and >>. In all but one, the marks have something in "
        "common: a meaning, a kind of words, a place in the sentence. Find the one that does not belong with the "
        "others. Answer with its number alone."
    )
    for i, one in enumerate(evidence.quiet):
        start = round(i * (len(by_strength) - n_shown + 1) / max(len(evidence.quiet) - 1, 1))
        texts = [marked(x.tokens, strong(x)) for x in by_strength[start : start + n_shown - 1]]
        place = rng.randrange(n_shown)
        texts.insert(place, marked(one.tokens, _random_marks(one, n, rng)))
        lines = "\n".join(f"{k}: {on_one_line(text).strip()}" for k, text in enumerate(texts, 1))
        trials.append((says(system, lines, max_tokens=8), place + 1))

    def read(replies: Sequence[Reply]) -> Scored:
        said = [number(reply, n_shown) for reply in replies]
        right = [one[0] == place for one, (_, place) in zip(said, trials, strict=True) if one is not None]
        return _scored({"intruder": estimates.share(np.array(right, float))}, len(right), len(said) - len(right))

    return Question(tuple(request for request, _ in trials), read)


def surprisal(explanation: str, evidence: Evidence) -> Question[Scored]:
    """`surprisal`: by how much less a model is surprised by a text, in nats, when it is told the explanation."""
    texts = [on_one_line("".join(one.tokens)).strip() for one in (*evidence.test, *evidence.quiet)]

    def told(about: str, text: str) -> Request:
        return says("The user describes a text, and you write it.", f"It has: {about}", top=1)._replace(answer=text)

    requests = [told(about, text) for about in (explanation, _PLAIN) for text in texts]

    def read(replies: Sequence[Reply]) -> Scored:
        logs = np.array([sum(token.log_prob for token in one.tokens) if one.tokens else np.nan for one in replies])
        return _areas("surprisal", logs[: len(texts)] - logs[len(texts) :], len(evidence.test))

    return Question(tuple(requests), read)


def embedding(embed: Callable[[Sequence[str]], Any], explanation: str, evidence: Evidence) -> Scored:
    """`embedding`: the area of the cosine of the explanation and the texts.

    Args:
      embed: from texts to their vectors, `[text d]`, of any norm.
      explanation: what the unit reacts to.
      evidence: those of the test are used, and the quiet ones.
    """
    texts = ["".join(one.tokens).strip() for one in (*evidence.test, *evidence.quiet)]
    vectors = np.asarray(embed([explanation, *texts]), np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return _areas("embedding", vectors[1:] @ vectors[0], len(evidence.test))


def _classified(name: str, judge: Judge, shown: Sequence[Shown], n_active: int, seed: int) -> Question[Scored]:
    order = random.Random(seed).sample(range(len(shown)), len(shown))

    def read(verdicts: list[Verdict | None]) -> Scored:
        judged = [(i, one) for i, one in zip(order, verdicts, strict=True) if one is not None]
        active = np.array([i < n_active for i, _ in judged], bool)
        said = np.array([one.yes for _, one in judged], bool)
        found = {
            name: estimates.balanced_accuracy(said, active),
            f"{name}_f1": estimates.f1(said, active),
            f"{name}_auc": estimates.area(np.array([one.probability for _, one in judged]), active),
        }
        return _scored(found, len(judged), len(shown) - len(judged))

    return judge([shown[i] for i in order]).then(read)


def _areas(name: str, values: np.ndarray, n_active: int) -> Scored:
    usable = np.isfinite(values)
    active = np.arange(len(values)) < n_active
    return _scored({name: estimates.area(values[usable], active[usable])}, int(usable.sum()), int((~usable).sum()))


def _scored(found: Mapping[str, Score | None], used: int, unusable: int) -> Scored:
    return Scored({name: score for name, score in found.items() if score is not None}, used, unusable)


def _mean_marks(active: Sequence[Excerpt]) -> int:
    """How many tokens of the active texts are marked on average, at least one."""
    return max(1, round(sum(sum(strong(one)) for one in active) / max(len(active), 1)))


def _random_marks(one: Excerpt, n: int, rng: random.Random) -> tuple[bool, ...]:
    chosen = set(rng.sample(range(len(one.tokens)), min(n, len(one.tokens))))
    return tuple(i in chosen for i in range(len(one.tokens)))
