"""Sparse heads: what they carry is what a plain computation says, and a layer's own heads are some of them."""

from dataclasses import replace
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, models, weights
from interp_jax.interventions import at, scale

D, D_QK, GROUPS, HEADS, K = 8, 4, 3, 24, 5
KEYS = jax.random.split(jax.random.key(7), 8)
X = jax.random.normal(KEYS[0], (2, 6, D))


def noisy(rope_theta: float | None = None) -> dictionaries.Lorsa:
    made = dictionaries.Lorsa.create(KEYS[1], D, HEADS, K, n_groups=GROUPS, d_qk=D_QK, rope_theta=rope_theta)
    names = ("W_Q", "W_K", "b_Q", "b_K", "b_enc", "b_dec", "W_dec")
    noise = {n: 0.3 * jax.random.normal(key, getattr(made, n).shape) for n, key in zip(names, KEYS, strict=False)}
    return replace(made, **{name: getattr(made, name) + more for name, more in noise.items()})


def by_hand(lorsa: dictionaries.Lorsa, x: np.ndarray, real: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Features and output of one sequence `[position d_in]`, one head and one pair of positions after another."""
    w = {n: np.asarray(getattr(lorsa, n), np.float64) for n in ("W_Q", "W_K", "b_Q", "b_K", "W_enc", "b_enc", "W_dec")}
    n, features = len(x), np.zeros((len(x), HEADS))

    def turned(vector: np.ndarray, position: int) -> np.ndarray:
        if lorsa.rope_theta is None:
            return vector
        pairs = vector[: D_QK // 2] + 1j * vector[D_QK // 2 :]
        pairs = pairs * np.exp(1j * position * lorsa.rope_theta ** (-np.arange(D_QK // 2) / (D_QK // 2)))
        return np.concatenate([pairs.real, pairs.imag])

    for head in range(HEADS):
        g = head // (HEADS // GROUPS)
        for t in range(n):
            seen = [s for s in range(t + 1) if real is None or real[s]]
            q = turned(x[t] @ w["W_Q"][g] + w["b_Q"][g], t)
            scores = [q @ turned(x[s] @ w["W_K"][g] + w["b_K"][g], s) / D_QK**0.5 for s in seen]
            weights = np.exp(scores) / np.exp(scores).sum()
            carried = [x[s] @ w["W_enc"][:, head] + w["b_enc"][head] for s in seen]
            features[t, head] = sum(a * v for a, v in zip(weights, carried, strict=True))
    smallest = np.sort(features, axis=-1)[:, -K][:, None]
    features = np.where(features >= smallest, np.maximum(features, 0), 0)
    return features, features @ w["W_dec"] + np.asarray(lorsa.b_dec)


@pytest.mark.parametrize("rope_theta", [None, 50.0])
def test_it_is_the_plain_computation(rope_theta: float | None) -> None:
    lorsa = noisy(rope_theta)
    for x, features, out in zip(X, lorsa.encode(X), lorsa(X), strict=True):
        want = by_hand(lorsa, np.asarray(x, np.float64))
        np.testing.assert_allclose(features, want[0], atol=1e-5)
        np.testing.assert_allclose(out, want[1], atol=1e-5)


def test_nothing_looks_at_padding_or_ahead() -> None:
    lorsa = noisy(50.0)
    real = jnp.array([False, False, True, True, True, True])
    pattern = lorsa.pattern(X, jnp.broadcast_to(real, X.shape[:2]))
    assert float(jnp.abs(jnp.triu(pattern, 1)).max()) == 0 and float(pattern[..., 2:, :2].max()) == 0
    np.testing.assert_allclose(pattern.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(pattern[..., 2:, 2:], lorsa.pattern(X[:, 2:]), atol=1e-6)  # angles are relative


@functools.cache
def _model(*, kv_heads: int, bias: bool) -> models.Decoder:
    sizes: dict[str, Any] = {"n_heads": 4, "n_kv_heads": kv_heads, "d_model": D, "d_mlp": 16, "d_vocab": 11, "n_ctx": 8}
    positions = "learned" if bias else "rotary"
    config = models.Config(n_layers=2, **sizes, attn_bias=bias, positions=positions, rope_theta=100.0)
    made = models.Decoder.create(jax.random.key(0), config)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), made)


def _folded(model: models.Decoder) -> dict[str, jax.Array]:
    return weights.fold_norms(models.weights(model))


@pytest.mark.parametrize(("kv_heads", "bias"), [(4, True), (2, False)])
def test_a_layer_of_attention_is_sparse_heads_that_are_all_kept(kv_heads: int, bias: bool) -> None:
    """Each dimension of its heads is two of them, one for either sign, which queries and keys leave as they are."""
    model, tokens = _model(kv_heads=kv_heads, bias=bias), jnp.array([[1, 5, 3, 9, 5, 2], [4, 4, 1, 0, 7, 3]])
    _, acts = ij.capture(models.forward, ("blocks.1.ln1.normalized", "blocks.1.attn_out"))(model, tokens)
    x, want = acts["blocks.1.ln1.normalized"], acts["blocks.1.attn_out"]
    w, n = {name: value[1] for name, value in _folded(model).items() if value.ndim > 1}, 2 * D
    theta = None if bias else model.config.rope_theta
    made = dictionaries.Lorsa.of_heads(KEYS[2], _folded(model), 1, n, n, rope_theta=theta)
    W_V = jnp.repeat(w["W_V"], 4 // kv_heads, axis=0)  # [head d_in d_head]
    b_V = jnp.repeat(w["b_V"], 4 // kv_heads, axis=0)
    signs = lambda x, axis: jnp.concatenate([x, -x], axis=axis)  # noqa: E731
    exact = replace(
        made,
        W_enc=jnp.moveaxis(signs(W_V, -1), 0, 1).reshape(D, n),
        b_enc=signs(b_V, -1).reshape(n),
        W_dec=signs(w["W_O"], 1).reshape(n, D),
        b_dec=w.get("b_O", jnp.zeros(D)),
    )
    np.testing.assert_allclose(exact(x), want, atol=2e-5)
    spliced = dictionaries.splice(exact, keep_error=False, sites=("blocks.1.ln1.normalized", "blocks.1.attn_out"))
    logits = ij.intervene(models.forward, {"blocks.1.attn_out": spliced})(model, tokens)
    np.testing.assert_allclose(logits, models.forward(model, tokens), atol=1e-4)


def test_it_starts_where_the_models_heads_look() -> None:
    """And carries the part along its direction of what that head writes."""
    model, tokens = _model(kv_heads=4, bias=True), jnp.array([1, 5, 3, 9, 5, 2])
    names = ("blocks.0.ln1.normalized", "blocks.0.attn.pattern", "blocks.0.attn.result")
    _, acts = ij.capture(models.forward, names)(model, tokens)
    x, pattern, result = (acts[name] for name in names)
    made = dictionaries.Lorsa.of_heads(KEYS[3], _folded(model), 0, 32, 4, n_groups=8)
    np.testing.assert_allclose(made.pattern(x), jnp.repeat(pattern, 2, axis=0), atol=1e-5)
    want = jnp.einsum("phd,hcd->phc", result, made.W_dec.reshape(4, 8, D)).reshape(6, 32)
    np.testing.assert_allclose(made.pre_activations(x), want, atol=1e-4)


def test_padding_is_passed_by_in_a_model() -> None:
    """A padded prompt has the features that it has alone."""
    model, tokens = _model(kv_heads=2, bias=False), jnp.array([5, 3, 9, 5])
    sites = ("blocks.1.ln1.normalized", "blocks.1.attn_out")
    lorsa = noisy(model.config.rope_theta)
    f = ij.intervene(
        models.forward, {sites[1]: dictionaries.splice(lorsa, edit=at(scale(0.0), feature=2), sites=sites)}
    )
    padded, mask = jnp.concatenate([jnp.array([2, 2]), tokens])[None], jnp.array([[0, 0, 1, 1, 1, 1]])
    np.testing.assert_allclose(f(model, padded, attention_mask=mask)[0, 2:], f(model, tokens), atol=1e-5)
    with pytest.raises(ValueError, match="goes on step by step, and its heads look back"):
        edits = {sites[1]: dictionaries.splice(lorsa, keep_error=False, sites=sites)}
        models.generate(model, tokens[None], 2, edits=edits)


def test_training_lowers_the_error_and_revives_the_dead() -> None:
    target = noisy(50.0)
    x = jax.random.normal(KEYS[4], (64, 6, D))
    made = dictionaries.Lorsa.create(KEYS[5], D, HEADS, K, n_groups=GROUPS, d_qk=D_QK, rope_theta=50.0)
    made = replace(made, b_enc=made.b_enc.at[:4].set(-20.0))
    state = dictionaries.TrainState.create(made, 150, learning_rate=1e-2, dead_after=10)
    before = dictionaries.train_step(state, (x, target(x)))[1]
    state = dictionaries.train(state, [(x, target(x))] * 150)
    after = dictionaries.train_step(state, (x, target(x)))[1]
    assert float(after.fvu) < 0.3 * float(before.fvu) and float(after.l0) <= K
    assert float(state.dictionary.b_enc[:4].min()) > -20.0
    np.testing.assert_allclose(jnp.linalg.norm(state.dictionary.W_dec, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_groups": 5}, "n_groups=5 does not divide d_sae=24"),
        ({"d_qk": 3, "rope_theta": 10.0}, "d_qk=3 with rope_theta: pairs are turned; give an even one"),
        ({"k": 25}, "k=25 is larger than d_sae=24"),
        ({"n_groups": 0}, "n_groups=0 must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        usual: dict[str, Any] = {"k": K, "n_groups": GROUPS, "d_qk": D_QK}
        dictionaries.Lorsa.create(KEYS[0], D, HEADS, **usual | settings)


def test_what_it_cannot_read_is_refused() -> None:
    lorsa = noisy()
    with pytest.raises(ValueError, match=r"it reads sequences, \[\*batch position 8\]"):
        lorsa.encode(X[0, 0])
    with pytest.raises(ValueError, match="whole sequences, which harvest takes apart"):
        dictionaries.train_step(dictionaries.TrainState.create(lorsa, 5), (X[0], X[0]))
    with pytest.raises(ValueError, match="n_groups=6 for 4 heads of the model: give a multiple"):
        dictionaries.Lorsa.of_heads(KEYS[0], _folded(_model(kv_heads=2, bias=False)), 0, 24, 4, n_groups=6)
