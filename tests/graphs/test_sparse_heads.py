"""Sparse heads in the place of attention: the original's output, their own patterns held, and none of the model's."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, graphs, models
from interp_jax.interventions import add, replace, scale
from tests.graphs.conftest import KEYS, LONG, SETS, TOKENS, D, N, model

FEATURES, PATTERN = "blocks.attn_out.features", "blocks.attn_out.pattern"


@functools.cache
def heads() -> list[dictionaries.Lorsa]:
    made = [dictionaries.Lorsa.create(key, D, N, 6, n_groups=4, d_qk=4, rope_theta=50.0) for key in KEYS[3:6]]
    rng = np.random.default_rng(0)
    noise = lambda x: x + jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype)  # noqa: E731
    return [jax.tree.map(noise, one) for one in made]


def complete(held: graphs.Held | None = None) -> Any:
    return graphs.replace_mlps(graphs.replace_attention(models.forward, heads(), held), SETS["per layer"](), held)


@functools.cache
def held_of(*, scanned: bool) -> graphs.Held:
    return graphs.hold(models.forward, SETS["per layer"](), heads())(model(scanned=scanned), TOKENS)


def test_original_output(scanned: bool) -> None:
    f, held = model(scanned=scanned), held_of(scanned=scanned)
    want = models.forward(f, TOKENS)
    assert "blocks.attn.pattern" not in held.frozen and held.frozen[PATTERN].shape == (3, 4, 5, 5)
    for g in (complete(), complete(held)):
        np.testing.assert_allclose(g(f, TOKENS), want, atol=1e-4)


@LONG
def test_original_output_of_a_padded_batch(scanned: bool) -> None:
    f = model(scanned=scanned)
    batch, mask = jnp.stack([TOKENS, TOKENS[::-1]]), jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    wide = complete()(f, batch, attention_mask=mask) - models.forward(f, batch, attention_mask=mask)
    np.testing.assert_allclose(jnp.where(mask[..., None] > 0, wide, 0), 0, atol=1e-4)


@LONG
def test_features_and_patterns_are_the_dictionaries(scanned: bool) -> None:
    """Also behind padding, where they are those of the prompt alone."""
    f, g = model(scanned=scanned), graphs.replace_attention(models.forward, heads())
    names = (FEATURES, PATTERN, "blocks.ln1.normalized")
    _, acts = ij.capture(g, names)(f, TOKENS)
    for layer, one in enumerate(heads()):
        x = acts["blocks.ln1.normalized"][layer]
        np.testing.assert_allclose(acts[PATTERN][layer], one.pattern(x), atol=1e-5)
        np.testing.assert_allclose(acts[FEATURES][layer], one.encode(x), atol=1e-4)
    padded, mask = jnp.concatenate([jnp.array([2, 2]), TOKENS])[None], jnp.array([[0, 0, 1, 1, 1, 1, 1]])
    _, there = ij.capture(g, names)(f, padded, attention_mask=mask)
    np.testing.assert_allclose(there[FEATURES][:, 0, 2:], acts[FEATURES], atol=1e-4)


def test_no_pattern_of_the_models_own_is_left(scanned: bool) -> None:
    """Held, its heads are gone from the program; sparse heads look where they looked whatever becomes of the stream."""
    f, held = model(scanned=scanned), held_of(scanned=scanned)
    g = complete(held)
    assert not {"blocks.attn.pattern", "blocks.attn.z", "blocks.attn.q"} & set(ij.sites(g, f, TOKENS))
    out, acts = ij.capture(ij.intervene(g, {"embed": scale(0.5)}), PATTERN)(f, TOKENS)
    np.testing.assert_allclose(acts[PATTERN], held.frozen[PATTERN], atol=1e-6)
    assert not np.allclose(out, models.forward(f, TOKENS), atol=1e-3)


@LONG
def test_linear_between_nonlinearities() -> None:
    """Held, and later features too, the stream is an affine function of a layer's heads."""
    f = model(scanned=False)
    g = complete(held_of(scanned=False))
    _, acts = ij.capture(g, ("blocks.mlp_out.features", FEATURES))(f, TOKENS)
    later = {
        f"blocks.{layer}.{site}.features": replace(acts[f"blocks.{site}.features"][layer])
        for layer in range(3)
        for site in ("attn_out", "mlp_out")
    }
    change = jax.random.normal(jax.random.key(5), (5, N))

    def end(size: jax.Array) -> jax.Array:
        edits = {**later, "blocks.0.attn_out.features": add(size * change)}
        return ij.capture(ij.intervene(g, edits), "unembed.in", output=False)(f, TOKENS)["unembed.in"]

    base, once, twice = (end(jnp.float32(size)) for size in (0.0, 1.0, 2.0))
    np.testing.assert_allclose(twice - base, 2 * (once - base), atol=1e-4)
    assert not np.allclose(once, base, atol=1e-3)


