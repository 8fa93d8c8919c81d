"""Binding: edits beside a loop over captures, planted models that must and must not exchange answers, bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import data, geometry, metrics, models
from interp_jax.interventions import at, chain, replace
from tests.models.conftest import CONFIGS, random_model

SITE = "blocks.resid_pre"


@pytest.fixture(scope="module")
def planted(experiment):
    return experiment("relational_models")


@pytest.fixture(scope="module", params=[False, True], ids=["looped", "scanned"])
def small(request):
    model = random_model(CONFIGS["llama"])
    return models.stack_layers(model) if request.param else model


TOKENS, SOURCE = (jax.random.randint(jax.random.key(seed), (3, 9), 0, 37) for seed in (0, 1))
TO, ORIGIN = jnp.array([[1, 4], [2, 4], [5, 3]]), jnp.array([[0, 6], [7, 1], [2, 3]])
F = partial(models.forward, logits_at=jnp.full(3, 8))
METRIC = metrics.log_prob(jnp.array([3, 4, 5]))


def by_hand(model, values, columns) -> np.ndarray:
    """Each example by itself, each place and layer by an edit of its own; values `[layer example place d]`."""
    scores = []
    for i in range(3):
        edits = [
            at(replace(values[layer, i, k]), layer=layer, position=int(columns[i, k]))
            for layer in range(values.shape[0])
            for k in range(columns.shape[1])
        ]
        one = ij.intervene(models.forward, {SITE: chain(*edits)})(model, TOKENS[i : i + 1])
        scores.append(jax.nn.log_softmax(one[0, -1])[3 + i])
    return np.array(scores)


def test_edits_beside_a_loop(small) -> None:
    acts, others = (ij.capture(models.forward, SITE, output=False)(small, x)[SITE] for x in (TOKENS, SOURCE))
    rows = np.arange(3)[:, None]
    taken = geometry.interchange(F, METRIC, SITE)(small, TOKENS, SOURCE, TO, ORIGIN)
    np.testing.assert_allclose(taken, by_hand(small, others[:, rows, ORIGIN], TO), atol=1e-4)
    changed = geometry.exchange(F, METRIC, SITE)(small, TOKENS, TO[:, :1], TO[:, 1:])
    np.testing.assert_allclose(changed, by_hand(small, acts[:, rows, TO[:, ::-1]], TO), atol=1e-4)
    held = jnp.arange(9) < 6
    columns = jnp.tile(jnp.arange(6), (3, 1))
    around = acts[:, :, :6].at[:, rows, TO].set(others[:, rows, TO])
    kept = geometry.interchange(F, METRIC, SITE)(small, TOKENS, SOURCE, TO, held=held)
    np.testing.assert_allclose(kept, by_hand(small, around, columns), atol=1e-4)
    vectors = jax.random.normal(jax.random.key(2), (3, 2, 16))
    moved = geometry.shift(F, METRIC, SITE)(small, TOKENS, TO, vectors)
    np.testing.assert_allclose(moved, by_hand(small, acts[:, rows, TO] + vectors[:, None], TO), atol=1e-4)
    assert np.abs(moved - METRIC(F(small, TOKENS))).min() > 1e-2
    slots = geometry.binding_vectors(models.forward, SITE)(small, TOKENS, jnp.array([2, 5]))
    np.testing.assert_allclose(slots[:, 1], (acts[:, :, 5] - acts[:, :, 2]).mean(1), atol=1e-4)
    assert not slots[:, 0].any()


def test_under_jit_in_bfloat16_and_at_one_layer(small) -> None:
    g = geometry.interchange(F, METRIC, SITE)
    plain = g(small, TOKENS, SOURCE, TO, ORIGIN)
    np.testing.assert_allclose(jax.jit(g)(small, TOKENS, SOURCE, TO, ORIGIN), plain, atol=1e-5)
    slopes = jax.grad(lambda model: g(model, TOKENS, SOURCE, TO, ORIGIN).sum())(small)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), small)
    np.testing.assert_allclose(g(half, TOKENS, SOURCE, TO, ORIGIN), plain, atol=0.3)
    same = geometry.interchange(F, METRIC, "blocks.1.resid_pre")(small, TOKENS, TOKENS, TO)
    np.testing.assert_allclose(same, METRIC(F(small, TOKENS)), atol=1e-4)
    one = geometry.shift(F, METRIC, "blocks.1.resid_pre")(small, TOKENS, TO, jnp.ones((2, 16)))
    assert np.abs(one - same).min() > 1e-3


def answers(contexts, scores) -> np.ndarray:
    """Which slot's attribute is answered: 0 is the asked one, -1 the spare one."""
    order = np.array([contexts.slot, -1, *(k for k in range(contexts.n_pairs) if k != contexts.slot)])
    return order[np.asarray(scores).argmax(-1)]


