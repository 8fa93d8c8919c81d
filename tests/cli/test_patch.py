"""`interp-jax patch`: the map that patching gives, its page, and one line for bad input."""

import json
import re

import pytest

from interp_jax.cli import main


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command; gives the numbers, what was printed, and the error."""

    def run(*words):
        out = tmp_path / "out"
        try:
            main(["patch", "--out", str(out), *words])
        except SystemExit as stop:
            assert stop.code == 2
        said = capsys.readouterr()
        file = out / "effects.json"
        return json.loads(file.read_text()) if file.exists() else None, said.out, said.err.strip()

    return run


def test_the_task_of_indirect_objects(run, tmp_path):
    numbers, printed, _ = run("--n", "4")
    mean = numbers["mean"]
    assert (len(mean), len(mean[0])) == (4, 15)
    assert mean[0][10] > 0.9 and mean[3][14] > 0.9  # the repeated name, and then the last word
    assert abs(mean[0][4]) < 0.1
    assert numbers["low"][0][10] <= mean[0][10] <= numbers["high"][0][10]
    assert "4 pairs" in printed
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "\\u003cbos\\u003e" in page and "<bos>" not in page
    assert "means over 4 pairs" in page and len(json.loads(re.search(r"high } = (.*);", page)[1])["low"]) == 4 * 15


def test_prompts_of_ones_own(run):
    pair = "--clean", "Emma gave Bruno the book .", "--corrupted", "Bruno gave Emma the book ."
    numbers, printed, _ = run(
        *pair, "--answer", "Emma", "--distractor", "Bruno", "--site", "embed", "--over", "position"
    )
    assert len(numbers["mean"]) == 7
    assert numbers["mean"][0] == pytest.approx(0, abs=1e-4)
    assert "low" not in numbers
    assert "1 pairs" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clean", "a"], "--corrupted, --answer, --distractor missing"),
        (["--clean", ""], "--corrupted, --answer, --distractor missing"),
        (["--over"], "--over names no axis"),
        (["--site", "blocks.resid_pe"], "near names"),
        (["--over", "layer", "head"], "over=('batch', 'layer', 'head') names an axis 'head'"),
        (["--n", "0"], "n=0"),
        (
            ["--clean", "Emma gave", "--corrupted", "Emma", "--answer", "Emma", "--distractor", "Bruno"],
            "clean has 3 tokens",
        ),
        (
            ["--clean", "Emma gave", "--corrupted", "Emma gave", "--answer", "Emma", "--distractor", "Bruno"],
            "clean equals corrupted",
        ),
        (
            ["--clean", "Emma gave", "--corrupted", "Bruno gave", "--answer", "Emma gave", "--distractor", "Bruno"],
            "is not one token",
        ),
    ],
)
def test_bad_input_is_one_line(run, words, message):
    _, _, said = run(*words)
    assert message in said
    assert len(said.splitlines()) == 1
