"""What a model may answer, entry by entry."""

import math

import pytest

from interp_jax.explain.explanations import answers
from interp_jax.io.chat import Reply, Token

P = {"1": math.log(0.6), "0": math.log(0.2), " 0": math.log(0.1), "no": math.log(0.1)}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"1": 0, "2": 1, "3": 1}', {0: 0, 1: 1, 2: 1}),
        ('```json\n{"1": 0,\n "2": 1,\n "3": 1}\n```', {0: 0, 1: 1, 2: 1}),
        ('{"1": 0, "2": 1, "3', {0: 0, 1: 1}),  # cut off
        ('{"1": 0, "2": ', {0: 0}),
        ('{"1": 0, "3": 1}', {0: 0, 2: 1}),  # too few
        ('{"1": 0, "2": 1, "3": 0, "4": 1, "5": 1}', {0: 0, 1: 1, 2: 0}),  # too many
        ('{"1": 0, "2": 7, "3": "1"}', {0: 0, 2: 1}),  # a number that is not meant
        ('{"1": 0, "1": 1, "2": 1}', {1: 1}),  # twice, and not alike
        ('{"1": 0.5, "2": 1}', {1: 1}),
        ("1: 1\n2: 0\n3: 1", {0: 1, 1: 0, 2: 1}),
        ("I'm sorry, but I cannot judge this.", {}),
        ("", {}),
        ('{"0": 1, "12": 1}', {}),
    ],
)
def test_entries(text, found) -> None:
    got = answers.entries(Reply(text), 3, 1)
    assert got == {index: (value, float(value)) for index, value in found.items()}


def test_probabilities_stand_where_the_number_does() -> None:
    """A key that is a number is no answer; tokens may be of any cut."""
    pieces = ['{"', "1", '": ', "1", ', "', "2", '":', " 0", "}"]
    tokens = tuple(Token(piece, -0.1, P if i in (3, 7) else {piece: -0.1}) for i, piece in enumerate(pieces))
    got = answers.entries(Reply("".join(pieces), tokens), 2, 1)
    assert got[0] == (1, pytest.approx(0.6 / 0.9)) and got[1] == (0, pytest.approx(0.6 / 0.9))
    assert answers.entries(Reply('{"1": 1}', (Token('{"1": 1}', -0.1, {}),)), 1, 1) == {0: (1, 1.0)}


def test_numbers() -> None:
    tokens = (Token("10", -0.2, {"10": math.log(0.5), "9": math.log(0.5), "11": 0.0}),)
    assert answers.number(Reply("10", tokens), 10) == (10, pytest.approx(9.5))
    assert answers.number(Reply("12"), 10) is None and answers.number(Reply("none"), 10) is None
    assert answers.expected({"no": -0.1, "-1": -0.1, "²": -0.1}, 10) is None and answers.expected({}, 10) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Explanation: names of months.", "names of months"),
        ("I looked.\n\nExplanation: names of months\n", "names of months"),
        ("**Explanation:** names of months", "names of months"),
        ("names of months", "names of months"),
        ("Explanation: sorry and other apologies", "sorry and other apologies"),
        ("I'm sorry, but I can't help with that.", None),
        ("First\nsecond", None),
        ("Explanation:", None),
        ("", None),
    ],
)
def test_explanations(text, said) -> None:
    assert answers.explanation(Reply(text), "Explanation:") == said