@LONG
def test_heads_of_some_layers() -> None:
    f = model(scanned=False)
    some = {0: heads()[0], 2: heads()[2]}
    held = graphs.hold(models.forward, SETS["per layer"](), some)(f, TOKENS)
    assert {"blocks.0.attn_out.pattern", "blocks.2.attn_out.pattern"} < set(held.frozen)
    g = graphs.replace_attention(models.forward, some, held)
    np.testing.assert_allclose(g(f, TOKENS), models.forward(f, TOKENS), atol=1e-4)


@pytest.mark.parametrize(
    ("lorsas", "message"),
    [
        (lambda: heads()[:2], "2 for a model of 3 layers: give one for each"),
        (lambda: [dictionaries.Lorsa.create(KEYS[0], 8, 4, 2, n_groups=2, d_qk=2)] * 3, "it belongs to another model"),
    ],
)
def test_heads_of_another_model(lorsas: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graphs.replace_attention(models.forward, lorsas())(model(scanned=False), TOKENS)


@functools.cache
def graph(*, scanned: bool = True, **options: Any) -> graphs.Graph:
    f, some = model(scanned=scanned), options.pop("lorsas", None) or heads()
    return graphs.attribution_graph(models.forward, f, SETS["per layer"](), TOKENS, lorsas=some, **options)


def test_edges_add_up(scanned: bool) -> None:
    """To each feature's and each head's activation, and to each logit without the mean of all."""
    f, made = model(scanned=scanned), graph(scanned=scanned)
    logits, acts = ij.capture(models.forward, ("blocks.mlp_in", "blocks.ln1.normalized"))(f, TOKENS)
    total = np.asarray(made.edges.sum(1)).ravel()
    found = {"feature": ("blocks.mlp_in", SETS["per layer"]()), "lorsa": ("blocks.ln1.normalized", heads())}
    for kind, (site, dictionaries_) in found.items():
        want = np.stack([np.asarray(one.encode(x)) for one, x in zip(dictionaries_, acts[site], strict=True)])
        nodes = made.find(kind)
        assert len(nodes) == (want[:, 1:] > 0).sum() > 50
        active = want[made.layer[nodes], made.position[nodes], made.index[nodes]]
        np.testing.assert_allclose(made.activation[nodes], active, atol=1e-4)
        np.testing.assert_allclose(total[nodes], active, atol=1e-4)
    last = np.asarray(logits[-1])
    for node in made.find("logit"):
        assert total[node] == pytest.approx(last[made.index[node]] - last.mean(), abs=1e-4)
    assert len(made.find("lorsa error")) == len(made.find("error")) == 15 and not made.rest.any()


def test_edges_are_perturbations_of_the_held_run() -> None:
    """All features and heads held at their values, one changed: what they read and the logits move as its edges say."""
    f, transcoders, made = model(scanned=True), SETS["per layer"](), graph()
    held = held_of(scanned=True)
    g = complete(held)
    names = ("blocks.mlp_out.features", FEATURES, "blocks.resid_mid", "blocks.resid_pre", "unembed.out")
    _, before = ij.capture(g, names)(f, TOKENS)

    def pre(acts: Any) -> dict[str, np.ndarray]:
        mlps = [np.asarray(one.pre_activations(acts["blocks.resid_mid"][i])) for i, one in enumerate(transcoders)]
        x, look = acts["blocks.resid_pre"] / held.frozen["blocks.ln1.scale"], held.frozen[PATTERN]
        own = [np.asarray(one.pre_activations(x[i], look[i])) for i, one in enumerate(heads())]
        return {"feature": np.stack(mlps), "lorsa": np.stack(own)}

    @jax.jit
    def moved(values: jax.Array, others: jax.Array) -> Any:
        edits = {"blocks.mlp_out.features": others, FEATURES: values}
        every = {name.replace("blocks.", f"blocks.{i}."): replace(x[i]) for name, x in edits.items() for i in range(3)}
        return ij.capture(ij.intervene(g, every), names[2:], output=False)(f, TOKENS)

    edges, start = made.edges.toarray(), pre(before)
    for node in [*made.find("lorsa", layer=0)[::15], *made.find("feature", layer=0)[::20]]:
        place = int(made.layer[node]), int(made.position[node]), int(made.index[node])
        sets = {name: before[name] for name in names[:2]}
        name = FEATURES if node in made.find("lorsa") else "blocks.mlp_out.features"
        sets[name] = sets[name].at[place].multiply(1.5)
        after = moved(sets[FEATURES], sets["blocks.mlp_out.features"])
        change = {kind: values - start[kind] for kind, values in pre(after).items()}
        for kind, moves in change.items():
            targets = made.find(kind)
            want = moves[made.layer[targets], made.position[targets], made.index[targets]]
            np.testing.assert_allclose(edges[targets, node] * 0.5, want, atol=1e-4)
        out = np.asarray(after["unembed.out"][-1] - before["unembed.out"][-1])
        targets = made.find("logit")
        np.testing.assert_allclose(edges[targets, node] * 0.5, (out - out.mean())[made.index[targets]], atol=1e-4)


def test_the_file_says_what_the_graph_says(tmp_path: Path, real_data: Path) -> None:
    made = graph().prune(0.9)
    details = {"neuronpedia_source_set": "mine", "neuronpedia_lorsa_source_set": "my-heads"}
    path = made.to_json(tmp_path / "one.json", feature_details=details)
    told = json.loads(path.read_text())
    jsonschema.validate(told, json.loads((real_data / "neuronpedia" / "graph-schema.json").read_text()))
    assert told["metadata"]["feature_details"] == details
    node = next(one for one in told["nodes"] if one["feature_type"] == "lorsa")
    layer, _, index, position = node["node_id"].split("_")
    assert node["feature"] == graphs.cantor(int(layer), int(index)) and node["ctx_idx"] == int(position)
    error = next(one for one in told["nodes"] if one["feature_type"] == "lorsa error")
    assert error["node_id"] == f"error_attn_{error['layer']}_{error['ctx_idx']}" and error["feature"] == -1
    again = graphs.from_json(path)
    assert again.ids == made.ids and abs(again.edges - made.edges).max() < 1e-6
    # Also where another wrote it, who says no more than the schema has.
    theirs = {name: told[name] for name in ("metadata", "qParams", "nodes", "links")}
    (tmp_path / "two.json").write_text(json.dumps(theirs))
    read = graphs.from_json(tmp_path / "two.json")
    for name in ("kind", "layer", "position", "index"):
        where = again.where("feature", "lorsa", "error", "lorsa error")
        np.testing.assert_array_equal(getattr(read, name)[where], getattr(again, name)[where])


def test_scores_and_pruning_know_heads() -> None:
    made = graph()
    errors = made.take(~made.where("lorsa error", "error"))
    assert errors.scores().replacement == pytest.approx(1) and made.scores().replacement < 1
    pruned = made.prune(0.5)
    kept = pruned.find("lorsa")
    led, leads = (np.asarray(abs(pruned.edges).sum(axis)).ravel() for axis in (1, 0))
    assert 0 < len(kept) < len(made.find("lorsa")) and (led[kept] > 0).all() and (leads[kept] > 0).all()
    few = graph(n_features=20, n_edges=4)
    nodes = few.find("lorsa")
    assert len(nodes) + len(few.find("feature")) == 20 and len(nodes)


def test_few_nodes_are_those_that_lead_to_the_end() -> None:
    """Most heads reach it through others alone, and have no influence that is known before these have."""
    whole, few = graph(), graph(n_features=60)
    influence, place = whole.influence(), {name: number for number, name in enumerate(whole.ids)}
    kept = [place[few.ids[node]] for node in np.flatnonzero(few.where("feature", "lorsa"))]
    assert (influence[kept] > 0).all() and len(kept) == 60
    assert influence[kept].sum() > 0.8 * np.sort(influence[whole.where("feature", "lorsa")])[-60:].sum()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: (SETS["per layer"](), SETS["per layer"]()), "a Transcoder among lorsas"),
        (lambda: (heads(), None), "a Lorsa among transcoders"),
        (lambda: (SETS["cross"](), heads()), "lorsas beside a cross-layer transcoder"),
    ],
)
def test_graphs_of_what_does_not_go_together(given: Any, message: str) -> None:
    transcoders, lorsas = given()
    with pytest.raises(ValueError, match=message):
        graphs.attribution_graph(models.forward, model(scanned=True), transcoders, TOKENS, lorsas=lorsas)


