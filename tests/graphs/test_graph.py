"""Graphs as such: influence, pruning, scores, supernodes, and files that viewers read."""

import json

import jsonschema
import numpy as np
import pytest
from scipy import sparse

from interp_jax import graphs
from tests.graphs.conftest import graph

KINDS = graphs.KINDS


def small(edges: np.ndarray, kinds: str, weight: dict[int, float]) -> graphs.Graph:
    """A graph of nodes named by the first letters of their kinds."""
    n, of = len(kinds), {kind[0]: number for number, kind in enumerate(KINDS)}
    zeros = {name: np.zeros(n, np.float32) for name in ("activation", "rest")}
    weights = np.zeros(n, np.float32)
    weights[list(weight)] = list(weight.values())
    return graphs.Graph(
        np.array([of[kind] for kind in kinds], np.int8),
        layer=np.arange(n),
        position=np.zeros(n, np.int32),
        index=np.arange(n),
        weight=weights,
        edges=sparse.csr_array(edges.astype(np.float32)),
        tokens=("a",),
        n_layers=2,
        **zeros,
    )


# error 0, embedding 1 -> feature 2 -> features 3, 4 -> logit 5
EDGES = np.zeros((6, 6))
EDGES[2, :2] = -1, 3
EDGES[3, [0, 2]] = 1, 1
EDGES[4, 2] = 5
EDGES[5, [1, 3, 4]] = 2, -6, 2


def test_influence_and_scores_by_hand() -> None:
    made = _made()
    influence = made.influence()
    # logit: embedding 0.2, feature 3 0.6, feature 4 0.2; feature 3: error and feature 2 half each
    assert influence[[3, 4]] == pytest.approx([0.6, 0.2])
    assert influence[2] == pytest.approx(0.3 + 0.2) and influence[1] == pytest.approx(0.2 + 0.75 * 0.5)
    assert influence[0] == pytest.approx(0.3 + 0.25 * 0.5)
    scores = made.scores()
    assert scores.replacement == pytest.approx(influence[1] / (influence[0] + influence[1]))
    weighed = influence + made.weight
    known = np.array([1, 1, 0.75, 0.5, 1, 1])  # of what has no input, all
    assert scores.completeness == pytest.approx((known * weighed).sum() / weighed.sum())


def _made() -> graphs.Graph:
    made = small(EDGES, "fffffl", {5: 1.0})
    made.kind[:2] = KINDS.index("error"), KINDS.index("embedding")
    return made


def test_influence_is_the_sum_of_powers() -> None:
    made = graph("per layer")
    A = made.normalized().toarray().astype(np.float64)
    total = made.weight @ A @ np.linalg.inv(np.eye(len(made)) - A)
    assert np.allclose(made.influence(), total, atol=1e-6)


def test_pruning() -> None:
    """What is kept carries the shares; a feature that is left has input and output; what was cut is told."""
    whole = graph("skip")
    pruned = whole.prune(0.8, 0.98)
    assert 0 < len(pruned) < len(whole) and len(pruned.find("embedding")) == 5
    features = pruned.find("feature")
    A = pruned.normalized()
    assert (np.asarray(A.sum(1)).ravel()[features] > 0).all() and (np.asarray(A.sum(0)).ravel()[features] > 0).all()
    place = {name: number for number, name in enumerate(whole.ids)}
    at = [place[name] for name in pruned.ids]
    total = np.asarray(whole.edges.sum(1)).ravel()[at]
    assert np.allclose(np.asarray(pruned.edges.sum(1)).ravel() + pruned.rest, total, atol=1e-4)
    influence = whole.influence()
    assert influence[at].sum() >= 0.7 * influence.sum()
    assert len(whole.prune(0.0, 0.0).find("feature")) <= 1
    everything = whole.prune(1.0, 1.0)
    assert len(everything.find("feature")) > len(features)
    with pytest.raises(ValueError, match="edge_threshold=2"):
        whole.prune(0.8, 2.0)


