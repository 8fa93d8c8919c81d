"""Sweeps beside a loop that steers at one layer and strength after another."""

from functools import partial
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import metrics, models, steering
from interp_jax.steering import SteeringVector
from tests.steering.conftest import SITE

STRENGTHS = [-2.0, 0.0, 0.5]
METRIC = metrics.logit_diff(jnp.array([1, 2]), jnp.array([4, 5]))
MASK = np.arange(5) >= np.array([[0], [2]])


def last(model, tokens):
    return models.forward(model, tokens, attention_mask=MASK)[:, -1]


def scores(model, tokens, edit) -> np.ndarray:
    """One number per example, of a run that is steered by hand."""
    return np.asarray(METRIC(ij.intervene(last, {SITE: edit})(model, tokens)))


@pytest.mark.parametrize("deep", [16, 1])
@pytest.mark.parametrize("form", ["add", "match_norm"])
def test_layers_and_strengths(model, tokens, vector, monkeypatch, form, deep) -> None:
    """The same whether each layer is a program of its own, or data."""
    monkeypatch.setattr(importlib.import_module("interp_jax.steering.sweep"), "DEEP", deep)
    vector = vector.at_layers(2, 0)
    got = steering.sweep(last, METRIC, vector, STRENGTHS, form=form, chunk=2)(model, tokens)
    want = [[scores(model, tokens, vector.at_layers(k).edit(s, form=form)).mean() for s in STRENGTHS] for k in (2, 0)]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_positions_and_examples(model, tokens, vector) -> None:
    """Positions count real tokens; every axis in the order that was asked for."""
    over = ("batch", "strength", "position")
    got = np.asarray(steering.sweep(last, METRIC, vector, STRENGTHS, over)(model, tokens))
    assert got.shape == (2, 3, 5)
    for i, s in enumerate(STRENGTHS):
        for position in range(3):  # those that both examples have
            want = scores(model, tokens, vector.edit(s, position=position))
            np.testing.assert_allclose(got[:, i, position], want, atol=1e-4)


def test_all_layers_together_at_one_position(model, tokens, vector) -> None:
    got = steering.sweep(last, METRIC, vector, STRENGTHS, "strength", position=-1)(model, tokens)
    want = [scores(model, tokens, vector.edit(s, position=-1)).mean() for s in STRENGTHS]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_other_vectors_and_strengths_compile_nothing(model, tokens, vector) -> None:
    traced = 0

    def f(model, tokens):
        nonlocal traced
        traced += 1
        return last(model, tokens)

    run = partial(steering.sweep, f, METRIC)
    run(vector, STRENGTHS)(model, tokens)
    before = traced
    other = SteeringVector.create(2 * vector.vectors, SITE, how="otherwise", model="another")
    run(other, [1.0, 2.0, 3.0])(model, tokens)
    assert traced == before


def test_under_jit_and_in_bfloat16(model, tokens, vector) -> None:
    sweep = steering.sweep(last, METRIC, vector, STRENGTHS)
    exact = sweep(model, tokens)
    np.testing.assert_allclose(jax.jit(sweep)(model, tokens), exact, atol=1e-4)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    rough = sweep(half, tokens)
    largest = float(jnp.abs(last(model, tokens)).max())
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, atol=2**-5 * largest)  # eight units of bfloat16's last place


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"over": ("layer",)}, "'strength' and any others of layer, position, strength, batch"),
        ({"over": ("layer", "head", "strength")}, "each once"),
        ({"over": ("strength", "strength")}, "each once"),
        ({"over": ("strength", "position"), "position": 1}, "over 'position' at position=1"),
        ({"strengths": 1.0}, r"strengths of shape \[\]"),
        ({"strengths": []}, r"strengths of shape \[0\]"),
        ({"strengths": [1.0, float("inf")]}, "a strength of inf"),
        ({"strengths": [1.0, -1e30]}, "overflows float32"),
        ({"form": "cap"}, "form='cap' is none of"),
        ({"chunk": 0}, "chunk=0: it must be at least 1"),
        ({"metric": lambda logits: logits.mean()}, r"the metric gave \[\] for \[2\] examples"),
        ({"vector": SteeringVector.create(jnp.ones(16), SITE)}, "over 'layer' of one vector"),
        ({"vector": SteeringVector.create(jnp.ones((3, 12)), SITE)}, "a vector of width 12"),
    ],
)
def test_bad_input_is_one_line(model, tokens, vector, change, message) -> None:
    given = {"metric": METRIC, "vector": vector, "strengths": STRENGTHS, **change}
    with pytest.raises(ValueError, match=message) as error:
        steering.sweep(last, **given)(model, tokens)
    assert "\n" not in str(error.value)