def test_why_a_sparse_head_looks(tmp_path: Path, real_data: Path) -> None:
    """Its pairs of sources add up to its score, softmax of which is its pattern; the file has them at its node."""
    f, some = model(scanned=True), SETS["per layer"]()
    made = graph()
    node = made.find("lorsa", layer=2, position=2)[0]
    head = int(made.index[node])
    trace = functools.partial(graphs.trace_attention, models.forward, f, some, TOKENS, 2, head, 2, lorsas=heads())
    found = [trace(key) for key in range(3)]
    for one in found:
        for total in (one.pairs().sum(), one.by_query().sum(), one.by_key().sum()):
            assert total == pytest.approx(one.score, abs=1e-4)
    want = held_of(scanned=True).frozen[PATTERN][2, int(heads()[2].group[head]), 2, :3]
    np.testing.assert_allclose(jax.nn.softmax(jnp.array([one.score for one in found])), want, atol=1e-5)
    assert any("lor" in name for name in found[1].ids) and any("error_attn" in name for name in found[1].ids)
    pruned = made.take([node, *made.find("logit"), *made.find("embedding")])
    told = json.loads(pruned.to_json(tmp_path / "g.json", looking={0: found[1]}).read_text())
    jsonschema.validate(told, json.loads((real_data / "neuronpedia" / "graph-schema.json").read_text()))
    assert "qk_tracing_results" in told["nodes"][0] and told["nodes"][0]["feature_type"] == "lorsa"
    beside = {one["feature_type"] for one in told["qk_only_nodes"].values()}
    assert beside <= {"lorsa", "lorsa error", "cross layer transcoder", "mlp reconstruction error", "bias"}
    with pytest.raises(ValueError, match="head=24: there are 24"):
        graphs.trace_attention(models.forward, f, some, TOKENS, 2, 24, 4, 1, lorsas=heads())
    with pytest.raises(ValueError, match="layer=1 has no sparse heads"):
        graphs.trace_attention(models.forward, f, some, TOKENS, 1, 0, 4, 1, lorsas={0: heads()[0]})


def test_edges_into_heads_of_bfloat16_add_up() -> None:
    """Where they look is computed as what they carry is."""
    short = [one.cast("bfloat16") for one in heads()]
    made = graphs.attribution_graph(models.forward, model(scanned=True), SETS["per layer"](), TOKENS, lorsas=short)
    nodes, total = made.find("lorsa"), np.asarray(made.edges.sum(1)).ravel() + made.rest
    np.testing.assert_allclose(total[nodes], made.activation[nodes], atol=1e-4)
