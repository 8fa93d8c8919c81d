"""The main job as a user runs it: a process of its own, at the default size."""

from pathlib import Path
import subprocess
import sys

import pytest

from interp_jax import dictionaries

pytestmark = pytest.mark.long


def quickstart(out: Path, *words: str | Path) -> str:
    command = [Path(sys.executable).with_name("interp-jax"), "quickstart", "--out", out, *words]
    return subprocess.run(command, cwd=out.parent, stdout=subprocess.PIPE, text=True, check=True).stdout


def check(out: Path, printed: str, least: float) -> None:
    assert "import interp_jax as ij" in printed
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "<script src" not in page and "<link" not in page  # opens offline
    dictionaries.load(out / "dictionary")
    about = dictionaries.load_metadata(out / "dictionary")
    assert about["scores"]["ce_recovered"] > least, about


def test_microworld(tmp_path: Path) -> None:
    check(tmp_path / "out", quickstart(tmp_path / "out"), least=0.95)


def test_a_real_model_on_real_stories(tmp_path: Path, real_data: Path) -> None:
    model, text = real_data / "stories260K", real_data / "tinystories" / "stories.txt"
    check(tmp_path / "out", quickstart(tmp_path / "out", "--model", model, "--text", text), least=0.9)
