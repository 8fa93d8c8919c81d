"""LoReFT and ReFT-r1: their equations in numpy, the gradient by finite differences, training over seeds."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import interp_jax as ij
from interp_jax import models, steering
from interp_jax.steering.training import loss
from tests.models.conftest import LLAMA, random_model

SITE = "blocks.1.resid_post"
RNG = np.random.default_rng(0)
TEXTS = RNG.integers(0, 37, (6, 9)).astype(np.int32)
MASK = np.ones((6, 9), bool)
MASK[0, :3] = MASK[1, 6:] = MASK[4, 6:] = False
PREDICTED = np.arange(9) >= np.array([[3], [4], [5], [6], [2], [4]])


def reft(kind: str, key=0):
    key = jax.random.key(key)
    if kind == "LoReFT":
        return steering.LoReFT.create(key, SITE, 16, rank=3)
    return steering.ReFTr1.create(key, SITE, 16, k=2, l1=0.5)


def values(model) -> np.ndarray:
    return np.asarray(ij.capture(models.forward, SITE, output=False)(model, TEXTS, attention_mask=MASK)[SITE])


def edited(model, edit) -> np.ndarray:
    run = ij.capture(ij.intervene(models.forward, {SITE: edit}), SITE, output=False)
    return np.asarray(run(model, TEXTS, attention_mask=MASK)[SITE])


def test_the_subspace_of_loreft(model) -> None:
    """In the subspace there is what was learned, W h + b; what is orthogonal to it stays."""
    one = replace(reft("LoReFT"), b=jnp.array([0.3, -1.0, 2.0]))
    np.testing.assert_allclose(one.R @ one.R.T, np.eye(3), atol=1e-6)
    h, new = values(model)[MASK], edited(model, one)[MASK]
    R, W, b = (np.asarray(x, np.float64) for x in (one.R, one.W, one.b))
    size = np.abs(h).max()
    np.testing.assert_allclose(new @ R.T, h @ W.T + b, atol=1e-5 * size)
    apart = np.eye(16) - R.T @ R
    np.testing.assert_allclose(new @ apart, h @ apart, atol=1e-5 * size)
    half = edited(model, one.edit(0.5))[MASK]
    np.testing.assert_allclose(half, (h + new) / 2, atol=1e-5 * size)
    last = edited(model, one.edit(position=-1))
    lasts = [int(np.flatnonzero(row)[-1]) for row in MASK]
    np.testing.assert_allclose(last[range(6), lasts], edited(model, one)[range(6), lasts], atol=1e-5 * size)
    np.testing.assert_array_equal(last[3, :-1], values(model)[3, :-1])


def test_what_reft_r1_adds(model) -> None:
    """Each text's two largest activations, over its real tokens, give what is added to all of them."""
    one = reft("ReFTr1")
    w, h, new = np.asarray(one.w, np.float64), values(model), edited(model, one)
    assert np.linalg.norm(w) == pytest.approx(1, abs=1e-6)
    penalties = []
    for row, (x, real) in enumerate(zip(h, MASK, strict=True)):
        a = np.sort(np.maximum(x[real] @ w, 0))[::-1]
        np.testing.assert_allclose(new[row][real], x[real] + a[:2].sum() / 2 * w, atol=1e-4)
        penalties.append(a[2:].mean() * len(a[2:]) / len(a))
    np.testing.assert_allclose(one.detect(jnp.asarray(h)), np.maximum(h @ w, 0), atol=1e-4)
    np.testing.assert_allclose(one.penalty(jnp.asarray(h), jnp.asarray(MASK)), 0.5 * np.mean(penalties), rtol=1e-4)
    alone = ij.capture(ij.intervene(models.forward, {SITE: one}), SITE, output=False)(model, TEXTS[3])[SITE]
    np.testing.assert_allclose(alone, new[3], atol=1e-4)  # without an axis of texts
    np.testing.assert_allclose(edited(model, one.edit(3.0))[MASK], (h + 3 * w)[MASK], atol=1e-5)


def loreft_by_hand(x, one):
    R = jnp.linalg.qr(one.R.T)[0].T
    R = R * jnp.sign((R * one.R).sum(-1, keepdims=True))
    return x + (x @ (one.W - R).T + one.b) @ R


def reft_r1_by_hand(x, one):
    w = one.w / jnp.sqrt((one.w**2).sum())
    return x + jnp.sort(jnp.maximum(x @ w, 0))[-2:].sum() / 2 * w


@pytest.mark.parametrize(("kind", "change"), [("LoReFT", loreft_by_hand), ("ReFTr1", reft_r1_by_hand)])
def test_the_gradient_of_the_loss(kind, change) -> None:
    """Beside the gradient of a loss that is written out, text by text without padding."""
    model, one = random_model(LLAMA), reft(kind)

    @jax.jit
    def nats(one, text):
        logits = ij.intervene(models.forward, {SITE: lambda x: change(x, one)})(model, text)
        return jax.nn.logsumexp(logits[:-1], -1) - logits[jnp.arange(len(text) - 1), text[1:]]

    def by_hand(one):
        each = [nats(one, row[real])[p[real][1:]] for row, real, p in zip(TEXTS, MASK, PREDICTED, strict=True)]
        return jnp.concatenate(each).mean()

    arrays = TEXTS, jnp.asarray(MASK), jnp.asarray(PREDICTED), jnp.asarray(MASK)
    want, wanted = jax.value_and_grad(by_hand)(one)
    for x in (None, jnp.asarray(values(model))):  # the values before the site are the same, run or held
        got, gradient = jax.value_and_grad(lambda e, x=x: loss(models.forward, model, e.constrained(), *arrays, x))(one)
        np.testing.assert_allclose(got, want, atol=1e-5)
        for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["LoReFT", "ReFTr1"])