def test_find_take_filter_name() -> None:
    made = graph("per layer")
    nodes = made.find("feature", layer=1, position=3)
    assert len(nodes) and all((made.layer[nodes] == 1) & (made.position[nodes] == 3))
    some = made.named({int(nodes[0]): "a name"}).filter(lambda g: g.where("feature") & (g.layer == 1))
    assert len(some) == len(made.find("feature", layer=1)) and len(some.find(text="a name")) == 1
    assert some.nodes[0].kind == "feature" and len(set(made.ids)) == len(made)
    with pytest.raises(ValueError, match="kind='neuron' is none of feature"):
        made.find("neuron")
    with pytest.raises(ValueError, match="no node 999999"):
        made.named({999999: "x"})


def test_supernodes_and_merging() -> None:
    made = graph("per layer").prune(0.95)
    grouped = graphs.cluster(made, similarity=0.2)
    assert grouped.groups and all(len(set(made.position[list(some)])) == 1 for some in grouped.groups.values())
    one = graphs.collapse(grouped)
    members = sum(len(some) - 1 for some in grouped.groups.values())
    assert len(one) == len(made) - members
    target = int(made.find("logit")[0])
    there = one.find("logit", index=int(made.index[target]))[0]
    assert one.edges[[there]].sum() == pytest.approx(made.edges[[target]].sum(), rel=1e-4)
    same = graphs.merge([made, made])
    place = {name: number for number, name in enumerate(same.ids)}
    at = [place[name] for name in made.ids]
    assert np.allclose(same.edges.toarray()[np.ix_(at, at)], made.edges.toarray(), atol=1e-6)
    with pytest.raises(ValueError, match="similarity=2"):
        graphs.cluster(made, similarity=2.0)
    with pytest.raises(ValueError, match="at least one graph"):
        graphs.merge([])


def test_files(tmp_path, real_data) -> None:
    made = graph("cross").prune(0.9)
    made = graphs.cluster(made.named({int(made.find("error")[0]): "an <error>"}), similarity=0.1)
    path = made.to_json(tmp_path / "one.json", scan="tiny", pins=made.find("logit")[:1].tolist())
    told = json.loads(path.read_text())
    jsonschema.validate(told, json.loads((real_data / "neuronpedia" / "graph-schema.json").read_text()))
    again = graphs.from_json(path)
    assert again.ids == made.ids and abs(again.edges - made.edges).max() < 1e-6
    assert dict(again.groups) == dict(made.groups) and dict(again.names) == dict(made.names)
    assert again.scores() == pytest.approx(made.scores()) and np.allclose(again.rest, made.rest)
    ids = [node["node_id"] for node in told["nodes"]]
    assert len(set(ids)) == len(ids)
    made.to_json(tmp_path / "two.json")
    made.to_json(tmp_path / "one.json")
    listed = json.loads((tmp_path / "graph-metadata.json").read_text())["graphs"]
    assert [one["slug"] for one in listed] == ["two", "one"]


def test_a_file_of_circuit_tracer(tmp_path) -> None:
    """Without our own key: features by Cantor's pairing, kinds by their type."""
    made = graph("per layer").prune(0.9)
    path = made.to_json(tmp_path / "one.json")
    told = json.loads(path.read_text())
    del told["interp_jax"]
    path.write_text(json.dumps(told))
    again = graphs.from_json(path)
    features = made.find("feature")
    assert (again.index[features] == made.index[features]).all() and again.n_layers == made.n_layers
    assert (again.kind == made.kind).all() and np.allclose(again.weight, made.weight)
    assert [graphs.cantor(layer, feature) for layer, feature in ((0, 0), (1, 0), (0, 1), (20, 15))] == [0, 1, 2, 645]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told["metadata"].update(schema_version=9), "schema version 9; this reads version 1"),
        (lambda told: told.pop("links"), "lacks metadata, nodes or links"),
        (lambda told: told["nodes"].append(told["nodes"][0]), "the id of another"),
        (lambda told: told["links"].append({"source": "no", "target": "no", "weight": 1.0}), "edge of 'no'"),
    ],
)
def test_bad_files(tmp_path, change, message: str) -> None:
    path = graph("per layer").prune().to_json(tmp_path / "one.json")
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=message):
        graphs.from_json(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        graphs.from_json(path)
    with pytest.raises(ValueError, match="slug='a/b'"):
        graph("per layer").to_json(tmp_path, slug="a/b")
