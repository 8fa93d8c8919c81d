"""Vectors as tokens and texts as vectors: beside a model whose vocabulary holds the vector, and beside scikit-learn."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import r2_score

import interp_jax as ij
from interp_jax import models
from interp_jax.explain import Reconstructor, as_token, embedding_norm, fve, reconstruct, reward

CONFIG = models.Config(
    n_layers=2, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=12, norm="rmsnorm", tie_embeddings=False
)
TOKENS = jnp.array([[1, 2, 3, 4], [1, 2, 5, 6]])
SLOT, POSITION = 2, 1  # the token whose place a vector takes, and where it stands


@pytest.fixture(scope="module", params=[False, True], ids=["looped", "scanned"])
def model(request: pytest.FixtureRequest) -> models.Decoder:
    return models.Decoder.create(jax.random.key(0), CONFIG, scan_layers=request.param)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_vector_is_a_token(scaled: bool) -> None:
    """As if the vocabulary had it; families that scale their embeddings included."""
    model = models.Decoder.create(jax.random.key(0), replace(CONFIG, embed_scale=scaled))
    norm = embedding_norm(models.forward, model, TOKENS)
    W_E = np.asarray(model.w_e) * (CONFIG.d_model**0.5 if scaled else 1)
    assert float(norm) == pytest.approx(np.linalg.norm(W_E[np.asarray(TOKENS)], axis=-1).mean(), rel=1e-5)
    vector = np.arange(8.0, dtype=np.float32) - 3
    W_E[SLOT] = vector / np.linalg.norm(vector) * float(norm)
    other = models.with_weights(model, {"W_E": W_E})
    f = ij.intervene(models.forward, as_token(vector, POSITION, norm))
    np.testing.assert_allclose(f(model, TOKENS), models.forward(other, TOKENS), atol=1e-5)


def test_each_text_has_its_vector_and_writes_with_the_cache_what_it_does_without(model: models.Decoder) -> None:
    vectors = jax.random.normal(jax.random.key(1), (2, 8))
    edits = as_token(vectors, POSITION, 3.0)
    tokens = models.generate(model, TOKENS[:, :2], 2, edits=edits)
    logits = ij.intervene(models.forward, edits)(model, tokens)
    assert (logits[:, 1:-1].argmax(-1) == tokens[:, 2:]).all()
    alone = ij.intervene(models.forward, as_token(vectors[1], POSITION, 3.0))(model, tokens)
    np.testing.assert_allclose(logits[1], alone[1], atol=1e-5)
    assert not np.allclose(logits[0], alone[0], atol=1e-2)


def test_a_zero_vector_stays_and_has_a_gradient() -> None:
    def told(vector: jax.Array) -> jax.Array:
        edit = as_token(vector, POSITION, 3.0)["embed"]
        x = ij.intervene(lambda x: ij.site(x, "embed", axes=("position", "d_model")), {"embed": edit})(jnp.ones((3, 8)))
        return x[POSITION].sum()

    value, slope = jax.value_and_grad(told)(jnp.zeros(8))
    assert value == 0 and jnp.isfinite(slope).all()
    with pytest.raises(ValueError, match=r"as_token: vectors \[2, 2, 8\]"):
        as_token(jnp.zeros((2, 2, 8)), POSITION, 3.0)


def test_text_to_vectors(model: models.Decoder) -> None:
    """The state at the last token through a linear map, whatever the padding, by the first layers alone."""
    site = "blocks.0.resid_post"
    W, b = jax.random.normal(jax.random.key(2), (8, 5)), jnp.arange(5.0)
    g = reconstruct(models.forward, site)
    states = ij.capture(models.forward, site, output=False)(model, TOKENS)[site][:, -1]
    padded = jnp.pad(TOKENS, ((0, 0), (2, 0)))
    mask = jnp.pad(jnp.ones_like(TOKENS), ((0, 0), (2, 0)))

    def told(reconstructor: Reconstructor) -> tuple[jax.Array, jax.Array]:
        read = g(reconstructor, padded, attention_mask=mask)
        return read.sum(), read

    slope, read = jax.jit(jax.grad(told, has_aux=True))(Reconstructor(model, W, b))
    np.testing.assert_allclose(read, states @ W + b, atol=1e-5)
    pulled = models.weights(slope.model)["W_in"]
    assert [bool((layer != 0).any()) for layer in pulled] == [True, False]
    np.testing.assert_allclose(slope.b, np.full(5, 2.0))


def test_reward_and_variance() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 40, 6)).astype(np.float32)
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y)]
    np.testing.assert_allclose(reward(x, 3 * y), -((unit[0] - unit[1]) ** 2).sum(1), atol=1e-5)
    kept = x + 0.3 * y
    explained = r2_score(x, kept, multioutput="variance_weighted")
    assert float(fve(x, kept, x.mean(0))) == pytest.approx(explained, abs=1e-5)
    assert float(fve(x, np.tile(x.mean(0), (40, 1)), x.mean(0))) == pytest.approx(0, abs=1e-6)
    assert float(reward(jnp.zeros((1, 3)), jnp.ones((1, 3)))[0]) == -2.0
