"""The map of effects: its numbers, that what it shows is escaped, and that no page of the package brings a library."""

import json
from pathlib import Path
import re

import numpy as np
import pytest

from interp_jax import report

EVIL = "</script><b>"


def test_the_map_holds_its_values_and_intervals_and_escapes_its_labels() -> None:
    values = np.arange(12.0).reshape(2, 2, 3) / 10
    labels = [["0", "1"], ["0", "1"], [EVIL, "b", "c"]]
    page = report.effects_page(
        values, ["layer", "head", "position"], labels, title=EVIL, interval=(values - 0.1, values + 0.1), about=EVIL
    )
    data = json.loads(re.search(r"high } = (.*);", page)[1])
    assert data["values"] == list(range(0, 1200, 100)) and data["low"][0] == -100 and data["labels"][2][0] == EVIL
    assert EVIL not in page and len(page) < 12_000


@pytest.mark.parametrize(
    ("values", "labels", "told"),
    [
        (np.ones((2, 2)), [["0"], ["0", "1"]], r"values \[2, 2\] with axes"),
        (np.ones((0, 2)), [[], ["0", "1"]], r"values \[0, 2\]"),
        (np.full((1, 1), np.nan), [["0"], ["0"]], "must be finite"),
    ],
)
def test_bad_input_is_told_in_one_line(values, labels, told) -> None:
    with pytest.raises(ValueError, match=told):
        report.effects_page(values, ["layer", "position"], labels, title="map")


def test_no_page_brings_a_library() -> None:
    """Of plotly alone a page was 4.8 MB. Figures of experiments may."""
    package = Path(report.__file__).parents[1]
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert not [
        path.name for path, text in sources.items() if re.search(r"^\s*(import|from) plotly", text, re.MULTILINE)
    ]
