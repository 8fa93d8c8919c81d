"""`interp-jax explain`: offline, by an endpoint served here, its cost, what is skipped, one line for bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import explain, models
from interp_jax.cli import main
from interp_jax.data import corpus
from tests.chat_server import Server, completion, serving
from tests.explain.test_endpoints import knowing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records of three units on the microworld's text: of frequent words, of a rarer one, and of none."""
    _, tokenizer = models.load("microworld")
    read = corpus.read(tokenizer, None, n_tokens=6000, n_positions=48)
    strings = tokenizer.to_str_tokens(range(tokenizer.d_vocab))
    counts = np.bincount(read.tokens[read.mask], minlength=len(strings))
    words = [i for i in np.argsort(-counts) if strings[i].strip().isalpha()]
    table = np.zeros((len(strings), 3), np.float32)
    table[words[:2], 0] = 2.0, 1.0
    table[words[10], 1] = 1.0

    def f(table, tokens):
        return ij.site(table[tokens], "units", axes=("batch", "position", "d")).sum()

    found = explain.record(f, {"units": None})(jnp.asarray(table), read.tokens, mask=read.real, skip=read.special)
    where = tmp_path_factory.mktemp("explain") / "records"
    explain.save_records(where, found, model="microworld")
    return where, [strings[i].strip() for i in (words[0], words[1], words[10])]


@pytest.fixture
def run(folder, capsys):
    """Runs the command on the records; gives what was printed, and the error."""

    def run(*words):
        try:
            main(["explain", str(folder[0]), *words])
        except SystemExit as stop:
            assert stop.code == 2
        said = capsys.readouterr()
        return said.out, said.err.strip()

    return run


def test_offline(run, folder):
    where, (first, second, rare) = folder
    out, _ = run("--units", "0", "1", "2", "--least", "20")
    assert "skipped: 2: unit 2 never fires" in out and "asked" not in out
    kept = explain.load_explanations(where)
    assert set(kept) == {("units", 0, "statistics"), ("units", 1, "statistics")}
    assert kept["units", 0, "statistics"].text.startswith("on: ") and rare in kept["units", 1, "statistics"].text
    assert {first, second} <= set(kept["units", 0, "statistics"].text.replace(",", "").split())
    assert kept["units", 1, "statistics"].scores["detection"].value > 0.95
    lines = (where / "explanations.jsonl").read_text().count("\n")
    again, _ = run("--least", "20", "--n", "1")  # the most telling one is known already
    assert "on: " in again and (where / "explanations.jsonl").read_text().count("\n") == lines


def test_an_endpoint_is_asked_for_what_is_not_known(run, folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serving(Server(lambda body, _: completion(knowing(body)))) as server:
        words = ["--units", "1", "--least", "20", "--endpoint", server.url, "--llm", "m", "--price", "1", "2"]
        words += ["--scores", "detection", "intruder"]
        told, _ = run(*words, "--cost-only")
        assert "1 units: " in told and "to pay" in told and "requests, about" in told and not server.asked
        out, _ = run(*words)
        n = len(server.asked)
        assert told.startswith(f"1 units: {n} requests") and f"asked: {n} requests, 0 more were known" in out
        assert f"{10 * n:,} tokens read and {3 * n:,} written, {16 * n / 1e6:.4f} paid" in out
        out, _ = run(*words)
        assert len(server.asked) == n and "cats and dogs" in out
        server.answer = lambda *_: (401, {"error": {"message": "who"}})
        _, error = run("--units", "0", *words[2:])
        assert "status 401" in error and error.endswith("what was done is kept: run the same command again")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--units", "3"], "unit 3 of 3"),
        (["--records", "blocks"], "--records blocks: there are units"),
        (["--least", "100000"], "no unit fires on 100000 tokens; give a longer text, or a lower --least"),
        (["--scores", "surprisal"], "'surprisal' is no"),
        (["--endpoint", "http://127.0.0.1:9/v1"], "give --llm too"),
        (["--tokens", "100"], "has records; leave --text and --tokens away"),
        (["--n", "0"], "n=0"),
    ],
)
def test_bad_input_is_one_line(run, words, message):
    out, error = run(*words)
    assert message in error and len(error.splitlines()) == 1 and not out


def test_no_such_folder(capsys, tmp_path, run, monkeypatch):
    for where in (tmp_path / "none", tmp_path):
        with pytest.raises(SystemExit):
            main(["explain", str(where)])
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    _, error = run("--units", "1", "--least", "20", "--endpoint", "http://127.0.0.1:9/v1", "--llm", "m")
    assert "no key: give api_key=" in error
