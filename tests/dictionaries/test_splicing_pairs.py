"""Splicing what reads one site and writes another, or several: equal to a computation by hand, or refused."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, models
from interp_jax.interventions import at, clamp, scale

N_LAYERS, D, D_SAE = 3, 8, 24
W = jax.random.normal(jax.random.key(0), (N_LAYERS, D, D)) / D**0.5
X = jax.random.normal(jax.random.key(1), (2, 5, D))


def block(x, w, layer):
    x = ij.site(x, "blocks.mlp_in", layer=layer, axes=("batch", "position", "d_model"))
    out = ij.site(jnp.tanh(x @ w), "blocks.mlp_out", layer=layer, axes=("batch", "position", "d_model"))
    return ij.site(x + out, "blocks.resid_post", layer=layer, axes=("batch", "position", "d_model"))


def looped_model(w, x):
    for layer in range(N_LAYERS):
        x = block(x, w[layer], layer)
    return x


def scanned_model(w, x):
    return jax.lax.scan(lambda x, w: (block(x, w, None), None), x, w)[0]


MODELS = pytest.mark.parametrize("f", [looped_model, scanned_model], ids=["looped", "scanned"])
EDITS = {"off": at(scale(0.0), feature=3), "pinned": at(clamp(2.0, 2.0), feature=3)}
edits = pytest.mark.parametrize("edit", EDITS)


def features_after(edit, features):
    return features.at[..., 3].set(0.0 if edit == "off" else 2.0)


def made(kind, **settings):
    return getattr(dictionaries, kind).create(jax.random.key(2), D, D_SAE, **settings)


@MODELS
@edits
@pytest.mark.parametrize("keep_error", [True, False])
@pytest.mark.parametrize("kind", ["Transcoder", "SkipTranscoder"])
def test_a_transcoder_encodes_what_it_reads_and_writes_where_it_writes(f, edit, keep_error, kind):
    d = made(kind)
    d = replace(d, W_skip=0.3 * jax.random.normal(jax.random.key(4), (D, D))) if kind == "SkipTranscoder" else d
    d = replace(d, b_enc=d.b_enc + 0.2, sites=("blocks.1.mlp_in", "blocks.1.mlp_out"))
    spliced = ij.intervene(f, {"blocks.1.mlp_out": dictionaries.splice(d, keep_error, edit=EDITS[edit])})
    acts = ij.capture(f, ["blocks.1.mlp_in", "blocks.1.mlp_out"], output=False)(W, X)
    x, y = acts["blocks.1.mlp_in"], acts["blocks.1.mlp_out"]
    after = d.output(x, features_after(edit, d.encode(x)))
    expected = y + after - d(x) if keep_error else after
    got = ij.capture(spliced, "blocks.1.mlp_out", output=False)(W, X)["blocks.1.mlp_out"]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    whole = ij.intervene(f, {"blocks.1.mlp_out": dictionaries.splice(d, keep_error=False)})
    np.testing.assert_allclose(
        ij.capture(whole, "blocks.1.mlp_out", output=False)(W, X)["blocks.1.mlp_out"], d(x), atol=1e-5
    )


@MODELS
@edits
@pytest.mark.parametrize("keep_error", [True, False])
def test_a_cross_layer_transcoder_writes_to_every_layer_from_all_before(f, edit, keep_error):
    d = replace(made("CrossLayerTranscoder", n_layers=N_LAYERS), sites=("blocks.mlp_in", "blocks.mlp_out"))
    d = replace(d, W_dec=10 * d.W_dec)
    spliced = ij.intervene(f, dict(dictionaries.splice(d, keep_error, edit=EDITS[edit])))
    x, by_hand = X, []
    for layer in range(N_LAYERS):
        by_hand.append(x)
        read = jnp.stack([*by_hand, *[jnp.zeros_like(x)] * (N_LAYERS - 1 - layer)], axis=-2)
        features = d.encode(read)
        after, before = (d.decode(c)[..., layer, :] for c in (features_after(edit, features), features))
        out = jnp.tanh(x @ W[layer])
        x = x + (out + after - before if keep_error else after)
    np.testing.assert_allclose(spliced(W, X), x, atol=1e-4)
    later = dictionaries.splice(d, edit=at(EDITS[edit], axis=-2, index=1))  # of the second layer's features alone
    moved = ij.capture(ij.intervene(f, later), "blocks.mlp_out", output=False)(W, X)["blocks.mlp_out"]
    change = jnp.abs(moved - ij.capture(f, "blocks.mlp_out", output=False)(W, X)["blocks.mlp_out"]).max((1, 2, 3))
    assert float(change[0]) == 0.0 or edit == "off" and float(change.max()) == 0.0
    untouched = ij.intervene(f, dict(dictionaries.splice(d)))
    np.testing.assert_array_equal(untouched(W, X), f(W, X))


@MODELS
@edits
def test_a_crosscoder_moves_every_site_by_its_features_of_the_run_before(f, edit):
    d = replace(made("Crosscoder", n_sites=N_LAYERS), sites="blocks.resid_post")
    d = replace(d, W_dec=10 * d.W_dec, b_enc=d.b_enc + 0.2)
    values = ij.capture(f, "blocks.resid_post", output=False)(W, X)["blocks.resid_post"]
    spliced = ij.intervene(f, dict(dictionaries.splice(d, edit=EDITS[edit], values=values)))
    features = d.encode(jnp.moveaxis(values, 0, -2))
    moved = d.decode(features_after(edit, features)) - d.decode(features)
    x = X
    for layer in range(N_LAYERS):
        x = x + jnp.tanh(x @ W[layer]) + moved[..., layer, :]
    np.testing.assert_allclose(spliced(W, X), x, atol=1e-4)


@MODELS
def test_another_site_than_its_own_is_refused(f):
    one = replace(made("TopK", k=4), sites="blocks.1.resid_post")
    np.testing.assert_array_equal(ij.intervene(f, {"blocks.1.resid_post": dictionaries.splice(one)})(W, X), f(W, X))
    for address in ("blocks.2.resid_post", "blocks.resid_post", "blocks.1.mlp_out"):
        with pytest.raises(ValueError, match="of 'blocks.1.resid_post' does not belong to the site") as error:
            ij.intervene(f, {address: dictionaries.splice(one)})(W, X)
        assert "\n" not in str(error.value)
    elsewhere = dictionaries.splice(one, keep_error=False, sites="blocks.2.resid_post")
    assert ij.intervene(f, {"blocks.2.resid_post": elsewhere})(W, X).shape == X.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dictionaries.splice(made("Transcoder")), "reads one site and stands in for another; say which"),
        (lambda: dictionaries.splice(made("Transcoder"), sites="blocks.1.mlp_out"), "reads one site and stands in"),
        (lambda: dictionaries.splice(made("TopK", k=4), sites=("a", "b")), "a TopK belongs to one site"),
        (lambda: dictionaries.splice(made("Crosscoder", n_sites=2), sites="blocks.x"), "give values="),
        (lambda: dictionaries.splice(made("Crosscoder", n_sites=2), values=X), "of unknown sites"),
        (lambda: dictionaries.splice(made("TopK", k=4), values=X), "leave values out"),
    ],
)
def test_what_cannot_be_known_is_asked_for(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_evaluate_knows_the_sites_and_refuses_others():
    f = lambda w, x: looped_model(w, jnp.eye(D)[x])  # noqa: E731
    tokens = jax.random.randint(jax.random.key(3), (4, 6), 0, D)
    pair = ("blocks.1.mlp_in", "blocks.1.mlp_out")
    one, two = made("TopK", k=4), made("SkipTranscoder")
    evaluate = partial(dictionaries.evaluate, f)
    assert evaluate(None, replace(two, sites=pair), W, tokens).fvu == evaluate(pair, two, W, tokens).fvu
    for where, d, message in (
        ("blocks.1.mlp_out", two, "the two sites that it reads and writes"),
        (pair, one, "it wants one site"),
        (None, one, "unknown sites; give where="),
        ("blocks.1.mlp_in", replace(one, sites="blocks.1.mlp_out"), "trained at 'blocks.1.mlp_out' does not belong"),
        ("blocks.mlp_out", made("Crosscoder", n_sites=3), "several sites at once"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(where, d, W, tokens)


def test_inputs_of_another_scale_than_those_of_training_are_noticed():
    f = lambda w, x: looped_model(w, 50 * jnp.eye(D)[x])  # noqa: E731
    tokens = np.random.default_rng(0).integers(0, D, (8, 6))
    batches = dictionaries.harvest(f, "blocks.1.resid_post", W, tokens, batch_size=16)
    scaling = dictionaries.Scaling.fit(next(batches))
    state = dictionaries.TrainState.create(made("TopK", k=4), 3)
    d = dictionaries.train(state, batches.map(scaling)).dictionary
    assert d.sites == "blocks.1.resid_post"
    with pytest.warns(UserWarning, match="fold the scale"):
        dictionaries.evaluate(f, None, d, W, tokens)
    dictionaries.evaluate(f, None, scaling.fold(d), W, tokens)
    with pytest.raises(ValueError, match="a dictionary trained at 'blocks.1.resid_post', and batches of"):
        dictionaries.train(
            state.__class__.create(d, 3), dictionaries.harvest(f, "blocks.0.mlp_in", W, tokens, batch_size=4)
        )


def test_on_a_real_architecture_under_jit_and_grad():
    model, tokenizer = models.load("microworld", dtype="float32")
    tokens = jnp.arange(12).reshape(2, 6)
    sites = ("blocks.1.mlp_in", "blocks.1.mlp_out")
    d = dictionaries.Transcoder.create(jax.random.key(0), 128, 64)
    d = replace(d, sites=sites)

    @jax.jit
    def effect(strength):
        edit = dictionaries.splice(d, edit=at(clamp(strength, strength), feature=3))
        return ij.intervene(models.forward, {sites[1]: edit})(model, tokens)[..., 5].sum()

    step = 0.5
    slope = (effect(1.0 + step) - effect(1.0 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(effect)(1.0), slope, rtol=0.05)
