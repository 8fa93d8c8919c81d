"""Notebooks run from the top and print what is stored in them."""

import copy
from pathlib import Path
import re
from typing import Any

import pytest

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "experiments").rglob("*.ipynb"))


def printed(notebook: Any) -> list[str]:
    """The text of every output, without the digits of its decimal numbers."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("text") or output["data"]["text/plain"] for output in outputs]
    return [re.sub(r"\d*\.\d*", "_", text) for text in texts]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_prints_what_it_says(path: Path) -> None:
    import nbclient
    import nbformat

    stored = nbformat.read(path, as_version=4)
    ran = nbclient.NotebookClient(copy.deepcopy(stored), timeout=300).execute()
    assert printed(ran) == printed(stored) != []
