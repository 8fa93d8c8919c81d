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
