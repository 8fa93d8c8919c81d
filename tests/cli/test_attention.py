"""`interp-jax attention`: the page, the kinds of heads, and one line for bad input."""

import re

import pytest

from interp_jax.cli import main


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command; gives the page, what was printed, and the error."""

    def run(*words):
        out = tmp_path / "out"
        try:
            main(["attention", "--out", str(out), *words])
        except SystemExit as stop:
            assert stop.code == 2
        said = capsys.readouterr()
        file = out / "index.html"
        return file.read_text(encoding="utf-8") if file.exists() else None, said.out, said.err.strip()

    return run


def test_the_heads_of_the_microworld(run):
    page, printed, _ = run("--prompt", "Emma gave Bruno the book .")
    assert re.search(r"^induction +most in head 3\.\d: (0\.9\d|1\.00)$", printed, re.MULTILINE)
    assert '"tokens": ["\\u003cbos\\u003e", "Emma", "gave", "Bruno", "the", "book", "."]' in page
    assert "microworld · attention" in page and "previous token" in page


def test_a_tokenizer_without_the_words(run, real_data):
    page, printed, _ = run("--model", str(real_data / "stories260K"), "--prompt", "Lily saw a cat.")
    assert "Lily" in page
    assert re.search(r"previous token +most in head 3\.6: 0\.\d\d", printed)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--model", "./nothing"], "no such model folder"), (["--prompt", "a " * 2000], "n_ctx")],
)
def test_bad_input_is_one_line(run, words, message):
    page, _, said = run(*words)
    assert message in said and page is None
    assert len(said.splitlines()) == 1
