"""`interp-jax graph`: a graph of a prompt from saved transcoders, and one line for bad input."""

from dataclasses import replace
import json
from pathlib import Path

import jax
import jsonschema
import pytest

from interp_jax import dictionaries, graphs
from interp_jax.cli import main
from interp_jax.data import microworld

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


def test_features_are_shown_beside_it(run, tmp_path, real_data):
    """By what they fire on in a text, each under the number that its nodes have; the graph is told where they are."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(microworld.text(0, 60)))
    run("--prompt", "Mary gave a ring to", "--text", str(text))
    path = tmp_path / "out" / "Mary-gave-a-ring-to.json"
    told, made = json.loads(path.read_text()), graphs.from_json(path)
    folder = told["metadata"]["feature_details"]["feature_json_base_url"]
    schema = json.loads((real_data / "neuronpedia" / "feature-details-schema.json").read_text())
    written = {int(one.stem): json.loads(one.read_text()) for one in Path(folder).iterdir()}
    for number, one in written.items():
        jsonschema.validate(one, schema)
        assert one["index"] == number and one["examples_quantiles"][0]["examples"] and one["top_logits"]
    named = [node for node in told["nodes"] if node["clerp"] and node["feature_type"] == "cross layer transcoder"]
    assert named and {node["feature"] for node in named} == set(written)
    node = next(node for node in made.find("feature") if node in made.names)
    shown = graphs.read_feature(folder, int(made.layer[node]), int(made.index[node]))
    assert max(max(values) for _, values in shown.examples["Top"]) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompt", "Mary", "--transcoders", "nowhere"), "nowhere: no such folder, nor a shipped set"),
        (("--prompt", "Mary gave", "--targets", "Mary and"), "is not one token"),
        (("--prompt", "Mary " * 200), "n_ctx"),
        (("--prompt", "Mary gave", "--first", "9"), "no feature is active"),
        (("--prompt", "Mary gave", "--nodes", "3"), "node_threshold=3"),
        (("--prompt", "Mary gave", "--text", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_bad_input_is_one_line(run, folder, words, message):
    _, errors = run("--transcoders", str(folder), *words)
    assert message in errors[-1] and errors[-1].startswith("interp-jax: error:")
