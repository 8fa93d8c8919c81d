"""Explanations of one prediction: removals, chains of prompts, thoughts; beside functions whose reasons are known."""

from collections.abc import Sequence
import itertools

import numpy as np
import pytest

from interp_jax.explain import Chain, removal, thoughts

WEIGHTS = np.array([3.0, 0.0, 1.0, 0.0, -2.0])
PARTS = tuple("abcde")


def linear(texts: Sequence[str]) -> list[float]:
    """A sum over the parts that are there."""
    return [sum(w for part, w in zip(PARTS, WEIGHTS, strict=True) if part in text) for text in texts]


@pytest.mark.parametrize("named", list(itertools.combinations(range(5), 2)))
def test_removal_is_what_the_weights_say(named: tuple[int, ...]) -> None:
    others = [i for i in range(5) if i not in named]
    found = removal(linear, PARTS, named, n_draws=400)
    assert found.named == pytest.approx(abs(WEIGHTS[list(named)].sum()))
    assert found.alone == pytest.approx(abs(WEIGHTS[others].sum()))
    every = np.array([abs(WEIGHTS[list(some)].sum()) for some in itertools.combinations(others, 2)])
    assert set(np.round(found.others, 6)) == set(np.round(every, 6))
    assert found.score == pytest.approx(found.named - every.mean(), abs=0.25)
    rank = (every < found.named).mean() + 0.5 * (every == found.named).mean()
    assert found.rank == pytest.approx(rank, abs=0.1)


def test_a_part_is_filled_alike_in_every_draw() -> None:
    calls: list[int] = []

    def fill(i: int) -> str:
        calls.append(i)
        return f"<{i}>"

    seen: list[str] = []

    def strength(texts: Sequence[str]) -> list[float]:
        seen.extend(texts)
        return [0.0] * len(texts)

    found = removal(strength, PARTS, [1], fill=fill, n_draws=3)
    assert calls == [0, 1, 2, 3, 4] and found.score == 0 and found.rank == 0.5
    assert seen[:3] == ["a b c d e", "a <1> c d e", "<0> b <2> <3> <4>"]
    assert all(text.split()[1] == "b" and text.count("<") == 1 for text in seen[3:])


@pytest.mark.parametrize("named", [(), (0, 1, 2, 3, 4), (5,), (-1,)])
def test_what_a_removal_refuses(named: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="removal: named="):
        removal(linear, PARTS, named)
    with pytest.raises(ValueError, match=r"strength gave \[\] for"):
        removal(lambda texts: 1.0, PARTS, [0])


def test_a_chain_is_read_and_replaced() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return prompt.upper()

    chain = Chain(("x",), {"first": "f {x}", "second": "g {first} {x}", "third": "h {second}"})
    values = chain(ask, {"x": "a"})
    assert values == {"first": "F A", "second": "G F A A", "third": "H G F A A"}
    assert chain(ask, {"x": "a"}, {"first": values["first"]}) == values
    asked.clear()
    assert chain(ask, {"x": "a"}, {"second": ""}) == {"first": "F A", "second": "", "third": "H "}
    assert asked == ["f a", "h "]
    with pytest.raises(ValueError, match=r"no step \['fourth'\] to replace; it has first, second, third"):
        chain(ask, {"x": "a"}, {"fourth": ""})
    with pytest.raises(ValueError, match=r"given \['y'\], wanted \['x'\]"):
        chain(ask, {"y": "a"})
    with pytest.raises(ValueError, match="step 'first' asks with 'second'; before it are x"):
        Chain(("x",), {"first": "{second}", "second": "{x}"})
    with pytest.raises(ValueError, match="'x' is there twice"):
        Chain(("x",), {"x": "{x}"})
    with pytest.raises(ValueError, match="no steps"):
        Chain(("x",), {})


THOUGHT = "Ann has two keys. She finds one more. So there are three."


@pytest.mark.parametrize("rests", [True, False])
def test_whether_an_answer_rests_on_its_thought(rests: bool) -> None:
    """An answer that is read off the last step, and one that is the same whatever is thought."""

    def chances(texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 0.0] if not rests or "three" in text else [0.0, 1.0] for text in texts]

    found = thoughts.reliance(
        chances, THOUGHT, mistake=lambda step: step.replace("three", "nine"), reword=lambda text: f"Well: {text}"
    )
    assert found.early.shape == found.filler.shape == (3, 2) and found.mistaken is not None
    kept = [found.kept(of) for of in ("early", "filler", "mistaken", "reworded")]
    assert kept == ([0, 0, 0, 1] if rests else [1, 1, 1, 1])


def test_what_is_asked_of_a_thought() -> None:
    seen: list[str] = []

    def chances(texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return np.zeros((len(texts), 2))

    found = thoughts.reliance(chances, "One two. Three.", mistake=lambda step: "Not so.")
    assert seen == ["One two. Three.", "", "One two.", "... ...", "... ... ...", "Not so.", "One two. Not so."]
    assert found.reworded is None and np.isnan(found.kept("reworded"))
    with pytest.raises(ValueError, match="the thought is empty"):
        thoughts.reliance(chances, " \n")
    with pytest.raises(ValueError, match=r"chances gave \[4\] for 4 thoughts"):
        thoughts.reliance(lambda texts: np.zeros(len(texts)), "One.", reword=str)


def test_a_tree_finds_what_a_greedy_search_misses() -> None:
    worth = {"a": 2, "b": 1, "a c": 0, "a d": 1, "b c": 5, "b d": 0}

    def grow(text: str) -> list[str]:
        return ["c", "d", "c", ""] if text else ["a", "b"]

    def value(texts: Sequence[str]) -> list[int]:
        return [worth[text] for text in texts]

    greedy, wide = (thoughts.tree(grow, value, depth=2, breadth=breadth) for breadth in (1, 2))
    assert greedy[0].text == "a d" and wide[0].text == "b c" and wide[0].value == max(worth.values())
    assert {one.text: one.value for one in wide} == worth and all(one.kept for one in wide if one.depth == 1)
    with pytest.raises(ValueError, match="nothing was proposed at depth 1"):
        thoughts.tree(lambda text: [], value, depth=1, breadth=1)
    with pytest.raises(ValueError, match="breadth=0"):
        thoughts.tree(grow, value, depth=1, breadth=0)
