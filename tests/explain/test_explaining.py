"""What explainers show and simulators are told, statistics on planted rules, ablation beside loops, the file."""

from dataclasses import replace
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

import interp_jax as ij
from interp_jax import explain
from interp_jax.explain import judges, scores, simulators
from interp_jax.explain.explanations import methods
from interp_jax.explain.explanations.ablation import jensen_shannon
from interp_jax.io.chat import Reply, Token
from tests.explain import units

RULES = {
    "on": (units.on_cats, {"cat", "dog"}),
    "after": (units.after_kings, {"king"}),
    "before": (units.before_hats, {"hat"}),
}


def shown(question) -> str:
    (request,) = question.requests
    return request.messages[-1]["content"]


@pytest.mark.parametrize("relation", RULES)
def test_statistics_find_a_rule_of_words(relation) -> None:
    """The text names the words, and the simulator does on other texts what the rule does."""
    rule, words = RULES[relation]
    found = explain.ask(None, explain.by_statistics(units.examples(rule, n=40)))
    assert (found.relation, set(found.levels)) == (relation, words)
    assert str(found).startswith(f"{relation}: ") and all(word in str(found) for word in words)
    other = units.examples(rule, seed=1)
    got = explain.ask(None, scores.simulation(found.simulate, other)).scores
    assert got["simulation"].value > 0.95 and got["simulation_random"].value > 0.95
    judge = judges.by_simulator(found.simulate)
    assert explain.ask(None, scores.detection(judge, other)).scores["detection"].value > 0.95
    shuffled = explain.ask(None, scores.simulation(found.simulate, units.examples(units.even_places, seed=1))).scores
    assert abs(shuffled["simulation"].value) < 0.3


def test_statistics_fail_on_a_rule_of_the_context() -> None:
    some = units.examples(units.even_places, n=40)
    found = explain.ask(None, explain.by_statistics(some))
    got = explain.ask(None, scores.simulation(found.simulate, units.examples(units.even_places, seed=1))).scores
    assert got["simulation_random"].value < 0.3
    silent = replace(some, train=some.quiet, background=())
    assert explain.ask(None, explain.by_statistics(silent)) is None


def test_words_of_several_tokens_and_texts_of_any_length() -> None:
    fires = explain.Excerpt((" Li", "ly", " ran", "."), (1.0, 2.0, 0.0, 0.0), 1)
    silent = explain.Excerpt((" To", "m", " ran", ".", ""), (0.0,) * 5, 0)
    found = explain.TokenStatistics("on", {"Lily": 8.0})
    assert found.simulate([fires.tokens, silent.tokens, ()]).read(())[0].tolist() == [8, 8, 0, 0]
    fitted = explain.ask(None, explain.by_statistics(explain.Evidence((fires,) * 5, (), (), background=(silent,) * 9)))
    assert str(fitted) == "on: Lily 8"  # the mean of half and all of the maximum, 7.5


def test_explainers_show_levels_and_marks() -> None:
    some = units.examples(units.on_cats)
    table = shown(explain.by_activations(some))
    assert table.count("<example>") == 10 and " cat\t10" in table and " dog\t5" in table
    dense = replace(some, train=tuple(replace(one, values=(1.0,) * 12) for one in some.train))
    assert shown(explain.by_activations(dense)).count("<example>") == 5  # nothing to leave out
    marks = shown(explain.by_marks(some))
    assert "<< cat>>" in marks and "cat 10" in marks and "Counterexample" not in marks
    assert shown(explain.by_contrast(some)) == marks
    hard = shown(explain.by_contrast(replace(some, hard=some.quiet[:3])))
    assert "Counterexample 3: " + "".join(some.quiet[2].tokens).strip() in hard
    assert explain.levels([-1.0, 0.1, 0.4, 3.9, 4.0, 5.0], 4.0) == (0, 0, 1, 9, 10, 10)


TEXTS = [(" a", "\tb\n", " 5"), (" c",)]


def test_one_pass_reads_all_levels_at_once() -> None:
    """At each "unknown", however the table is cut into tokens, and whatever stands in the text."""
    question = simulators.in_one_pass("digits")(TEXTS)
    assert [request.answer for request in question.requests] == [
        " a\tunknown\n⇥b↵\tunknown\n 5\tunknown\n",
        " c\tunknown\n",
    ]
    top = {"0": math.log(0.25), "8": math.log(0.25), "unknown": math.log(0.5)}
    for size in (1, 3, 5, 100):
        replies = []
        for request in question.requests:
            text = request.answer
            pieces = [text[i : i + size] for i in range(0, len(text), size)]
            replies.append(Reply(text, tuple(Token(piece, -1.0, top) for piece in pieces)))
        assert [levels.tolist() for levels in question.read(replies)] == [[4, 4, 4], [4]]
    assert question.read([Reply("", error="no"), replies[1]])[0] is None


