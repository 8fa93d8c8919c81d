"""A feature of a dictionary as what steers, beside `dictionaries.splice`; probes' and lenses' directions as vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, lens, models, probes, steering
from interp_jax.interventions import add, at, replace
from tests.models.conftest import LLAMA, random_model

SITE = "blocks.1.resid_post"
TEXTS = np.random.default_rng(0).integers(0, 37, (3, 6)).astype(np.int32)
SAE = dictionaries.TopK.create(jax.random.key(0), 16, 40, k=5)


def run(model, edit):
    return ij.intervene(models.forward, {SITE: edit})(model, TEXTS)


def test_a_clamped_feature_is_a_splice(model) -> None:
    feature = steering.Feature.create(SAE, 7, 2.5, SITE)
    want = run(model, dictionaries.splice(SAE, edit=at(replace(5.0), feature=7)))
    np.testing.assert_allclose(run(model, feature.edit(2.0)), want, atol=1e-5)
    last = run(model, at(dictionaries.splice(SAE, edit=at(replace(2.5), feature=7)), position=-1))
    np.testing.assert_allclose(run(model, feature.edit(position=-1)), last, atol=1e-5)
    added = run(model, dictionaries.splice(SAE, edit=at(add(2.5), feature=7)))
    np.testing.assert_allclose(run(model, feature.edit(form="add")), added, atol=1e-5)
    np.testing.assert_allclose(run(model, feature.edit(1.0)), run(model, feature), atol=1e-6)


def test_sweeps_take_a_feature() -> None:
    """Other features and strengths are no other program, and may be mapped over."""
    model = random_model(LLAMA)
    feature = steering.Feature.create(SAE, 7, 2.5, SITE)

    def metric(logits):
        return logits[:, -1, 3]

    got = steering.sweep(models.forward, metric, feature, [0.0, 2.0], "strength")(model, TEXTS)
    want = [metric(run(model, feature.edit(s))).mean() for s in (0.0, 2.0)]
    np.testing.assert_allclose(got, want, atol=1e-4)
    effect = jax.jit(jax.vmap(lambda i: metric(run(model, steering.Feature.create(SAE, i, 2.5, SITE).edit(2.0)))))
    both = effect(jnp.array([7, 9]))
    np.testing.assert_allclose(both[0].mean(), want[1], atol=1e-4)
    assert not np.allclose(both[0], both[1])


def test_in_bfloat16() -> None:
    """It is computed in the dictionary's dtype, and rounded once."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 16)), jnp.bfloat16)
    edit = steering.Feature.create(SAE, 7, 2.5, "x").edit(2.0)
    new = ij.intervene(lambda x: ij.site(x, "x"), {"x": edit})(x)
    exact = x.astype(jnp.float32)
    want = exact + (5.0 - SAE.encode(exact)[..., 7:8]) * SAE.W_dec[7]
    assert new.dtype == jnp.bfloat16
    np.testing.assert_allclose(new.astype(jnp.float32), want, rtol=2**-8, atol=1e-5)


def test_the_direction_of_a_probe() -> None:
    """Along the direction of a probe, its logits move by strength times the norm of its weights."""
    model = random_model(LLAMA)
    x = ij.capture(models.forward, "blocks.resid_post", output=False)(model, TEXTS)["blocks.resid_post"]
    flat, y = np.asarray(x).reshape(3, -1, 16), np.arange(18) % 2
    probe = probes.logistic(flat, y, l2=1.0)
    vector = steering.SteeringVector.create(probe.direction, "blocks.resid_post", how="probe")
    edits = {vector.site: vector.at_layers(1).edit(3.0)}
    moved = ij.capture(ij.intervene(models.forward, edits), SITE, output=False)(model, TEXTS)[SITE]
    before, after = (probe(np.broadcast_to(one.reshape(1, -1, 16), flat.shape))[1] for one in (x[1], moved))
    gain = (after - before)[:, 1] - (after - before)[:, 0]
    norm = np.linalg.norm(probe.W[1, 1] - probe.W[1, 0])
    np.testing.assert_allclose(gain, 3.0 * norm, rtol=1e-3)


def test_the_direction_of_a_jacobian_lens(model) -> None:
    """A lens's directions, one for each layer, are added where the lens reads."""
    one = lens.JacobianLens.create(16, 3)
    directions = lens.directions(one, models.weights(model), jnp.array(5))
    vector = steering.SteeringVector.create(directions, "blocks.resid_pre", how="Jacobian lens")
    got = ij.intervene(models.forward, {vector.site: vector.edit(4.0)})(model, TEXTS)
    by_hand = {f"blocks.{i}.resid_pre": add(4.0 * directions[i]) for i in range(3)}
    np.testing.assert_allclose(got, ij.intervene(models.forward, by_hand)(model, TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: steering.Feature.create(SAE, -1, 1.0, SITE), "number -1"),
        (lambda m: steering.Feature.create(SAE, 1, 0.0, SITE), "active on some text"),
        (lambda m: steering.Feature.create(SAE, 1, 1.0, SITE).edit(form="keep_norm"), "none of clamp, add"),
        (lambda m: steering.Feature.create(SAE, 1, 1.0, SITE).edit([1.0]), "give one number"),
        (lambda m: steering.Feature.create(SAE, 1, 1.0, SITE).edit(float("inf")), "overflows float32"),
        (
            lambda m: run(m, steering.Feature.create(SAE, 40, 1.0, SITE).edit()),
            "a dictionary of 40 features, of which feature=40 is out of range",
        ),
    ],
)
def test_bad_input_is_one_line(make, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make(random_model(LLAMA))
    assert "\n" not in str(error.value)
