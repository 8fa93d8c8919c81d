"""Splicing a dictionary into a model, and scoring it there."""

from dataclasses import replace as with_fields

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import interp_jax as ij
from interp_jax import dictionaries
from interp_jax.interventions import add, at, replace, scale

D_IN, D_SAE, D_VOCAB = 6, 24, 11


@pytest.fixture
def dictionary():
    return dictionaries.TopK.create(jax.random.key(0), D_IN, D_SAE, 4, b_dec=0.1 * jnp.arange(6.0))


@pytest.fixture
def model():
    keys = jax.random.split(jax.random.key(1), 2)
    return jax.random.normal(keys[0], (D_VOCAB, D_IN)), jax.random.normal(keys[1], (D_IN, D_VOCAB))


TOKENS = jax.random.randint(jax.random.key(2), (6, 9), 0, D_VOCAB)


def f(model, tokens):
    embed, unembed = model
    x = jnp.cumsum(embed[tokens], axis=-2)
    return jnp.tanh(ij.site(x, "resid", axes=("batch", "position", "d_model"))) @ unembed


def values(model, edit=None):
    g = f if edit is None else ij.intervene(f, {"resid": edit})
    return ij.capture(g, "resid", output=False)(model, TOKENS)["resid"]


def test_with_its_error_and_no_edit_nothing_changes(dictionary, model):
    np.testing.assert_array_equal(values(model, dictionaries.splice(dictionary)), values(model))
    untouched = dictionaries.splice(dictionary, edit=scale(1.0))
    np.testing.assert_allclose(values(model, untouched), values(model), atol=1e-6)


def test_without_its_error_the_site_holds_the_reconstruction(dictionary, model):
    spliced = values(model, dictionaries.splice(dictionary, keep_error=False))
    np.testing.assert_allclose(spliced, dictionary(values(model)), atol=1e-6)


@pytest.mark.parametrize("keep_error", [True, False])
def test_an_edit_of_one_feature_moves_the_site_along_its_row(dictionary, model, keep_error):
    before = values(model) if keep_error else dictionary(values(model))
    edit = dictionaries.splice(dictionary, keep_error, edit=at(replace(3.0), feature=5))
    change = values(model, edit) - before
    expected = (3.0 - dictionary.encode(values(model))[..., 5:6]) * dictionary.W_dec[5]
    np.testing.assert_allclose(change, expected, atol=1e-5)


def test_an_edit_may_name_a_position_too(dictionary, model):
    edit = dictionaries.splice(dictionary, edit=at(add(2.0), feature=5, position=3))
    change = values(model, edit) - values(model)
    np.testing.assert_allclose(change[:, 3], jnp.broadcast_to(2.0 * dictionary.W_dec[5], (6, D_IN)), atol=1e-5)
    np.testing.assert_allclose(jnp.delete(change, 3, axis=1), 0, atol=1e-6)


def test_a_plain_function_edits_features(dictionary, model):
    edit = dictionaries.splice(dictionary, keep_error=False, edit=lambda features: features * 0)
    np.testing.assert_allclose(values(model, edit), jnp.broadcast_to(dictionary.b_dec, (6, 9, D_IN)), atol=1e-6)


def test_many_features_are_one_vmap_and_gradients_flow(dictionary, model):
    @jax.jit
    def effect(feature, strength):
        edit = dictionaries.splice(dictionary, edit=at(replace(strength), feature=feature))
        return ij.intervene(f, {"resid": edit})(model, TOKENS).mean()

    features = jnp.arange(D_SAE)
    sweep = jax.vmap(effect, (0, None))(features, jnp.float32(2.0))
    np.testing.assert_allclose(sweep[7], effect(features[7], jnp.float32(2.0)), rtol=1e-5)
    step = jnp.float32(1e-2)
    slope = (effect(features[7], 2 + step) - effect(features[7], 2 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(effect, argnums=1)(features[7], jnp.float32(2.0)), slope, rtol=0.05, atol=1e-4)


def test_the_site_keeps_its_dtype(dictionary, model):
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    for edit in (None, at(replace(3.0), feature=5)):
        for keep_error in (True, False):
            assert values(low, dictionaries.splice(dictionary, keep_error, edit=edit)).dtype == jnp.bfloat16


def test_a_dictionary_of_another_width_is_refused(model):
    other = dictionaries.TopK.create(jax.random.key(0), 5, 24, 4)
    with pytest.raises(ValueError, match=r"d_in=5"):
        values(model, dictionaries.splice(other, keep_error=False))


def test_evaluate_equals_its_definition(dictionary, model):
    mask = jnp.arange(9)[None] < jnp.array([8, 8, 7, 8, 6, 8])[:, None]
    scores = dictionaries.evaluate(f, "resid", dictionary, model, TOKENS, mask=mask, batch_size=4)

    x = np.asarray(values(model))
    real = np.asarray(mask)
    mean = x[real].mean(0)

    def ce(put):
        logits = jnp.tanh(jnp.where(mask[..., None], put, x)) @ model[1]
        each = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], TOKENS[:, 1:])
        return float(each[real[:, 1:] & real[:, :-1]].mean())

    np.testing.assert_allclose(scores.ce_clean, ce(x), rtol=1e-5)
    np.testing.assert_allclose(scores.ce_spliced, ce(dictionary(x)), rtol=1e-5)
    np.testing.assert_allclose(scores.ce_mean_ablated, ce(np.broadcast_to(mean, x.shape)), rtol=1e-5)
    np.testing.assert_allclose(scores.ce_zero_ablated, ce(np.zeros_like(x)), rtol=1e-5)
    recovered = (scores.ce_mean_ablated - scores.ce_spliced) / (scores.ce_mean_ablated - scores.ce_clean)
    assert scores.ce_recovered == pytest.approx(recovered)
    error = np.asarray(dictionary(x))[real] - x[real]
    np.testing.assert_allclose(scores.fvu, (error**2).sum() / ((x[real] - mean) ** 2).sum(), rtol=1e-4)
    assert scores.explained_variance == pytest.approx(1 - scores.fvu)
    features = np.asarray(dictionary.encode(x))[real]
    assert scores.l0 == pytest.approx((features > 0).sum(-1).mean())
    assert scores.dead == pytest.approx((~(features > 0).any(0)).mean())
    assert scores.n_tokens == real.sum()


def test_a_perfect_dictionary_recovers_everything(model):
    both = jnp.concatenate([jnp.eye(D_IN), -jnp.eye(D_IN)])
    made = dictionaries.TopK.create(jax.random.key(0), D_IN, 2 * D_IN, D_IN)
    perfect = with_fields(made, W_enc=both.T, W_dec=both)
    scores = dictionaries.evaluate(f, "resid", perfect, model, TOKENS)
    assert scores.fvu == pytest.approx(0, abs=1e-6)
    assert scores.ce_recovered == pytest.approx(1, abs=1e-4)


def test_evaluate_refuses_what_is_not_one_site(dictionary, model):
    with pytest.raises(ValueError, match="resid"):
        dictionaries.evaluate(f, "resdi", dictionary, model, TOKENS)

    def layered(model, tokens):
        embed, unembed = model
        x = embed[tokens]
        for layer in range(2):
            x = ij.site(x + 1, "blocks.resid", layer=layer, axes=("position", "d_model"))
        return x @ unembed

    with pytest.raises(ValueError, match="name one layer"):
        dictionaries.evaluate(layered, "blocks.resid", dictionary, model, TOKENS)