def test_levels_that_are_written() -> None:
    question = simulators.as_written("digits")(TEXTS)
    assert "2\t⇥b↵" in question.requests[0].messages[-1]["content"]
    first, second = question.read([Reply('{"1": 0, "3": 10'), Reply("Sorry, no")])
    assert np.isnan(first[1]) and first[[0, 2]].tolist() == [0, 10] and second is None
    (nine,) = simulators.as_written("digits", most=9)([("a", "b")]).read([Reply('{"1": 9, "2": 3}')])
    assert nine == pytest.approx([10, 10 / 3])


def test_levels_one_by_one() -> None:
    question = simulators.one_by_one("digits")(TEXTS)
    assert [request.messages[-1]["content"].split("Text: ")[1] for request in question.requests] == [
        "<< a>>",
        " a<<⇥b↵>>",
        " a⇥b↵<< 5>>",
        "<< c>>",
    ]
    replies = [Reply("0"), Reply("?"), Reply("10", (Token("10", -1.0, {"10": -1.0, "6": -1.0}),)), Reply("3")]
    first, second = question.read(replies)
    assert (first[0], first[2], second[0]) == (0, 8, 3) and np.isnan(first[1])


def test_divergences_of_what_is_almost_alike_and_of_what_is_not() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 50))
    for size in (1e-3, 1.0, 30.0):
        b = a + size * rng.normal(size=a.shape)
        p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (a, b))
        got = jensen_shannon(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
        np.testing.assert_allclose(got, jensenshannon(p, q, axis=-1) ** 2, rtol=2e-3)
    never = jnp.array([0.0, 1.0, -jnp.inf])
    assert float(jensen_shannon(never, never)) == 0
    assert float(jensen_shannon(never, jnp.array([-jnp.inf, -jnp.inf, 0.0]))) == pytest.approx(np.log(2))


def test_revision() -> None:
    some, tried = units.examples(units.on_cats), []

    def fire(texts):
        tried.extend(texts)
        return [units.excerpt([f" {word}" for word in text.rstrip(".").split()], units.on_cats) for text in texts]

    said = iter(["1. the king sat.\n2. a cat ran.\n", "Explanation: cats and dogs"])
    asked = []

    def chat(requests):
        asked.extend(requests)
        return [Reply(next(said)) for _ in requests]

    text, seen = explain.revise(chat, "animals", some, fire)
    assert text == "cats and dogs" and tried == ["the king sat.", "a cat ran."] and len(seen) == 2
    last = asked[-1].messages[-1]["content"]
    assert " the king sat".strip() + "\nStrengths: none" in last and "a<< cat>> ran\nStrengths: cat 10" in last
    refusing = explain.revise(lambda requests: [Reply("I'm sorry, no.")] * len(requests), "animals", some, fire)
    assert refusing == ("animals", ())


def test_ablation_beside_a_loop() -> None:
    """Jensen-Shannon divergences by scipy, of a model written out by hand; scaled simulations are as good."""
    keys = jax.random.split(jax.random.key(0), 3)
    model = {"E": jax.random.normal(keys[0], (7, 6)), "U": jax.random.normal(keys[1], (6, 7))}

    def f(model, tokens):
        return ij.site(model["E"][tokens], "x") @ model["U"]

    tokens = jax.random.randint(keys[2], (4, 5), 0, 7)
    rng = np.random.default_rng(0)
    direction, real = rng.normal(size=6).astype(np.float32), np.maximum(rng.normal(size=(4, 5)), 0)
    simulated = real + rng.normal(size=(4, 5))
    mask = np.ones((4, 5), bool)
    mask[0, :2] = False
    got = explain.ablation(f, "x")(model, tokens, direction, real, simulated, mask)

    fitted = np.polynomial.Polynomial.fit(simulated[mask], real[mask], 1)(simulated)
    sums = []
    for there in (fitted, np.full((4, 5), real[mask].mean())):
        x = np.asarray(model["E"])[np.asarray(tokens)]
        p, q = (jax.nn.softmax(y @ np.asarray(model["U"])) for y in (x, x + (there - real)[..., None] * direction))
        sums.append(float((jensenshannon(p, q, axis=-1)[mask] ** 2).sum()))
    assert got.value == pytest.approx(1 - sums[0] / sums[1], rel=1e-3) and got.low < got.value < got.high
    score = explain.ablation(f, "x")
    assert score(model, tokens, direction, real, 3 * real - 1, mask).value == pytest.approx(1, abs=1e-3)
    assert score(model, tokens, direction, real, np.ones((4, 5)), mask).value == pytest.approx(0, abs=1e-6)
    assert score(model, tokens, np.zeros(6, np.float32), real, simulated) is None
    with pytest.raises(ValueError, match=r"simulated activations \(4, 4\) for tokens \(4, 5\)"):
        score(model, tokens, direction, real, simulated[:, :4])


def scored(unit: int, explainer: str = "marks") -> explain.Explanation:
    return explain.Explanation("a", unit, f"uñit {unit}\n", explainer, {"detection": explain.Score(0.5, 0.25, 0.75)})


def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path) -> None:
    for unit in range(3):
        explain.save_explanation(tmp_path, scored(unit))
    file = tmp_path / "explanations.jsonl"
    whole = file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(0, len(whole) + 1, 3):
        file.write_bytes(whole[:cut])
        kept = explain.load_explanations(file)
        assert list(kept.values()) == [scored(unit) for unit in range(sum(end <= cut for end in ends))]
        if cut % 21 == 0:
            explain.save_explanation(file, scored(9))
            assert list(explain.load_explanations(tmp_path).values()) == [*kept.values(), scored(9)]
    file.write_text('{"records": "a"}\n')
    with pytest.raises(ValueError, match="line 1 is no explanation .*remove it"):
        explain.load_explanations(file)
    assert explain.load_explanations(tmp_path / "other") == {}