def test_training_over_seeds(kind) -> None:
    """One program for all seeds, which is what each gives alone; losses fall, and the edit keeps its constraint."""
    model = random_model(LLAMA) if kind == "LoReFT" else models.stack_layers(random_model(LLAMA))
    g = steering.train(models.forward, n_steps=40, batch_size=3, optimizer=optax.adam(2e-2))
    keys, starts = jax.random.split(jax.random.key(1), 2), jax.vmap(lambda i: reft(kind, i))(jnp.arange(2))
    many, losses = jax.jit(jax.vmap(lambda key, one: g(key, model, one, TEXTS, MASK, PREDICTED)))(keys, starts)
    total = np.asarray(losses.language)
    assert total.shape == losses.penalty.shape == (2, 40)
    assert (total[:, -10:].mean(1) < total[:, :10].mean(1)).all()
    alone, one = g(keys[1], model, jax.tree.map(lambda x: x[1], starts), TEXTS, MASK, PREDICTED)
    np.testing.assert_allclose(one.language, total[1], atol=1e-3)
    for got, want in zip(jax.tree.leaves(alone), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(got, want[1], atol=1e-2)
    if kind == "LoReFT":
        np.testing.assert_allclose(alone.R @ alone.R.T, np.eye(3), atol=1e-5)
    else:
        assert float(jnp.linalg.norm(alone.w)) == pytest.approx(1, abs=1e-5)
        assert losses.penalty.mean() > 0


def test_training_in_bfloat16_and_at_chosen_positions() -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_model(LLAMA))
    g = steering.train(models.forward, n_steps=20, batch_size=6, optimizer=optax.adam(2e-2))
    trained, losses = g(jax.random.key(0), half, reft("LoReFT"), TEXTS, MASK, PREDICTED, PREDICTED)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(trained))
    assert losses.language[-5:].mean() < losses.language[:5].mean()
    nowhere = np.zeros_like(MASK)
    _, losses = g(jax.random.key(0), half, reft("LoReFT"), TEXTS, MASK, PREDICTED, nowhere)
    np.testing.assert_allclose(losses.language, losses.language[0], atol=1e-5)  # nothing is edited or learned


@pytest.mark.parametrize("kind", ["LoReFT", "ReFTr1"])
def test_edits_in_bfloat16_are_rounded_once(kind) -> None:
    x = jnp.asarray(RNG.normal(size=(5, 16)), jnp.bfloat16)
    run = ij.intervene(lambda x: ij.site(x, "x", axes=("position", "d_model")), {"x": reft(kind)})
    assert run(x).dtype == jnp.bfloat16
    np.testing.assert_allclose(run(x).astype(jnp.float32), run(x.astype(jnp.float32)), rtol=2**-8, atol=1e-5)


def test_with_the_cache_as_without(model) -> None:
    edits = {SITE: reft("LoReFT").edit(2.0)}
    got = models.generate(model, TEXTS[2:4], 5, edits=edits)
    logits = ij.intervene(models.forward, edits)(model, got)
    np.testing.assert_array_equal(logits[:, 8:-1].argmax(-1), got[:, 9:])


@pytest.mark.parametrize("kind", ["LoReFT", "ReFTr1"])
def test_sweeps_take_them(kind) -> None:
    def metric(logits):
        return logits[:, -1, 3]

    one, model = reft(kind), random_model(LLAMA)
    got = steering.sweep(models.forward, metric, one, [0.0, 1.5], "strength")(model, TEXTS)
    want = [metric(ij.intervene(models.forward, {SITE: one.edit(s)})(model, TEXTS)).mean() for s in (0.0, 1.5)]
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert isinstance(one, steering.Steerer)


train = partial(steering.train, models.forward)
KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: steering.LoReFT.create(KEY, SITE, 16, rank=17), "rank=17 of a site of width 16"),
        (lambda m: steering.ReFTr1.create(KEY, SITE, 16, k=0), "k=0"),
        (lambda m: reft("LoReFT").edit(float("nan")), "strength of nan: give one finite number"),
        (lambda m: reft("LoReFT").edit([1.0, 2.0]), "give one finite number"),
        (lambda m: reft("ReFTr1").edit(1e30), "overflows float32"),
        (lambda m: edited(m, steering.LoReFT.create(KEY, SITE, 12)), "of width 12 at site"),
        (lambda m: edited(m, steering.ReFTr1.create(KEY, SITE, 12)), "of width 12 at site"),
        (lambda m: models.generate(m, TEXTS, 2, edits={SITE: reft("ReFTr1")}), "reft.edit\\(strength\\)"),
        (lambda m: train(n_steps=0), "n_steps=0: it must be at least 1"),
        (lambda m: train(batch_size=7)(KEY, m, reft("ReFTr1"), TEXTS), "batch_size=7 of 6 texts"),
        (
            lambda m: train(batch_size=2)(KEY, m, replace(reft("ReFTr1"), site="blocks.resid_post"), TEXTS),
            "of one layer",
        ),
    ],
)
def test_bad_input_is_one_line(make, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make(random_model(LLAMA))
    assert "\n" not in str(error.value)


def test_a_rate_that_is_too_high_is_told() -> None:
    model = random_model(LLAMA)
    with pytest.raises(FloatingPointError, match="loss is not finite; lower the learning rate"):
        train(n_steps=20, batch_size=6, optimizer=optax.sgd(1e30))(KEY, model, reft("LoReFT"), TEXTS)
