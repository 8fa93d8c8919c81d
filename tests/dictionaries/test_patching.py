"""Greedy patching of features: against trying everything, one feature at a time, in plain Python."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, metrics
from interp_jax.dictionaries import patch_features
from tests.laws.seen import compilations

SITE = "resid"


def f(model, tokens):
    embed, unembed = model
    x = ij.site(embed[tokens], SITE, axes=("batch", "position", "d_model"))
    last = ij.site(jnp.cumsum(x, axis=-2)[:, -1], "last", axes=("batch", "d_model"))
    return jnp.tanh(last) @ unembed


def subject(dtype=jnp.float32) -> tuple[Any, ...]:
    keys = jax.random.split(jax.random.key(0), 3)
    model = tuple(jax.random.normal(key, shape, dtype) for key, shape in zip(keys, [(20, 8), (8, 20)], strict=False))
    corrupted, clean = jax.random.randint(keys[2], (2, 3, 5), 0, 20)
    y = f(model, clean)
    return f, (lambda z: metrics.kl(z)(y)), model, clean, corrupted


def by_hand(f, metric, dictionary, model, clean, corrupted, shared: bool):
    """The order and the metric, from residual streams that are moved by the rows of the decoder."""
    x, x_clean = (ij.capture(f, SITE, output=False)(model, tokens)[SITE] for tokens in (corrupted, clean))
    change = np.asarray(dictionary.encode(x_clean) - dictionary.encode(x), np.float64)
    rows = np.asarray(dictionary.W_dec, np.float64)
    run = jax.jit(lambda x: metric(ij.intervene(f, {SITE: ij.interventions.replace(x)})(model, corrupted)))

    def score(chosen: np.ndarray) -> np.ndarray:
        return np.asarray(run(jnp.asarray(x + np.einsum("bpj,bj,jd->bpd", change, chosen, rows), jnp.float32)))

    def with_feature(chosen: np.ndarray, feature: int) -> np.ndarray:
        return np.where(np.arange(dictionary.d_sae) == feature, 1.0, chosen)

    chosen = np.zeros((3, dictionary.d_sae))
    order, scores = [], [score(chosen)]
    for _ in range(4):
        tried = np.stack([score(with_feature(chosen, j)) for j in range(dictionary.d_sae)])
        tried = np.broadcast_to(tried.mean(1, keepdims=True), tried.shape) if shared else tried
        best = np.where(chosen.T > 0, np.inf, tried).argmin(0)
        chosen[np.arange(3), best] = 1.0
        order.append(best)
        scores.append(score(chosen))
    return order, scores, score(np.ones_like(chosen))


@pytest.mark.parametrize("shared", [False, True])
def test_it_is_greedy(shared: bool) -> None:
    f, metric, *given = subject()
    dictionary = dictionaries.ReLU.create(jax.random.key(2), 8, 12)
    found = patch_features(f, metric, SITE, dictionary, n_features=4, n_candidates=None, shared=shared)(*given)
    order, scores, complete = by_hand(f, metric, dictionary, *given, shared=shared)
    np.testing.assert_array_equal(found.order, order)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.complete, complete, rtol=1e-4, atol=1e-6)
    few = patch_features(f, metric, SITE, dictionary, n_features=4, n_candidates=3, shared=shared)(*given)
    assert few.order.shape == (4, 3)
    np.testing.assert_allclose(few.scores[0], found.scores[0], rtol=1e-5)


def test_a_whole_basis_gives_the_clean_run() -> None:
    f, metric, *given = subject()
    neurons = dictionaries.NeuronBasis.create(jax.random.key(2), 8)
    found = patch_features(f, metric, SITE, neurons, n_features=8, n_candidates=2)(*given)
    assert all(sorted(order) == list(range(8)) for order in found.order.T.tolist())  # each once, none left out
    np.testing.assert_allclose(found.scores[-1], 0, atol=1e-5)
    np.testing.assert_allclose(found.complete, 0, atol=1e-5)
    np.testing.assert_allclose(found.scores[0], metric(f(given[0], given[2])), rtol=1e-5)
    assert (found.scores[0] > 1e-3).all()


def test_a_bfloat16_model() -> None:
    f, metric, *given = subject(jnp.bfloat16)
    dictionary = dictionaries.Tied.create(jax.random.key(2), 8, 12)
    found = patch_features(f, metric, SITE, dictionary, n_features=3)(*given)
    assert found.scores.dtype == jnp.float32 and bool(jnp.isfinite(found.scores).all())


def test_other_dictionaries_are_no_other_compilation() -> None:
    f, metric, *given = subject()
    first, second = (dictionaries.Tied.create(jax.random.key(seed), 8, 12) for seed in (2, 3))
    patch_features(f, metric, SITE, first, n_features=2)(*given)
    with compilations() as compiled:
        patch_features(f, metric, SITE, second, n_features=2)(*given)
    assert not compiled


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"clean": jnp.zeros(5, int)}, "aligned position by"),
        ({"clean": jnp.zeros((3, 4), int)}, "aligned position by"),
        ({"n_features": 13}, "n_features=13 of 12"),
        ({"n_candidates": 0}, "n_candidates=0 of 12"),
        ({"where": "last"}, "name one layer"),
    ],
)
def test_bad_input_is_told(change: dict, told: str) -> None:
    f, metric, model, clean, corrupted = subject()
    dictionary = dictionaries.Tied.create(jax.random.key(2), 8, 12)
    given = {"where": SITE, "dictionary": dictionary, "n_features": 2} | change
    with pytest.raises(ValueError, match=told):
        tokens = given.pop("clean", clean)
        patch_features(f, metric, **given)(model, tokens, corrupted)
