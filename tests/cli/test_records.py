"""`interp-jax records` and `export`: from a dictionary's folder to what other tools read; bad input in one line."""

import json

import jax
import pytest

from interp_jax import cli, dictionaries, explain, io

SITE = "blocks.1.resid_post"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("records") / "dictionary"
    dictionary = dictionaries.TopK.create(jax.random.key(0), 128, 40, 4)
    dictionaries.save(where, dictionary, model="microworld", site=SITE)
    cli.main(["export", str(where), "--to", "neuronpedia", "--tokens", "3000", "--model-id", "micro"])
    return where


def test_one_command_makes_neuronpedias_folder(folder):
    single, rows = io.neuronpedia.load(folder / "neuronpedia")
    rows = list(rows)
    features = [row for kind, row in rows if kind == "features"]
    assert single["source"]["id"] == "1-res-40" and single["model"]["id"] == "micro" and len(features) == 40
    assert {row["hookName"] for row in features} == {"blocks.1.hook_resid_post"}
    assert all(row["pos_str"] and row["correlated_neurons_indices"] for row in features)
    assert sum(kind == "activations" for kind, _ in rows) > 40
    card = explain.load_card(folder / "records")
    assert card["model"] == "microworld" and [one["name"] for one in card["records"]] == [SITE, "blocks.1.mlp.post"]


def test_delphis_cache_is_made_of_the_records_there(folder, capsys):
    cli.main(["export", str(folder), "--to", "delphi"])
    assert "firings" in capsys.readouterr().out
    found = explain.load_records(folder / "records")[SITE]
    back = explain.from_delphi(folder / "delphi", SITE)
    assert back.counts.tolist() == found.held.counts.tolist()
    assert json.loads((folder / "delphi" / SITE / "config.json").read_text())["model_name"] == "microworld"


def test_records_of_a_dictionary_and_neurons(folder, capsys, tmp_path):
    words = ["--tokens", "2500", "--neurons", "blocks.0.mlp.post", "--held", "500", "--out", str(tmp_path)]
    cli.main(["records", str(folder), *words])
    out = capsys.readouterr().out
    assert "blocks.0.mlp.post" in out and "the records:" in out
    assert sorted(explain.load_records(tmp_path)) == ["blocks.0.mlp.post", SITE]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "{}", "--to", "neuronpedia"], "is not empty"),
        (["export", "{}", "--to", "delphi", "--out", "{}/new", "--tokens", "9"], "has records; leave --text and"),
        (
            ["export", "{}", "--to", "delphi", "--out", "{}/n", "--site", "blocks.0.attn_out"],
            "and the dictionary reads",
        ),
        (["records", "{}/nothing"], "no such checkpoint"),
        (["records"], "no dictionary; give its folder"),
        (
            ["records", "{}", "--site", "blocks.0.mlp.post", "--out", "{}/n", "--tokens", "2500"],
            "another site or model",
        ),
        (["records", "{}", "--text", "{}/nothing.txt", "--out", "{}/wrong"], "there is no such text file"),
    ],
)
def test_bad_input_is_told_in_one_line(folder, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([word.replace("{}", str(folder)) for word in words])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 2 and message in error