def test_numbers_that_are_not_finite_are_not_written() -> None:
    told = replace(scored(0), scores={"x": explain.Score(1.0, float("nan"), 2.0)}).line()
    assert '"scores": {"x": {"value": 1.0, "high": 2.0}}' in told
    told = replace(scored(0), scores={"x": explain.Score(float("nan"), 0.0, 2.0)}).line()
    assert '"scores": {}' in told


def test_offline_from_texts_to_lines(tmp_path) -> None:
    """What is done is not done again, what has too few texts is told, and the last explanation of a unit counts."""
    made = []

    def examples(unit):
        made.append(unit)
        if unit == 5:
            raise explain.TooFew("fires on 3 tokens, fewer than 200")
        rule = [units.on_cats, units.after_kings, units.before_hats][unit % 3]
        return units.examples(rule, n=40)

    run = explain.explain_units(explain.offline(), "a", [2, 0, 5, 2], examples, path=tmp_path, shown=False)
    assert [one.unit for one in run.explanations] == [2, 0] and run.skipped == {5: "fires on 3 tokens, fewer than 200"}
    assert list(run.explanations[0].scores)[:2] == ["simulation", "simulation_random"] and len(made) == 3
    assert run.unusable == 0 and run.used == 2 * (35 + 2 * 80)
    again = explain.explain_units(explain.offline(), "a", [0, 1, 2], examples, path=tmp_path, shown=False)
    assert [one.unit for one in again.explanations] == [0, 1, 2] and made[3:] == [1]
    assert again.explanations[0] == run.explanations[1]
    fewer = explain.explain_units(explain.offline(["detection"]), "b", [0], examples, path=tmp_path, shown=False)
    more = explain.explain_units(explain.offline(["fuzzing"]), "b", [0], examples, path=tmp_path, shown=False)
    assert set(more.explanations[0].scores) > set(fewer.explanations[0].scores)  # both ways of scoring are kept
    assert methods.cost_of(explain.offline(), [examples(0)], 9) == (0, 0, 0)


def test_names_that_are_not_known() -> None:
    with pytest.raises(ValueError, match="'surprisal' is no .*without a language model; there are simulation"):
        explain.offline(["surprisal"])
    with pytest.raises(ValueError, match="'mark' is no explainer; there are activations, marks"):
        explain.by_model("mark")
    with pytest.raises(ValueError, match='"embedding" needs embed='):
        explain.by_model("marks", ["embedding"])
    with pytest.raises(ValueError, match="no chat model"):
        explain.ask(None, explain.by_marks(units.examples(units.on_cats)))
    with pytest.raises(ValueError, match="gave 0 replies to 1 requests"):
        explain.ask(lambda requests: [], explain.by_marks(units.examples(units.on_cats)))
