"""The pairs of sources of a query and a key add up to the score that the model has."""

import json

import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import graphs, models
from interp_jax.interventions import add, at
from tests.graphs.conftest import LONG, SETS, TOKENS, graph, model

SCORES = "blocks.attn.attn_scores"


@pytest.mark.parametrize("set_of", ["per layer", *(pytest.param(name, marks=LONG) for name in ("skip", "cross"))])
def test_pairs_add_up(set_of: str, scanned: bool) -> None:
    f, transcoders = model(scanned=scanned), SETS[set_of]()
    scores = ij.capture(models.forward, SCORES, output=False)(f, TOKENS)[SCORES]
    for layer, head, query, key in ((0, 1, 3, 3), (2, 0, 4, 2)):
        found = graphs.trace_attention(models.forward, f, transcoders, TOKENS, layer, head, query, key)
        want = float(scores[layer, head, query, key])
        for total in (found.score, found.pairs().sum(), found.by_query().sum(), found.by_key().sum()):
            assert total == pytest.approx(want, abs=1e-4)
        assert found.top(3)[0][2] == pytest.approx(found.pairs().flat[np.abs(found.pairs()).argmax()])


@pytest.mark.long
def test_a_query_is_what_its_features_put_there() -> None:
    """More of an embedding moves query and key as its parts say, in the run in which norms are held."""
    f, transcoders = model(scanned=False), SETS["per layer"]()
    found = graphs.trace_attention(models.forward, f, transcoders, TOKENS, 0, 1, 4, 1)
    held = graphs.hold(models.forward, transcoders)(f, TOKENS)
    norms = {name: value for name, value in held.frozen.items() if name.endswith("scale")}
    g = ij.freeze(models.forward, tuple(norms), norms)
    _, acts = ij.capture(models.forward, "embed")(f, TOKENS)
    more = ij.intervene(g, {"embed": at(add(acts["embed"]), position=4)})
    there, here = (ij.capture(run, SCORES, output=False)(f, TOKENS)[SCORES][0, 1, 4, 1] for run in (more, g))
    assert f"E_{TOKENS[4]}_4" in found.ids
    part = found.by_query()[found.ids.index(f"E_{TOKENS[4]}_4")]
    assert float(there - here) == pytest.approx(part, abs=1e-4)


def test_results_stand_in_the_file(tmp_path, real_data) -> None:
    """As the schema has them: every contributor is a node, or is described beside the nodes."""
    f, transcoders = model(scanned=False), SETS["per layer"]()
    found = graphs.trace_attention(models.forward, f, transcoders, TOKENS, 2, 0, 4, 2)
    pruned = graph("per layer").prune()
    node = int(pruned.find("logit")[0])
    path = pruned.to_json(tmp_path / "g.json", looking={node: found})
    told = json.loads(path.read_text())

    jsonschema.validate(told, json.loads((real_data / "neuronpedia" / "graph-schema.json").read_text()))
    results = next(one for one in told["nodes"] if one["node_id"] == pruned.ids[node])["qk_tracing_results"]
    known = {one["node_id"] for one in told["nodes"]} | set(told["qk_only_nodes"])
    pairs = results["pair_wise_contributors"]
    assert pairs and all(q in known and k in known for q, k, _ in pairs) and len(pairs) <= 10
    assert graphs.from_json(path).ids == pruned.ids


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((9, 0, 4, 2), "layer=9: there are 3"),
        ((0, 5, 4, 2), "head=5"),
        ((0, 0, 7, 2), "query=7"),
        ((0, 0, 2, 4), "key=4"),
    ],
)
def test_bad_places(place, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graphs.trace_attention(models.forward, model(scanned=False), SETS["per layer"](), jnp.asarray(TOKENS), *place)
