"""`interp-jax graph`: a graph of a prompt from saved transcoders, and one line for bad input."""

from dataclasses import replace

import jax
import pytest

from interp_jax import dictionaries, graphs
from interp_jax.cli import main

D, N = 128, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transcoders")
    for layer, key in enumerate(jax.random.split(jax.random.key(0), 4)):
        one = dictionaries.Transcoder.create(key, D, N)
        sites = (f"blocks.{layer}.mlp_in", f"blocks.{layer}.mlp_out")
        dictionaries.save(folder / f"layer_{layer}", replace(one, W_dec=5 * one.W_dec, sites=sites))
    return folder


@pytest.fixture
def run(tmp_path, capsys):
    def run(*words):
        try:
            main(["graph", "--out", str(tmp_path / "out"), *words])
        except SystemExit as stop:
            assert stop.code == 2
        said = capsys.readouterr()
        return said.out, said.err.strip().splitlines()

    return run


def test_a_graph_is_written_and_told(run, folder, tmp_path):
    printed, _ = run("--transcoders", str(folder), "--prompt", "Mary gave a ring to", "--targets", "John", "Mary")
    made = graphs.from_json(tmp_path / "out" / "Mary-gave-a-ring-to.json")
    assert made.tokens[1:] == (" Mary", " gave", " a", " ring", " to") and len(made.find("logit")) == 2
    assert f"completeness score {made.scores().completeness:.1f}"[:20] in printed and "'John' (" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompt", "Mary", "--transcoders", "nowhere"), "nowhere: no such folder, nor a shipped set"),
        (("--prompt", "Mary gave", "--targets", "Mary and"), "is not one token"),
        (("--prompt", "Mary " * 200), "n_ctx"),
        (("--prompt", "Mary gave", "--first", "9"), "no feature is active"),
        (("--prompt", "Mary gave", "--nodes", "3"), "node_threshold=3"),
    ],
)
def test_bad_input_is_one_line(run, folder, words, message):
    _, errors = run("--transcoders", str(folder), *words)
    assert message in errors[-1] and errors[-1].startswith("interp-jax: error:")
