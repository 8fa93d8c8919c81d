"""Effects of features and errors add up to what corrupting a layer does; circuits are measured as by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, graphs, models
from interp_jax.interventions import at, replace
from tests.graphs.conftest import KEYS, SETS, D, N, model

CLEAN, CORRUPTED = jnp.array([[1, 5, 3, 9], [1, 4, 3, 2]]), jnp.array([[1, 2, 3, 9], [1, 7, 3, 2]])
SAES = {f"blocks.{i}.resid_post": dictionaries.TopK.create(KEYS[i], D, N, 4) for i in range(3)}
SITE = "blocks.resid_post"


def metric(logits):
    return logits[:, -1, 4] - logits[:, -1, 5]


@pytest.mark.parametrize("site", [pytest.param(SITE, marks=pytest.mark.long), "blocks.mlp_out"])
def test_effects_add_up(scanned: bool, site: str) -> None:
    """At each layer, to the change of the metric where all of its nodes are corrupted."""
    f, some = model(scanned=scanned), SAES if site == SITE else SETS["per layer"]()
    found = graphs.node_effects(models.forward, metric, some, steps=60)(f, CLEAN, CORRUPTED)
    g = graphs.replace_mlps(models.forward, some)
    there = ij.capture(g, [f"{site}.features", f"{site}.error"], output=False)(f, CORRUPTED)
    before = metric(models.forward(f, CLEAN)).mean()
    for layer in range(3):
        edits = {name: at(replace(value), layer=layer) for name, value in there.items()}
        change = metric(ij.intervene(g, edits)(f, CLEAN)).mean() - before
        total = found.features[site][layer].sum() + found.errors[site][layer].sum()
        assert float(total) == pytest.approx(float(change), abs=2e-3)


def test_a_circuit_is_what_its_nodes_do(scanned: bool) -> None:
    f = model(scanned=scanned)
    effects = graphs.node_effects(models.forward, metric, SAES, steps=5)(f, CLEAN, CORRUPTED)
    circuit = graphs.largest(effects, 25)
    assert 25 <= sum(int(np.sum(mask)) for part in circuit for mask in part.values()) <= 27
    measure = graphs.feature_faithfulness(models.forward, metric, SAES)
    found = measure(f, CLEAN, CORRUPTED, circuit)
    full, empty = metric(models.forward(f, CLEAN)).mean(), metric(models.forward(f, CORRUPTED)).mean()
    assert float(found.full) == pytest.approx(float(full), abs=1e-4)
    assert float(found.empty) == pytest.approx(float(empty), abs=1e-4)  # the last layer is corrupted whole
    g = graphs.replace_mlps(models.forward, SAES)
    there = ij.capture(g, [f"{SITE}.features", f"{SITE}.error"], output=False)(f, CORRUPTED)
    for kept, share in ((circuit, found.faithfulness), (_complement(circuit), found.completeness)):
        edits = {}
        for layer in range(3):
            of_features, of_errors = kept.features[SITE][layer], kept.errors[SITE][layer][:, None]
            for part, mask in (("features", of_features), ("error", of_errors)):
                value = there[f"{SITE}.{part}"][layer]
                edits[f"blocks.{layer}.resid_post.{part}"] = lambda x, mask=mask, value=value: jnp.where(mask, x, value)
        alone = metric(ij.intervene(g, edits)(f, CLEAN)).mean()
        assert float(share) == pytest.approx(float((alone - empty) / (full - empty)), abs=1e-3)


@pytest.mark.parametrize("some", ["stream", "per layer", pytest.param("cross", marks=pytest.mark.long)])
def test_edges_that_leave_a_node_add_up(some: str) -> None:
    """Over all nodes and the metric, to the node's effect by attribution: the chain rule."""
    f, some = model(scanned=True), SAES if some == "stream" else SETS[some]()
    method = models.forward, metric, some
    site = SITE if some is SAES else "blocks.mlp_out"
    g = graphs.replace_mlps(models.forward, some, error_gradient=True)
    names = [f"{site}.features", f"{site}.error"]
    there = ij.capture(g, names, output=False)(f, CORRUPTED)
    _, here, slopes = ij.grads(g, lambda out: metric(out).mean(), names)(f, CLEAN)
    effects = {name: np.asarray((there[name] - here[name]) * slopes[name]).sum(1) for name in names}
    whole = graphs.FeatureNodes(
        *({site: np.ones(x.shape, bool)} for x in (effects[names[0]], effects[names[1]][..., 0]))
    )
    found = graphs.feature_edges(*method)(f, CLEAN, CORRUPTED, whole)
    assert len(found.nodes) == 3 * 4 * (N + 1) and found.weights.shape == (len(found.nodes) + 1, len(found.nodes))
    want = [
        effects[names[1]][layer, position].sum() if index < 0 else effects[names[0]][layer, position, index]
        for _, layer, position, index in found.nodes
    ]
    assert found.weights.sum(0) == pytest.approx(np.array(want), abs=2e-5)
    assert np.abs(want).max() > 0.01
    layers = np.array([node.layer for node in found.nodes])
    assert not found.weights[:-1][layers[:, None] <= layers].any()


