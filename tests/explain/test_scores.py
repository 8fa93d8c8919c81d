"""Scores of explanations that are right, wrong or of another unit; what cannot be judged is counted and left out."""

from dataclasses import replace
import math

import numpy as np
import pytest
from sklearn import metrics

from interp_jax import explain
from interp_jax.explain import judges, scores
from interp_jax.explain.explanations import evidence as sizes
from interp_jax.io.chat import Reply, Token
from tests.explain import units

CATS, KINGS = units.examples(units.on_cats), units.examples(units.after_kings)


def answered(question, reply):
    """What a question's answer is if each request gets `reply(request)`."""
    return question.read([reply(request) for request in question.requests])


def simulator(rule):
    return lambda texts: explain.Question((), lambda _: [np.array(rule(list(text))) for text in texts])


def test_a_perfect_simulation_is_perfect() -> None:
    found = scores.simulation(simulator(units.on_cats), CATS).read(())
    for name in ("simulation", "simulation_random"):
        assert found.scores[name] == pytest.approx((1, 1, 1))
    assert (found.used, found.unusable) == (35, 0)
    top = sorted(CATS.test, key=lambda one: -max(one.values))[:5]
    wrong = scores.simulation(simulator(units.after_kings), CATS).read(()).scores
    for name, shown in (("simulation", [*top, *CATS.random]), ("simulation_random", CATS.random)):
        said = np.concatenate([units.after_kings(one.tokens) for one in shown])
        real = np.concatenate([one.values for one in shown])
        assert wrong[name].value == pytest.approx(np.corrcoef(said, real)[0, 1])
        assert abs(wrong[name].value) < 0.2


def test_what_is_not_simulated_is_left_out() -> None:
    def simulate(texts):
        levels = [np.array(units.on_cats(list(text))) for text in texts]
        levels[0][2:] = np.nan
        return explain.Question((), lambda _: [None if i == 1 else one for i, one in enumerate(levels)])

    found = scores.simulation(simulate, CATS).read(())
    assert (found.used, found.unusable) == (34, 1) and found.scores["simulation"].value == pytest.approx(1)
    silent = scores.simulation(lambda texts: explain.Question((), lambda _: [None] * len(texts)), CATS).read(())
    assert silent.scores == {} and silent.unusable == 35


def test_judged_by_a_simulator() -> None:
    judge = judges.by_simulator(simulator(units.on_cats))
    for score in (scores.detection, scores.fuzzing):
        found = score(judge, CATS).read(())
        assert all(one.value == 1 for one in found.scores.values()) and found.used == 20
    other = judges.by_simulator(simulator(units.after_kings))
    assert scores.detection(other, CATS).read(()).scores["detection"].value < 0.8
    assert scores.fuzzing(other, CATS).read(()).scores["fuzzing"].value < 0.8


def test_fuzzing_marks_what_is_strong_and_as_many_elsewhere() -> None:
    seen = []

    def judge(shown):
        seen.extend(shown)
        return explain.Question((), lambda _: [judges.Verdict(True, 1.0)] * len(shown))

    uneven = replace(CATS, test=(explain.Excerpt((" a", " b", " c", " d"), (10.0, 3.1, 3.0, 0.0), 0),) * 3)
    scores.fuzzing(judge, uneven).read(())
    assert [one.marks for one in seen if one.tokens == (" a", " b", " c", " d")] == [(True, True, False, False)] * 3
    assert {sum(one.marks) for one in seen if one.tokens[1] != " b"} == {2}
    assert seen != sorted(seen, key=lambda one: one.tokens[1] != " b")  # mixed


def test_delphis_sizes() -> None:
    assert (sizes.N_TRAIN, sizes.N_TEST, sizes.N_QUIET, judges.AT_ONCE, sizes.STRONG) == (40, 50, 50, 5, 0.3)


def cats_in(text: str) -> bool:
    return "cat" in text or "dog" in text


def judged(request, *, log_probs: bool = False, drop: int = 0) -> Reply:
    """A model that knows the rule."""
    lines = request.messages[-1]["content"].split("\n\n", 1)[1].splitlines()
    said = [int(cats_in(line.split("<<")[1].split(">>")[0] if "<<" in line else line)) for line in lines]
    pieces = [
        piece
        for i, x in enumerate(said[: len(said) - drop], 1)
        for piece in (f'{"{" if i == 1 else ","}"{i}":', f"{x}")
    ]
    top = [{"1": math.log(0.9 if p == "1" else 0.2), "0": math.log(0.1 if p == "1" else 0.8)} for p in pieces]
    tokens = tuple(Token(piece, -0.1, t) for piece, t in zip(pieces, top, strict=True)) if log_probs else ()
    return Reply("".join(pieces), tokens)


