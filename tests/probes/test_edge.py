"""Edge probes: beside a plain loop in NumPy, slopes by finite differences, and labels planted at a known layer."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from interp_jax import probes


def case(n_spans: int, d_hidden: int | None, seed: int = 0):
    """A probe whose every parameter is random, as NumPy in float64 and as ours, and sentences with ragged items."""
    rng = np.random.default_rng(seed)
    probe = probes.EdgeProbe.create(
        jax.random.key(seed), n_layers=4, d_model=5, n_labels=3, n_spans=n_spans, d_proj=6, d_hidden=d_hidden
    )
    arrays = {
        name: rng.normal(size=np.shape(value))
        for name, value in vars(probe).items()
        if value is not None and name != "seen"
    }
    probe = replace(probe, **{name: jnp.asarray(value, jnp.float32) for name, value in arrays.items()})
    start = rng.integers(0, 5, (2, 4, n_spans))
    spans = np.stack([start, start + rng.integers(1, 4, start.shape)], axis=-1)
    labels = rng.integers(0, 3, (2, 4))
    spans[1, 3], labels[1, 3] = 0, -1  # the second sentence has three items
    return arrays, probe, probes.Edges(rng.normal(size=(4, 2, 7, 5)).astype(np.float32), spans.astype(np.int32), labels)


def by_hand(p, edges: probes.Edges, n_seen: int = 4) -> np.ndarray:
    """The equations, an item at a time, in float64."""
    s = softmax(p["a"][:n_seen])
    logits = np.zeros((*edges.labels.shape, len(p["b_out"])))
    for i, j in np.argwhere(edges.labels >= 0):
        h = p["gamma"] * sum(s[layer] * edges.x[layer, i].astype(float) for layer in range(n_seen))
        pooled = []
        for k, (start, stop) in enumerate(edges.spans[i, j]):
            tokens = h[start:stop] @ p["W"][k] + p["b"][k]
            pooled.append(softmax(tokens @ p["w_pool"][k]) @ tokens)
        z = np.concatenate(pooled)
        if "W_hidden" in p:
            z = np.tanh(z @ p["W_hidden"] + p["b_hidden"])
        logits[i, j] = z @ p["W_out"] + p["b_out"]
    return logits


def loss_by_hand(p, edges: probes.Edges) -> float:
    told, labels = log_softmax(by_hand(p, edges), axis=-1), np.asarray(edges.labels)
    return -np.mean([told[i, j, labels[i, j]] for i, j in np.argwhere(labels >= 0)])


@pytest.mark.parametrize("n_spans", [1, 2])
@pytest.mark.parametrize("d_hidden", [None, 8])
def test_it_is_the_equations(n_spans: int, d_hidden: int | None) -> None:
    arrays, probe, edges = case(n_spans, d_hidden)
    counted = np.asarray(edges.labels) >= 0
    logits = probe(jnp.asarray(edges.x), jnp.asarray(edges.spans))
    np.testing.assert_allclose(np.asarray(logits)[counted], by_hand(arrays, edges)[counted], rtol=1e-4, atol=1e-4)
    stack = probes.prefixes(probe)
    for n_seen in range(1, 5):
        one = jax.tree.map(lambda x, at=n_seen - 1: x[at], stack)
        np.testing.assert_allclose(one.mix(), [*softmax(arrays["a"][:n_seen]), *[0] * (4 - n_seen)], rtol=1e-5)
        np.testing.assert_allclose(
            np.asarray(one(jnp.asarray(edges.x), jnp.asarray(edges.spans)))[counted],
            by_hand(arrays, edges, n_seen)[counted],
            rtol=1e-4,
            atol=1e-4,
        )
    right = by_hand(arrays, edges).argmax(-1)[counted] == edges.labels[counted]
    np.testing.assert_allclose(probes.edge_scores(probe, edges, chunk=1), right.mean(), rtol=1e-6)
    np.testing.assert_allclose(probes.edge_scores(stack, edges)[-1], right.mean(), rtol=1e-6)


def test_a_step_is_the_slope_by_finite_differences() -> None:
    arrays, probe, edges = case(2, 8)
    state, info = probes.edge_step(
        probes.EdgeState.create(probe, optax.sgd(1.0)), probes.Edges(*map(jnp.asarray, edges))
    )
    np.testing.assert_allclose(info["loss"], loss_by_hand(arrays, edges), rtol=1e-5)
    rng = np.random.default_rng(1)
    for name, value in arrays.items():
        along = rng.normal(size=value.shape)
        ahead, behind = (loss_by_hand(arrays | {name: value + step * along}, edges) for step in (1e-5, -1e-5))
        moved = ((np.asarray(getattr(probe, name)) - np.asarray(getattr(state.probe, name))) * along).sum()
        np.testing.assert_allclose(moved, (ahead - behind) / 2e-5, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_stack_learns_as_each_of_its_probes_alone() -> None:
    _, probe, edges = case(1, 8)
    edges = probes.Edges(*map(jnp.asarray, edges))
    stack = probes.prefixes(probe)
    together, info = jax.vmap(probes.edge_step, (0, None))(probes.EdgeState.create(stack), edges)
    for at in range(4):
        alone, told = probes.edge_step(probes.EdgeState.create(jax.tree.map(lambda x, at=at: x[at], stack)), edges)
        np.testing.assert_allclose(info["loss"][at], told["loss"], rtol=1e-5)
        for got, want in zip(jax.tree.leaves(together.probe), jax.tree.leaves(alone.probe), strict=True):
            np.testing.assert_allclose(got[at], want, atol=1e-5)


def planted(key, n: int, layer: int) -> probes.Edges:
    """Noise; from a layer on, one token of the second span of each pair has the label, in one of four directions."""
    keys = jax.random.split(key, 4)
    x = jax.random.normal(keys[0], (5, n, 8, 16))
    labels = jax.random.randint(keys[1], (n, 3), 0, 4)
    start = jnp.array([0, 2, 4]) + jnp.zeros((n, 1), jnp.int32)
    second = jnp.stack([start + 1, start + 3], axis=-1)
    spans = jnp.stack([jnp.stack([start, start + 1], -1), second], axis=2)
    directions = 8 * jnp.eye(4, 16)[labels]  # [n item d_model]
    told = x.at[layer:, jnp.arange(n)[:, None], start + 1].add(directions)
    return probes.Edges(told, spans, labels)


@pytest.mark.parametrize("layer", [1, 3])
def test_the_layer_at_which_labels_enter(layer: int) -> None:
    train, test = (planted(jax.random.key(seed), n, layer) for seed, n in ((0, 300), (1, 400)))
    probe = probes.EdgeProbe.create(jax.random.key(2), 5, 16, 4, n_spans=2, d_proj=16, d_hidden=16)
    seen = []
    state = probes.train_edges(
        jax.random.key(3),
        probes.EdgeState.create(probes.prefixes(probe), optax.adam(1e-2)),
        train,
        150,
        report=lambda state, info: seen.append((int(state.step[0]), info["loss"])),
    )
    scores = probes.edge_scores(state.probe, test)
    assert scores[:layer].max() < 0.35 and scores[layer:].min() > 0.95
    assert abs(float(probes.expected_layer(scores)) - layer) < 0.2
    assert [step for step, _ in seen] == [50, 100, 150] and seen[-1][1].shape == (5,)
    mix = state.probe.mix()[-1]
    assert mix[:layer].max() < mix[layer:].min()  # noise is weighed less than what tells
    assert probes.centre_of_gravity(mix) > 2  # of equal weights


def test_numbers_by_hand() -> None:
    assert float(probes.centre_of_gravity(jnp.array([0.1, 0.2, 0.3, 0.4]))) == pytest.approx(0.2 + 0.6 + 1.2)
    scores = np.array([[0.3, 0.6, 0.5, 0.9], [0.2, 0.2, 0.2, 0.2], [0.5, 0.4, 0.4, 0.3]])
    wanted = (1 * 0.3 - 2 * 0.1 + 3 * 0.4) / 0.6
    np.testing.assert_allclose(
        probes.expected_layer(jnp.asarray(scores, jnp.float32)), [wanted, np.nan, np.nan], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("accuracies", "jump", "converged"),
    [
        ([0.5, 0.5, 0.9, 0.91, 0.90], 2, 2),
        ([0.5, 0.54, 0.56, 0.6], -1, 3),
        ([0.95, 0.96, 0.96], -1, 0),
        ([0.5, 0.6, 0.6, 0.8], 1, 3),
        ([0.25, 0.2, 0.22], 2, 2),
    ],
)
def test_where_accuracy_jumps_and_converges(accuracies, jump: int, converged: int) -> None:
    assert int(probes.jump_layer(accuracies)) == jump
    assert int(probes.converged_layer(accuracies)) == converged
    stacked = jnp.asarray([accuracies, accuracies], jnp.float32)
    assert probes.jump_layer(stacked).tolist() == [jump] * 2 and probes.converged_layer(stacked).shape == (2,)


def test_bfloat16_is_read_in_float32() -> None:
    _, probe, edges = case(1, 8)
    x = jnp.asarray(edges.x, jnp.bfloat16)
    logits = probe(x, jnp.asarray(edges.spans))
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, probe(x.astype(jnp.float32), jnp.asarray(edges.spans)))


def test_bad_input() -> None:
    _, probe, edges = case(2, 8)
    state = probes.EdgeState.create(probe)

    def refused(what: str, **changes) -> None:
        with pytest.raises(ValueError, match=what):
            probes.train_edges(jax.random.key(0), state, edges._replace(**changes), 1)

    spans = np.array(edges.spans)
    spans[1, 2, 1] = 5, 8
    refused(r"the span 5 to 8 \(sentence 1, item 2\) is empty or outside its sentence of 7 positions", spans=spans)
    refused(r"labels \[2, 3\] for spans \[2, 4, 2, 2\]: give each item one label", labels=edges.labels[:, :3])
    refused("labels -1 to 7, wanted 0 to 2, or -1 for no item", labels=np.where(edges.labels == 0, 7, edges.labels))
    refused("every label is 1: one class tells nothing", labels=np.minimum(edges.labels, 0) + (edges.labels >= 0))
    refused("no item has a label", labels=np.full_like(edges.labels, -1))
    refused(r"x \[4, 2, 7\] and spans", x=edges.x[..., 0])
    refused(r"x \[3, 2, 7, 5\] and spans \[2, 4, 2, 2\], wanted \[4, sentence, position, 5\]", x=edges.x[:3])
    with pytest.raises(FloatingPointError, match="step 0: the loss is not finite"):
        probes.train_edges(jax.random.key(0), state, edges._replace(x=edges.x * np.float32(np.nan)), 3)
    with pytest.raises(ValueError, match="n_labels=1: one class tells nothing"):
        probes.EdgeProbe.create(jax.random.key(0), 2, 3, 1)
    with pytest.raises(ValueError, match="give one for each layer, two or more"):
        probes.expected_layer([0.5])
    with pytest.raises(ValueError, match="jump_layer: accuracies .1.: give one for each layer"):
        probes.jump_layer([0.5])