def test_an_edge_is_a_perturbation() -> None:
    """Of one node, all others but the one that is looked at being held."""
    f = model(scanned=True)
    effects = graphs.node_effects(models.forward, metric, SAES, steps=5)(f, CLEAN, CORRUPTED)
    found = graphs.feature_edges(models.forward, metric, SAES)(f, CLEAN, CORRUPTED, graphs.largest(effects, 25))
    g = graphs.replace_mlps(models.forward, SAES, error_gradient=True)
    names = [f"{SITE}.features", f"{SITE}.error"]
    there, here = (ij.capture(g, names, output=False)(f, tokens) for tokens in (CORRUPTED, CLEAN))
    slopes = ij.grads(g, lambda out: metric(out).mean(), names)(f, CLEAN)[2]
    to, source = np.unravel_index(np.abs(found.weights[:-1]).argmax(), found.weights[:-1].shape)
    d, u = found.nodes[to], found.nodes[source]
    assert d.layer == u.layer + 1
    part = names[u.index < 0]
    change = (there[part] - here[part])[u.layer][:, u.position]
    change = change if u.index < 0 else jnp.where(jnp.arange(N) == u.index, change, 0)
    size = 1e-2

    def perturbed(step: float):
        moved = here[part][u.layer].at[:, u.position].add(step * change)
        edits = {f"blocks.{u.layer}.resid_post.{part.rsplit('.')[-1]}": replace(moved)}
        other = names[u.index >= 0]
        edits[f"blocks.{u.layer}.resid_post.{other.rsplit('.')[-1]}"] = replace(here[other][u.layer])
        return ij.capture(ij.intervene(g, edits), names, output=False)(f, CLEAN)

    high, low = perturbed(size), perturbed(-size)
    seen = names[d.index < 0]
    moved = (high[seen] - low[seen])[d.layer][:, d.position] * slopes[seen][d.layer][:, d.position] / (2 * size)
    moved = moved.sum() if d.index < 0 else moved[:, d.index].sum()
    assert float(moved) == pytest.approx(found.weights[to, source], rel=2e-2)


def test_a_circuit_of_nothing_has_no_edges() -> None:
    empty = graphs.FeatureNodes({SITE: np.zeros((3, 4, N), bool)}, {SITE: np.zeros((3, 4), bool)})
    with pytest.raises(ValueError, match="the circuit has no node"):
        graphs.feature_edges(models.forward, metric, SAES)(model(scanned=True), CLEAN, CORRUPTED, empty)


def _complement(circuit: graphs.FeatureNodes) -> graphs.FeatureNodes:
    return graphs.FeatureNodes(*({name: ~mask for name, mask in part.items()} for part in circuit))


def test_bad_input() -> None:
    f = model(scanned=False)
    with pytest.raises(ValueError, match="has 3 layers, and 1 of them a dictionary"):
        graphs.node_effects(models.forward, metric, dict([*SAES.items()][:1]))(f, CLEAN, CORRUPTED)
    with pytest.raises(ValueError, match="steps=0"):
        graphs.node_effects(models.forward, metric, SAES, steps=0)
    with pytest.raises(ValueError, match="pairs of the same length"):
        graphs.node_effects(models.forward, metric, SAES)(f, CLEAN, CORRUPTED[:, 1:])
    with pytest.raises(ValueError, match="one number per example"):
        graphs.node_effects(models.forward, jnp.mean, SAES)(f, CLEAN, CORRUPTED)