@pytest.mark.parametrize("kind", ["binding ID", "next token", "matrix binding", "tensor product"])
def test_planted_models(planted, kind: str) -> None:
    """Only a model with binding IDs passes all three tests; the others fail those that they must."""
    model = planted.create(jax.random.key(0), kind)
    contexts = planted.contexts(jax.random.key(1), 64)
    metric, (e, a) = (
        geometry.option_log_probs(contexts.options()),
        (contexts.columns[k] for k in ("entity", "attribute")),
    )
    assert (answers(contexts, metric(planted.forward(model, contexts.tokens))) == 0).all()

    context = contexts.mask("context")

    # Interchange: the spare attribute comes to the owner that is asked for.
    spare = contexts.crossed()[1, 1, 0]
    taken = geometry.interchange(planted.forward, metric, SITE)(model, contexts.tokens, spare, a[:1], held=context)
    assert (answers(contexts, taken) == -1).all() == (kind in ("binding ID", "next token"))

    # Exchange: entities change places. Where nearness binds, they take each other's attributes.
    changed = geometry.exchange(planted.forward, metric, SITE)(model, contexts.tokens, e[:1], e[1:2], context)
    assert (answers(contexts, changed) == (1 if kind == "next token" else 0)).all()

    # Shift: mean differences exchange the answers of IDs alone, at entities or at attributes; at both they cancel.
    fit = planted.contexts(jax.random.key(2), 512)
    swaps = [
        geometry.exchanging(geometry.binding_vectors(planted.forward, SITE)(model, fit.tokens, columns), 0, 1)
        for columns in (e, a)
    ]
    g = geometry.shift(planted.forward, metric, SITE)
    at_entities, at_attributes = (
        g(model, contexts.tokens, c[:2], v, context) for c, v in zip((e, a), swaps, strict=True)
    )
    wanted = 1 if kind == "binding ID" else 0
    assert (answers(contexts, at_entities) == wanted).all() and (answers(contexts, at_attributes) == wanted).all()
    both = g(model, contexts.tokens, jnp.concatenate([e[:2], a[:2]]), jnp.concatenate(swaps, axis=1), context)
    assert (answers(contexts, both) == 0).all()


def test_contexts_of_the_worlds() -> None:
    for name, make in (("microworld-context", data.bindings.owners), ("microworld", data.bindings.boxes)):
        model, tokenizer = models.load(name)
        some = make(jax.random.key(0), tokenizer, n=32, n_pairs=3, slot=1)
        forward = partial(models.forward, logits_at=jnp.full(32, some.tokens.shape[1] - 1))
        for slot in range(3):
            right = forward(model, some.asking(slot)).argmax(-1) == some.answers(slot)
            assert float(right.astype(jnp.float32).mean()) > 0.8, (name, slot)
        words = tokenizer.to_str_tokens(some.tokens[0])
        clause = "".join(w for w, kept in zip(words, np.asarray(some.mask("clause")), strict=True) if kept)
        entity, attribute = (tokenizer.decode([ids[0, 1]]) for ids in (some.entities, some.attributes))
        assert entity in clause and attribute in clause and clause.split()[-1] == ","
        crossed = some.crossed()
        np.testing.assert_array_equal(crossed[0, 0, 0], some.tokens)
        differ = np.asarray(crossed[1, 1, 1] != some.tokens)
        columns = [int(some.columns["entity"][1]), int(some.columns["attribute"][1]), int(some.asked[0])]
        assert differ[:, columns].all() and differ.sum() == 3 * 32
        assert not (np.asarray(some.entities[:, -1:]) == np.asarray(some.tokens)).any()


def test_bad_input(small) -> None:
    g = geometry.interchange(F, METRIC, SITE)
    with pytest.raises(ValueError, match=r"interchange: clean is \[3, 9\], corrupted \[3, 8\]: give pairs of the same"):
        g(small, TOKENS, SOURCE[:, :8], TO)
    with pytest.raises(ValueError, match="interchange: a column of contexts of 9 tokens=9 is out of range"):
        g(small, TOKENS, SOURCE, jnp.array([9]))
    with pytest.raises(ValueError, match="interchange: 2 places are replaced and 1 are given"):
        g(small, TOKENS, SOURCE, TO, TO[:, :1])
    with pytest.raises(ValueError, match=r"interchange: columns are \[place\] or \[3, place\], not \[2, 2\]"):
        g(small, TOKENS, SOURCE, TO[:2])
    with pytest.raises(ValueError, match="exchange: 1 places and 2 cannot take each other's"):
        geometry.exchange(F, METRIC, SITE)(small, TOKENS, TO[:, :1], TO)
    with pytest.raises(ValueError, match=r"shift: vectors of shape \[2, 16\], wanted one a place: \[3, 2, 16\]"):
        geometry.shift(F, METRIC, SITE)(small, TOKENS, TO, jnp.ones((2, 16)))
    with pytest.raises(ValueError, match=r"where='blocks.attn.z' holds \[3, 9, 4, 6\], not \[batch position d\]"):
        geometry.interchange(F, METRIC, "blocks.attn.z")(small, TOKENS, SOURCE, TO)
    with pytest.raises(ValueError, match=r"held: is \[8\], wanted \[9\] or \[3, 9\], True or False a token"):
        g(small, TOKENS, SOURCE, TO, held=jnp.ones(8, bool))
    with pytest.raises(ValueError, match=r"the metric gave \[\] for 3 examples: it must give a row for each"):
        geometry.interchange(F, lambda y: y.mean(), SITE)(small, TOKENS, SOURCE, TO)
    with pytest.raises(ValueError, match="exchanging: slots 1 and 1: give two of 0 to 2"):
        geometry.exchanging(jnp.zeros((3, 4)), 1, 1)
    with pytest.raises(ValueError, match=r"option_log_probs: wants logits \[2, d_vocab\], got \[2, 3, 4\]"):
        geometry.option_log_probs(jnp.zeros((2, 2), jnp.int32))(jnp.zeros((2, 3, 4)))
