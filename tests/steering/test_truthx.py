"""TruthX: the losses beside sums written out, the edit beside the equation, and truth found where it was planted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.steering import truthx
from interp_jax.steering.truthful_space import Autoencoder, loss

pytestmark = pytest.mark.long  # an autoencoder is trained for each test
SITES = ("blocks.attn_out", "blocks.mlp_out")


def planted(n: int = 60) -> tuple[dict, dict, np.ndarray]:
    """Contents drawn at random; a side is told by one direction, except in the last layer of the second site."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=16)
    sides: list[dict] = [{}, {}]
    for site in SITES:
        content = rng.normal(size=(3, n, 16))
        told = np.array([1.0, 1.0, site == SITES[0]])[:, None, None]
        for side, sign in zip(sides, (1, -1), strict=True):
            side[site] = jnp.asarray(
                content + sign * told * direction + 0.1 * rng.normal(size=content.shape), jnp.float32
            )
    return sides[0], sides[1], direction


@pytest.fixture(scope="module")
def made() -> truthx.TruthX:
    positive, negative, _ = planted()
    return truthx.train(jax.random.key(0), positive, negative, d_hidden=32, d_latent=16, n_steps=400)


def test_losses() -> None:
    model = Autoencoder.create(jax.random.key(0), 6, 12, 16)
    x = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)
    total, parts = loss(model, jnp.asarray(x[0]), jnp.asarray(x[1]), 0.5)
    sem = [np.asarray(model.semantic(jnp.asarray(one))) for one in x]
    truth = [np.asarray(model.truthful(jnp.asarray(one))) for one in x]

    def sim(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(a @ b / np.linalg.norm(a) / np.linalg.norm(b) / 0.5))

    want = dict.fromkeys(("truthful", "semantic", "edit", "reconstruct"), 0.0)
    for one, other in ((0, 1), (1, 0)):
        for i in range(5):
            alike = sum(sim(truth[one][i], t) for t in truth[one])
            want["truthful"] -= np.log(alike / (alike + sum(sim(truth[one][i], t) for t in truth[other]))) / 5
            pair = sim(sem[one][i], sem[other][i])
            apart = sum(sim(sem[one][i], sem[one][j]) for j in range(5) if j != i)
            want["semantic"] -= np.log(pair / (pair + apart)) / 5
            swapped = model.decode(jnp.asarray(sem[one][i]), jnp.asarray(truth[other][i]))
            want["edit"] += float(np.square(np.asarray(swapped) - x[other][i]).mean()) / 5
            want["reconstruct"] += float(np.square(np.asarray(model(jnp.asarray(x[one][i]))) - x[one][i]).mean()) / 5
    for name, value in want.items():
        np.testing.assert_allclose(parts[name], value, rtol=2e-4, err_msg=name)
    np.testing.assert_allclose(total, sum(want.values()), rtol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(truth[0], axis=-1), 1, atol=1e-5)


def test_truth_is_found_where_it_was_planted(made) -> None:
    assert made.sites == ((SITES[0], 3), (SITES[1], 3))
    accuracy = np.asarray(made.accuracy)
    assert accuracy[:5].min() > 0.95 and abs(accuracy[5] - 0.5) < 0.2
    assert made.best(5) == {SITES[0]: (0, 1, 2), SITES[1]: (0, 1)}
    positive, _, direction = planted()
    x = positive[SITES[0]][0] / made.scale[0]
    model = made.autoencoder
    sem, truth = model.semantic(x), model.truthful(x)
    ends = [t / jnp.linalg.norm(t, axis=-1, keepdims=True) for t in (truth + made.delta[0], truth - made.delta[0])]
    change = np.asarray(model.decode(sem, ends[0]) - model.decode(sem, ends[1])).mean(0)
    assert change @ direction / np.linalg.norm(change) / np.linalg.norm(direction) > 0.9


def test_the_edit(model, tokens, made) -> None:
    """At the chosen layers the equation, elsewhere and at strength 0 nothing; the other direction is minus it."""

    @jax.jit
    def run(edits, model):
        logits, acts = ij.capture(ij.intervene(models.forward, edits), SITES[1])(model, tokens)
        return logits, acts[SITES[1]]

    def edits(strength):
        return {SITES[1]: made.edits(strength, n=5)[SITES[1]]}

    logits, plain = run({}, model)
    x, a = plain[0] / made.scale[3], made.autoencoder
    ends = [a.truthful(x) + sign * made.delta[3] for sign in (1, -1)]
    decoded = [a.decode(a.semantic(x), t / jnp.linalg.norm(t, axis=-1, keepdims=True)) for t in ends]
    change = 0.7 * made.scale[3] * (decoded[0] - decoded[1])
    for sign in (1, -1):
        np.testing.assert_allclose(run(edits(0.7 * sign), model)[1][0] - plain[0], sign * change, atol=1e-5)
    np.testing.assert_allclose(run(edits(0.0), model)[0], logits, atol=1e-6)


def test_with_the_cache_as_without(model, tokens, made) -> None:
    edits, n = made.edits(2.0, n=4), tokens.shape[1]
    found = models.generate(model, tokens, 4, edits=edits)
    logits = ij.intervene(models.forward, edits)(model, found[:, :-1])
    np.testing.assert_array_equal(found[:, n:], logits[:, n - 1 :].argmax(-1))


def test_bfloat16_and_a_map_over_strengths(made) -> None:
    x = jnp.asarray(np.random.default_rng(2).normal(size=(3, 16)), jnp.float32)

    def run(strength, x):
        edit = made.edits(strength, n=5)[SITES[0]]
        f = lambda x: [ij.site(x, "out", axes=("position", "d_model"), layer=k) for k in range(3)]  # noqa: E731
        return ij.intervene(f, {"out": edit})(x)[1]

    low = run(1.0, x.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(jnp.float32), run(1.0, x), rtol=0.05, atol=0.05)
    mapped = jax.vmap(run, (0, None))(jnp.array([-1.0, 0.5]), x)
    np.testing.assert_allclose(mapped, jnp.stack([run(s, x) for s in (-1.0, 0.5)]), atol=1e-5)


def test_bad_input(model, tokens, made) -> None:
    positive, negative, _ = planted(12)
    few = [{s: x[:, :5] for s, x in side.items()} for side in (positive, negative)]
    with pytest.raises(ValueError, match="5 pairs; ten at least"):
        truthx.train(jax.random.key(0), *few)
    with pytest.raises(ValueError, match="sides are of the same sites"):
        truthx.train(jax.random.key(0), positive, {SITES[0]: negative[SITES[0]]})
    with pytest.raises(ValueError, match="not finite"):
        truthx.train(jax.random.key(0), positive, {s: x * jnp.nan for s, x in negative.items()})
    with pytest.raises(ValueError, match="no multiple of the 8 slots"):
        truthx.train(jax.random.key(0), positive, negative, d_latent=12)
    with pytest.raises(ValueError, match="not in jit"):
        jax.jit(lambda made: made.best(1))(made)
    with pytest.raises(ValueError, match="is not one finite number"):
        made.edits(float("nan"))
    with pytest.raises(ValueError, match=r"best\(10\) of 6 layers"):
        made.edits(1.0)
    with pytest.raises(ValueError, match="made at another site or of another model"):
        ij.intervene(models.forward, {"blocks.mlp.post": made.edits(1.0, n=5)[SITES[1]]})(model, tokens)
