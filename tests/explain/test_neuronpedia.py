"""The import folder of Neuronpedia: its rows are the records', its files what a reader finds whole."""

import gzip
import json

import jsonschema
import numpy as np
import pytest

from interp_jax import explain, graphs, io
from tests.dictionaries.kinds import noisy
from tests.explain.test_records import MODEL, STRINGS, gather, values

RELEASE = explain.Release(
    model="none", layer=2, source_set="res-24", name="mine", title="Mine", creator="me", hook="blocks.2.hook_x",
    n_layers=3, d_mlp=16,
)  # fmt: skip
DICTIONARY = noisy("relu")


def effects(rows):
    return rows @ np.asarray(MODEL).T


@pytest.fixture(scope="module")
def found():
    return gather({"x": DICTIONARY, "blocks.y": None}, effects=effects)


@pytest.fixture(scope="module")
def folder(found, tmp_path_factory):
    where = tmp_path_factory.mktemp("neuronpedia") / "out"
    said = [explain.Explanation("x", 3, "<b>dogs</b>", "words")]
    n = explain.to_neuronpedia(
        where, found["x"], DICTIONARY, STRINGS, RELEASE, effects=effects, explanations=said, neurons=found["blocks.y"]
    )
    assert n == 24
    return where


def test_a_reader_finds_what_was_recorded(found, folder):
    single, rows = io.neuronpedia.load(folder)
    rows = list(rows)
    assert single["source"]["id"] == "2-res-24" and single["model"]["layers"] == 3
    features = {int(row["index"]): row for kind, row in rows if kind == "features"}
    assert sorted(features) == list(range(24))
    records, dense = found["x"], values("x", DICTIONARY)
    for unit, row in features.items():
        assert row["maxActApprox"] == pytest.approx(dense[unit].max(), rel=1e-5)
        assert row["frac_nonzero"] == pytest.approx((dense[unit] > 0).sum() / records.n_tokens)
        np.testing.assert_allclose(row["vector"], DICTIONARY.W_dec[unit], rtol=1e-5)
        assert sum(row["freq_hist_data_bar_heights"]) == (dense[unit] > 0).sum()
        assert sum(row["logits_hist_data_bar_heights"]) == len(STRINGS)
        assert row["hookName"] == "blocks.2.hook_x"
        best = np.argmax(np.asarray(DICTIONARY.W_dec)[unit] @ np.asarray(MODEL).T)
        assert row["pos_str"][0] == STRINGS[best] and row["neuron_alignment_l1"]
        other = row["correlated_neurons_indices"][0]
        common = np.intersect1d(records.held_rows, found["blocks.y"].held_rows)
        a, b = dense[unit][common].ravel(), values("blocks.y")[other][common].ravel()
        cosine = a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9)
        assert row["correlated_neurons_l1"][0] == pytest.approx(cosine, abs=1e-4)
    texts = [row for kind, row in rows if kind == "activations" and row["index"] == "3"]
    assert [row["binMin"] for row in texts[:2]] == [-1, -1] and texts[0]["maxValue"] == pytest.approx(
        dense[3].max(), rel=1e-3
    )
    shares = {row["binMin"]: row["binContains"] for row in texts if row["binMin"] >= 0}
    assert 0 < sum(shares.values()) <= 1.0 + 1e-6
    assert [row["description"] for kind, row in rows if kind == "explanations"] == ["<b>dogs</b>"]


def test_what_viewers_of_graphs_show_keeps_neuronpedias_schema(found, real_data, tmp_path):
    schema = json.loads((real_data / "neuronpedia" / "feature-details-schema.json").read_text())
    details = explain.feature_details(found["x"], 3, STRINGS)
    graphs.write_features({(2, 3): details}, tmp_path)
    (path,) = tmp_path.iterdir()
    told = json.loads(path.read_text())
    jsonschema.validate(told, schema)
    assert [one["quantile_name"] for one in told["examples_quantiles"]][0] == "Top" and len(told["top_logits"]) == 10


def test_what_is_not_right_is_told(found, folder, tmp_path):
    with pytest.raises(FileExistsError, match="is not empty"):
        explain.to_neuronpedia(folder, found["x"], DICTIONARY, STRINGS, RELEASE)
    with pytest.raises(ValueError, match="give the dictionary that was recorded"):
        explain.to_neuronpedia(tmp_path / "a", found["x"], noisy("crosscoder"), STRINGS, RELEASE)
    with pytest.raises(FileNotFoundError, match=r"release\.jsonl: is missing"):
        io.neuronpedia.load(tmp_path)
    batch = folder / "features" / "batch-0.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(batch.read_bytes()).splitlines()]
    whole = batch.read_bytes()
    for change, message in (
        ({"layer": "3-res-24"}, "is no feature here"),
        ({"pos_str": ["a"]}, "1 pos_str for 10 pos_values"),
        ({"maxActApprox": "high"}, "which the schema does not allow"),
    ):
        batch.write_bytes(gzip.compress("\n".join(json.dumps(row | change) for row in rows).encode()))
        with pytest.raises(ValueError, match=message):
            list(io.neuronpedia.load(folder)[1])
    batch.write_bytes(whole)
    with pytest.raises(ValueError, match="maxActApprox=nan"):
        io.neuronpedia.check("features", rows[0] | {"maxActApprox": float("nan")})
