"""The tutorials run from the top, offline, and show what is stored in them."""

from pathlib import Path

import pytest

from tests.notebooks import TUTORIALS, has_warnings, shown, stored_and_run

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]

NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
ON_A_REAL_MODEL = "2_patching_and_circuits"  # as it is stored; tests/real compares it


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_shows_what_it_says(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_JAX_REAL", str(tmp_path))  # a newcomer has no real model
    stored, ran = stored_and_run(path)
    assert not has_warnings(ran)
    if path.stem != ON_A_REAL_MODEL:
        assert shown(ran) == shown(stored)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small_and_of_no_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert "/home/" not in text and "/root/" not in text and "/tmp/" not in text
    assert '"stderr"' not in text and "iopub" not in text


def test_there_are_six() -> None:
    assert [path.stem[0] for path in NOTEBOOKS] == list("123456")