@pytest.mark.parametrize("log_probs", [True, False])
@pytest.mark.parametrize("score", [scores.detection, scores.fuzzing])
def test_judged_by_a_model(score, log_probs) -> None:
    question = score(judges.by_chat("cats and dogs"), CATS)
    assert len(question.requests) == 4 and all("cats and dogs" in r.messages[-1]["content"] for r in question.requests)
    found = answered(question, lambda request: judged(request, log_probs=log_probs))
    assert found.used == 20 and all(one.value == 1 for one in found.scores.values())


def test_the_last_texts_may_be_fewer() -> None:
    """22 texts in prompts of 5: the last prompt has 2, and they count."""
    more = replace(CATS, quiet=CATS.quiet + CATS.quiet[:2])
    question = scores.detection(judges.by_chat("x"), more)
    assert [r.messages[0]["content"].split("judge ")[1].split(" ")[0] for r in question.requests] == ["5"] * 4 + ["2"]
    assert answered(question, judged).used == 22


def test_a_bad_answer_loses_its_own_entries_alone() -> None:
    question = scores.detection(judges.by_chat("x"), CATS)
    replies = [judged(request) for request in question.requests]
    replies[0] = judged(question.requests[0], drop=2)  # two entries too few
    replies[1] = Reply("I'm sorry, I cannot help with that.")
    replies[2] = Reply("", error="status 500")
    found = question.read(replies)
    assert (found.used, found.unusable) == (8, 12)
    assert all(one.value == 1 for one in found.scores.values())


@pytest.mark.parametrize("part", ["test", "quiet"])
def test_an_empty_part_is_no_error(part) -> None:
    none = replace(CATS, **{part: ()})
    judge = judges.by_simulator(simulator(units.on_cats))
    for question in (scores.detection(judge, none), scores.fuzzing(judge, none)):
        assert question.read(()).scores == {}
    assert answered(scores.detection(judges.by_chat("x"), none), judged).scores == {}
    assert answered(scores.surprisal("x", none), lambda r: Reply("")).scores == {}
    assert answered(scores.intruder(none), lambda r: Reply("1")).scores == {}
    assert scores.embedding(lambda texts: np.ones((len(texts), 2)), "x", none).scores == {}
    assert scores.simulation(simulator(units.on_cats), replace(CATS, random=(), test=())).read(()).scores == {}


def test_intruders() -> None:
    """One that looks for the text without a cat finds all; one that always says 3 is right by chance."""

    def sees(request):
        marks = [line.split("<<")[1].split(">>")[0] for line in request.messages[-1]["content"].splitlines()]
        return Reply(str(1 + [cats_in(mark) for mark in marks].index(False)))

    question = scores.intruder(CATS)
    assert len(question.requests) == 10
    assert answered(question, sees).scores["intruder"] == (1, 1, 1)
    places = [int(sees(request).text) for request in question.requests]
    always = answered(question, lambda _: Reply("3"))
    assert always.scores["intruder"].value == pytest.approx(places.count(3) / 10) and len(set(places)) > 2
    found = question.read([Reply("9"), Reply("none of them")] + [sees(r) for r in question.requests[2:]])
    assert (found.used, found.unusable) == (8, 2)


def test_surprisal_is_the_area_of_what_the_explanation_saves() -> None:
    rng = np.random.default_rng(0)
    logs: list[float] = []

    def reads(request):
        saved = float(request.messages[-1]["content"].endswith("cats")) * (1.5 * cats_in(request.answer) + rng.random())
        logs.append(-9.0 + saved)
        return Reply(request.answer, (Token("x", -4.0, {}), Token("y", -5.0 + saved, {})))

    question = scores.surprisal("cats", CATS)
    found = answered(question, reads)
    active = np.arange(20) < 10
    saves = np.array(logs[:20]) - np.array(logs[20:])
    assert found.scores["surprisal"].value == pytest.approx(metrics.roc_auc_score(active, saves))
    found = question.read([Reply("")] + [reads(request) for request in question.requests[1:]])
    assert (found.used, found.unusable) == (19, 1)


def test_embedding() -> None:
    rng = np.random.default_rng(0)

    def embed(texts):
        return np.array([[cats_in(text) or text == "pets", 0.7, rng.random()] for text in texts])

    found = scores.embedding(embed, "pets", CATS)
    rng = np.random.default_rng(0)
    vectors = embed(["pets"] + ["".join(one.tokens) for one in (*CATS.test, *CATS.quiet)])
    near = metrics.pairwise.cosine_similarity(vectors[1:], vectors[:1])[:, 0]
    assert found.scores["embedding"].value == pytest.approx(metrics.roc_auc_score(np.arange(20) < 10, near))
