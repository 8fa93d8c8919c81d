"""Circuits of edges: against a run by hand that gives every node what its edges bring, the identities, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import circuits, metrics, models, patching
from tests.patching.by_hand import norm, run

ENDS = jnp.array([5, 5, 5])
METRIC = metrics.logit_diff(jnp.array([1, 2, 3]), jnp.array([4, 5, 6]))


def last(model, tokens):
    return models.forward(model, tokens, logits_at=ENDS)


@pytest.fixture(scope="module")
def setting(tiny):
    """A scanned model, clean and corrupted tokens, and the edges between them."""
    args = models.stack_layers(tiny.model), tiny.clean, tiny.corrupted
    return args, patching.edge_attribution(last, METRIC)(*args)


def written(w, tokens, given=None):
    """What each sender writes, by name."""
    seen = run(w, tokens, given)[1]
    x = np.asarray(w["W_E"][tokens] + w["W_pos"][: tokens.shape[-1]])
    found = {"embed": x}
    for (kind, *place), value in seen.items():
        if kind == "z":
            found[f"head {place[0]}.{place[1]}"] = value @ np.asarray(w["W_O"])[tuple(place)]
        if kind == "mlp_out":
            found[f"mlp {place[0]}"] = value
    return found


def by_hand(args, circuit, ablation=lambda x: x):
    """The mean metric: node after node is given what its edges bring, and then says what it writes."""
    model, clean, corrupted = args
    w, given = models.weights(model), {}
    outside = {name: ablation(value) for name, value in written(w, corrupted).items()}
    kept = {
        s: dict(zip(circuit.receivers, row, strict=True))
        for s, row in zip(circuit.senders, np.asarray(circuit.kept, float), strict=True)
    }
    b_O = np.asarray(w["b_O"])
    for receiver in circuit.receivers:
        here, kind, *place = written(w, clean, given), *receiver.replace(".", " ").split(" ")
        layer = int(place[0]) if place else len(b_O)
        before = ["embed"] + [
            n
            for n in circuit.senders[1:]
            if int(n.split(" ")[1].split(".")[0]) < layer + (kind == "mlp" and n[0] == "h")
        ]
        x = sum(kept[n][receiver] * here[n] + (1 - kept[n][receiver]) * outside[n] for n in before)
        x = x + b_O[: layer + (kind == "mlp")].sum(0)
        given[(f"{kind}_input", layer, int(place[1])) if len(place) == 2 else ("mlp_in", layer)] = x
    logits = norm(x, *(np.asarray(w[f"ln_final_{k}"]) for k in "wb")) @ np.asarray(w["W_U"])
    return float(METRIC(jnp.asarray(logits[:, -1], jnp.float32)).mean())


def in_order(receiver):
    """Attention before the MLP of its layer, the logits last."""
    kind, _, place = receiver.partition(" ")
    return (float(place.split(".")[0]) if place else np.inf, kind == "mlp")


@pytest.mark.parametrize("ablation", ["resample", *(pytest.param(a, marks=pytest.mark.long) for a in ("mean", "zero"))])
def test_faithfulness_by_hand(setting, ablation) -> None:
    args, edges = setting
    nested = circuits.EdgeCircuit.top(jax.tree.map(jnp.abs, edges), jnp.array([0, 12, 25, 400]))
    found = circuits.faithfulness(last, METRIC, ablation, chunk=3)(*args, nested)
    change = {"resample": lambda x: x, "mean": lambda x: x.mean(0, keepdims=True) + 0 * x, "zero": np.zeros_like}
    order = sorted(range(len(edges.receivers)), key=lambda i: in_order(edges.receivers[i]))
    names = tuple(edges.receivers[i] for i in order)
    wanted = [
        by_hand(args, circuits.EdgeCircuit(kept[:, jnp.array(order)], edges.senders, names), change[ablation])
        for kept in nested.kept
    ]
    np.testing.assert_allclose(found.circuit, wanted, atol=5e-5)
    np.testing.assert_allclose([found.empty, found.model], [wanted[0], wanted[-1]], atol=5e-5)
    assert len(set(np.round(wanted, 3))) == 4


def test_every_edge_is_the_model_and_none_the_corrupted_run(setting) -> None:
    args, edges = setting
    model, clean, corrupted = args
    whole = circuits.EdgeCircuit.top(edges, 10**6)
    found = circuits.faithfulness(last, METRIC)(models.unstack_layers(model), clean, corrupted, whole)
    np.testing.assert_allclose(found.circuit, METRIC(last(model, clean)).mean(), atol=1e-5)
    np.testing.assert_allclose(found.empty, METRIC(last(model, corrupted)).mean(), atol=1e-5)
    # 2 layers of 2 heads: 7 senders; q, k and v of layer 0 read 1 and of layer 1 read 4 each, MLPs 3 and 6.
    assert whole.size == 3 * 2 * (1 + 4) + (3 + 6) + 7 == len(whole.names)
    removed = whole.random(jax.random.key(0), 2)
    gaps = circuits.completeness(last, METRIC)(*args, whole, removed).gap
    np.testing.assert_allclose(gaps, 0, atol=1e-6)


@pytest.mark.long
def test_edges_that_attribution_ranks_first_do_the_microworlds_work(microworld) -> None:
    f, metric, *args = microworld
    edges = patching.edge_attribution(f, metric, steps=5)(*args)
    size = jnp.abs(edges.scores).argsort(axis=None).argsort().reshape(edges.scores.shape)
    best = circuits.EdgeCircuit.top(jax.tree.map(jnp.abs, edges), 200)
    worst = circuits.EdgeCircuit.top(patching.Edges(-size.astype(jnp.float32), edges.senders, edges.receivers), 200)
    share = [circuits.faithfulness(f, metric)(*args, circuit).share for circuit in (best, worst)]
    assert share[0] > 0.5 > share[1]


def test_bad_input_is_one_line(setting) -> None:
    args, edges = setting
    circuit = circuits.EdgeCircuit.top(edges, 3)
    g = circuits.faithfulness(last, METRIC)
    with pytest.raises(ValueError, match="the circuit's nodes are not the model's: take them from edge_attribution"):
        g(*args, circuits.EdgeCircuit(circuit.kept, ("embed", *circuit.senders[2:], "mlp 2"), circuit.receivers))
    with pytest.raises(ValueError, match=r"circuit.kept is float32\[7, 15\], the model wants bool\[7, 15\]"):
        g(*args, circuits.EdgeCircuit(edges.scores, edges.senders, edges.receivers))
    with pytest.raises(ValueError, match="minimality: goes through heads and MLPs: wants a circuits.Circuit"):
        circuits.minimality(last, METRIC)(*args, circuit)
    with pytest.raises(ValueError, match="removed must be a circuit of the same kind"):
        nodes = circuits.Circuit(jnp.ones((2, 2), bool), jnp.ones(2, bool))
        circuits.completeness(last, METRIC)(*args, nodes, circuit)
    with pytest.raises(ValueError, match="wants those of 'blocks.0.resid_pre', 'blocks.attn.result', 'blocks.mlp_out'"):
        circuits.faithfulness(last, METRIC, {"blocks.attn.z": 0.0})(*args, circuit)
