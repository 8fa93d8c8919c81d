"""`interp-jax why`: the table, the page of the microworld's indirect objects, and one line for bad input."""

import json

import pytest

from interp_jax.cli import main


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command; gives its folder, what was printed, and the error."""

    def run(*words):
        out = tmp_path / "out"
        try:
            main(["why", "--out", str(out), *words])
        except SystemExit as stop:
            assert stop.code == 2
        said = capsys.readouterr()
        return out, said.out, said.err.strip()

    return run


@pytest.mark.long
def test_why_mary_rather_than_john(run, tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    line = {
        "records": "blocks.attn.pattern",
        "unit": 3 * 4 + 2,
        "text": "copies <names>",
        "explainer": "",
        "scores": {},
    }
    (records / "explanations.jsonl").write_text(json.dumps(line) + "\n")
    out, printed, _ = run("--n", "1", "--records", str(records))
    assert "' Mary' rather than ' John': 15.06" in printed and "head 3.2      14 ' to'" in printed
    numbers = json.loads((out / "why.json").read_text())
    left = {node["node"]: node["without"] for node in numbers["nodes"]}
    assert left["head 3.2 at 14"] < 2 < numbers["value"]  # without it the name is hardly told from the other
    page = (out / "index.html").read_text()
    assert "copies \\u003cnames\\u003e" in page and "http" not in page and len(page) < 300_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rather", " Mary"], "both tokens are ' Mary'"),
        (["--token", " Mary John"], "is not one token"),
        (["--position", "40"], "position 40: the prompt has 15 tokens"),
        (["--n", "0"], "--n 0"),
        (["--dictionary", "./nothing"], "nothing"),
        (["--records", "."], "has neither records nor explanations.jsonl"),
    ],
)
def test_bad_input_is_one_line(run, words, message):
    _, _, said = run(*words)
    assert message in said
    assert len(said.splitlines()) == 1
