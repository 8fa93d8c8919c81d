"""Sparse heads in the place of attention: the original's output, their own patterns held, and none of the model's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, graphs, models
from interp_jax.interventions import add, replace, scale
from tests.graphs.conftest import KEYS, SETS, TOKENS, D, N, model

FEATURES, PATTERN = "blocks.attn_out.features", "blocks.attn_out.pattern"


@functools.cache
def heads() -> list[dictionaries.Lorsa]:
    made = [dictionaries.Lorsa.create(key, D, N, 6, n_groups=4, d_qk=4, rope_theta=50.0) for key in KEYS[3:6]]
    rng = np.random.default_rng(0)
    noise = lambda x: x + jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype)  # noqa: E731
    return [jax.tree.map(noise, one) for one in made]


def complete(held: graphs.Held | None = None) -> Any:
    return graphs.replace_mlps(graphs.replace_attention(models.forward, heads(), held), SETS["per layer"](), held)


def test_original_output(scanned: bool) -> None:
    f = model(scanned=scanned)
    want = models.forward(f, TOKENS)
    held = graphs.hold(models.forward, SETS["per layer"](), heads())(f, TOKENS)
    assert "blocks.attn.pattern" not in held.frozen and held.frozen[PATTERN].shape == (3, 4, 5, 5)
    for g in (graphs.replace_attention(models.forward, heads()), complete(), complete(held)):
        np.testing.assert_allclose(g(f, TOKENS), want, atol=1e-4)
    batch, mask = jnp.stack([TOKENS, TOKENS[::-1]]), jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    wide = complete()(f, batch, attention_mask=mask) - models.forward(f, batch, attention_mask=mask)
    np.testing.assert_allclose(jnp.where(mask[..., None] > 0, wide, 0), 0, atol=1e-4)


def test_features_and_patterns_are_the_dictionaries(scanned: bool) -> None:
    """Also behind padding, where they are those of the prompt alone."""
    f, g = model(scanned=scanned), graphs.replace_attention(models.forward, heads())
    names = (FEATURES, PATTERN, "blocks.ln1.normalized")
    _, acts = ij.capture(g, names)(f, TOKENS)
    for layer, one in enumerate(heads()):
        x = acts["blocks.ln1.normalized"][layer]
        np.testing.assert_allclose(acts[PATTERN][layer], one.pattern(x), atol=1e-5)
        np.testing.assert_allclose(acts[FEATURES][layer], one.encode(x), atol=1e-4)
    padded, mask = jnp.concatenate([jnp.array([2, 2]), TOKENS])[None], jnp.array([[0, 0, 1, 1, 1, 1, 1]])
    _, there = ij.capture(g, names)(f, padded, attention_mask=mask)
    np.testing.assert_allclose(there[FEATURES][:, 0, 2:], acts[FEATURES], atol=1e-4)


def test_no_pattern_of_the_models_own_is_left(scanned: bool) -> None:
    """Held, its heads are gone from the program; sparse heads look where they looked whatever becomes of the stream."""
    f = model(scanned=scanned)
    held = graphs.hold(models.forward, SETS["per layer"](), heads())(f, TOKENS)
    g = complete(held)
    assert not {"blocks.attn.pattern", "blocks.attn.z", "blocks.attn.q"} & set(ij.sites(g, f, TOKENS))
    changed = ij.intervene(g, {"embed": scale(0.5)})
    _, acts = ij.capture(changed, PATTERN)(f, TOKENS)
    np.testing.assert_allclose(acts[PATTERN], held.frozen[PATTERN], atol=1e-6)
    assert not np.allclose(changed(f, TOKENS), g(f, TOKENS), atol=1e-3)
    _, acts = ij.capture(ij.intervene(complete(), {"embed": add(jnp.arange(1.0 * D))}), PATTERN)(f, TOKENS)
    assert not np.allclose(acts[PATTERN], held.frozen[PATTERN], atol=1e-3)


def test_linear_between_nonlinearities() -> None:
    """Held, and later features too, the stream is an affine function of a layer's heads."""
    f, transcoders = model(scanned=False), SETS["per layer"]()
    held = graphs.hold(models.forward, transcoders, heads())(f, TOKENS)
    g = complete(held)
    _, acts = ij.capture(g, ("blocks.mlp_out.features", FEATURES))(f, TOKENS)
    later = {
        f"blocks.{layer}.{site}.features": replace(acts[f"blocks.{site}.features"][layer])
        for layer in range(3)
        for site in ("attn_out", "mlp_out")
    }
    change = jax.random.normal(jax.random.key(5), (5, N))

    def end(size: jax.Array) -> jax.Array:
        edits = {**later, "blocks.0.attn_out.features": add(size * change)}
        return ij.capture(ij.intervene(g, edits), "unembed.in", output=False)(f, TOKENS)["unembed.in"]

    base, once, twice = (end(jnp.float32(size)) for size in (0.0, 1.0, 2.0))
    np.testing.assert_allclose(twice - base, 2 * (once - base), atol=1e-4)
    assert not np.allclose(once, base, atol=1e-3)


def test_heads_of_some_layers() -> None:
    f = model(scanned=False)
    some = {0: heads()[0], 2: heads()[2]}
    held = graphs.hold(models.forward, SETS["per layer"](), some)(f, TOKENS)
    assert {"blocks.0.attn_out.pattern", "blocks.2.attn_out.pattern"} < set(held.frozen)
    g = graphs.replace_attention(models.forward, some, held)
    np.testing.assert_allclose(g(f, TOKENS), models.forward(f, TOKENS), atol=1e-4)


@pytest.mark.parametrize(
    ("lorsas", "message"),
    [
        (lambda: heads()[:2], "2 for a model of 3 layers: give one for each"),
        (lambda: [dictionaries.Lorsa.create(KEYS[0], 8, 4, 2, n_groups=2, d_qk=2)] * 3, "it belongs to another model"),
    ],
)
def test_heads_of_another_model(lorsas: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graphs.replace_attention(models.forward, lorsas())(model(scanned=False), TOKENS)
