"""The page of heads: what it shows is in the survey, and no token becomes markup."""

from html.parser import HTMLParser

import numpy as np
import pytest

from interp_jax import heads, report

STRINGS = ["<bos>", " a", " cat", " sat", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\n", " end"]
TOKENS = np.array([[0, 1, 2, 3, 1, 4, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1, 2, 7], [0, 5, 6, 1, 2, 3, 1, 4, *[7] * 10]])
MASK = TOKENS != 7


def examples(*shape: int) -> heads.Examples:
    """One layer of two heads without an example."""
    n_keys = 3
    return heads.Examples(
        np.zeros((1, 2, *shape), np.float32),
        np.full((1, 2, *shape), -1),
        np.full((1, 2, *shape), -1),
        np.zeros((1, 2, *shape, n_keys), int),
        np.zeros((1, 2, *shape, n_keys), np.float32),
    )


@pytest.fixture
def survey() -> heads.Survey:
    """Head 0.1 looks from the second cat at the word after the first, once hard and once softly in the other text."""
    top, sampled = examples(2), examples(5, 1)
    top.peak[0, 1, 0], top.sequence[0, 1, 0], top.position[0, 1, 0] = 0.9, 0, 16
    top.keys[0, 1, 0], top.weights[0, 1, 0] = [3, 5, 0], [0.9, 0.06, 0]
    sampled.peak[0, 1, 1, 0], sampled.sequence[0, 1, 1, 0], sampled.position[0, 1, 1, 0] = 0.3, 1, 6
    sampled.keys[0, 1, 1, 0], sampled.weights[0, 1, 1, 0] = [4, 2, 1], [0.3, 0.2, 0.1]
    scores = {"self": np.array([[0.25, 0.5]]), "induction": np.array([[np.nan, 0.875]])}
    scores |= {"distance_variance": np.array([[3.0, 1.0]])}
    return heads.Survey(scores, np.array([[0.5, 0.125]]), top, sampled, 2, 20)


def test_what_is_shown_of_a_head(survey) -> None:
    told = {(0, 16): (" sat", "\n"), (1, 6): (" sat",)}
    head = report.describe_head(survey, 0, 1, TOKENS, STRINGS, mask=MASK, written=told)
    assert head.scores == (
        ("self", "0.50", "1 of 2"), ("induction", "0.88", "1 of 2"), ("distance variance", "1.00", "2 of 2"),
    )  # fmt: skip
    (example,) = head.top
    shown = example.excerpt
    assert shown.tokens[shown.focus] == " cat" and shown.values[shown.focus] == 0
    assert shown.tokens[:5] == (" a", " cat", " sat", " a", STRINGS[4]) and " … " in shown.tokens
    assert shown.values[2] == 0.9 and shown.values[4] == 0.06 and sum(shown.values) == pytest.approx(0.96)
    assert " end" not in shown.tokens and example.written == (" sat", "\n")  # padding is not shown
    assert [len(found) for _, _, found in head.intervals] == [0, 0, 0, 1, 0] and head.intervals[3][:2] == (0.2, 0.4)
    assert head.looks_from == ((" cat", 0.5), (" a", 0.5))
    assert dict(head.looks_at)[" sat"] == pytest.approx(0.9 / 1.56)
    assert head.writes == ((" sat", pytest.approx(2 / 3)), ("\n", pytest.approx(1 / 3)))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_is_text_and_needs_no_network(survey) -> None:
    shown = [
        report.describe_head(survey, 0, i, TOKENS, STRINGS, mask=MASK, written={(1, 6): (STRINGS[5],)}) for i in (0, 1)
    ]
    html = report.heads_page(shown, survey, title="<b>t", facts={"<i>": "<u>"})
    page = Tags()
    page.feed(html)
    tags = {tag for tag, _ in page.seen}
    assert not tags & {"script", "img", "b", "i", "u"} and "http" not in html
    assert not any(name.startswith("on") for _, attributes in page.seen for name in attributes)
    assert "&lt;b&gt;t" in html and "alert(1)&lt;/script&gt;" in html and "Head 0.1" in html
    assert sum(tag == "rect" for tag, _ in page.seen) == 6  # three scores of two heads
    assert "12% of its attention" in html and ": nan" not in html


def test_what_does_not_fit_is_one_line(survey) -> None:
    with pytest.raises(ValueError, match="describe_head: head 1.0 of 1 layers of 2 heads"):
        report.describe_head(survey, 1, 0, TOKENS, STRINGS)
    with pytest.raises(ValueError, match="describe_head: 1 texts for a survey of 2; give the texts"):
        report.describe_head(survey, 0, 0, TOKENS[:1], STRINGS)
