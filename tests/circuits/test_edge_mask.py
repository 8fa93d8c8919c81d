"""Learned masks of edges: gates by hand, the chance that one is open, what is pruned and kept, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import circuits, models, patching
from interp_jax.circuits.edge_mask import chance, hard_concrete
from tests.circuits.test_edge_circuit import METRIC, by_hand, in_order, last


def test_gates_bring_a_part_of_an_edge(tiny) -> None:
    args = models.stack_layers(tiny.model), tiny.clean, tiny.corrupted
    edges = patching.edge_attribution(last, METRIC)(*args)
    receivers = tuple(sorted(edges.receivers, key=in_order))
    gates = jax.random.uniform(jax.random.key(0), edges.scores.shape)
    columns = jnp.array([edges.receivers.index(name) for name in receivers])
    wanted = by_hand(args, circuits.EdgeCircuit(gates[:, columns], edges.senders, receivers))
    circuit = circuits.EdgeCircuit(gates, edges.senders, edges.receivers)
    values = ij.capture(last, circuit.sites, output=False)(args[0], tiny.corrupted)
    found = METRIC(ij.intervene(last, circuit.edits(values))(args[0], tiny.clean)).mean()
    np.testing.assert_allclose(found, wanted, atol=5e-5)


def test_the_chance_of_a_gate_is_how_often_it_is_open() -> None:
    log_alpha = jnp.array([-3.0, -1.0, 0.0, 2.0])
    drawn = hard_concrete(jnp.broadcast_to(log_alpha, (20_000, 4)), jax.random.key(0))
    assert drawn.min() == 0 and drawn.max() == 1
    np.testing.assert_allclose((drawn > 0).mean(0), chance(log_alpha), atol=0.015)  # four standard errors


def test_edges_that_carry_nothing_are_pruned(tiny) -> None:
    """A head that writes nothing has the gradient of its cost alone; of a model with layers in a loop or scanned."""
    weights = models.weights(tiny.model)
    model = models.with_weights(tiny.model, {"W_O": weights["W_O"].at[0, 1].set(0)})
    learn = circuits.edge_mask(last, METRIC, n_steps=60, sparsity=0.1)
    found = learn(models.stack_layers(model), tiny.clean, tiny.corrupted, jax.random.key(0))
    scores = dict(zip(found.senders, np.asarray(found.scores), strict=True))
    there = circuits.EdgeCircuit.top(found, found.scores.size).kept
    assert found.scores.max() <= 1 and not found.scores[~there].any()
    silent = scores["head 0.1"][np.asarray(there)[found.senders.index("head 0.1")]]
    assert silent.max() < 0.2  # log_alpha falls by the learning rate, 0.1, a step, from 2 to about -4
    assert scores["embed"].max() > 0.8
    first = circuits.edge_mask(last, METRIC, n_steps=2)
    looped, scanned = (
        first(m, tiny.clean, tiny.corrupted, jax.random.key(1)) for m in (model, models.stack_layers(model))
    )
    np.testing.assert_allclose(looped.scores, scanned.scores, atol=1e-3)


def test_bad_input_is_one_line(tiny) -> None:
    for options, message in (
        ({"n_steps": 0}, "n_steps=0: it must be at least 1"),
        ({"sparsity": 0.0}, "edge_mask: sparsity=0.0: it must be positive"),
        ({"learning_rate": -1.0}, "edge_mask: learning_rate=-1.0: it must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            circuits.edge_mask(last, METRIC, **options)
    with pytest.raises(ValueError, match="edge_mask: clean is .* give pairs of the same length"):
        circuits.edge_mask(last, METRIC)(tiny.model, tiny.clean[:, :5], tiny.corrupted, jax.random.key(0))
