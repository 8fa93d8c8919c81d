"""Split-softmax beside the equations of the paper, written out in numpy, and with the cache as without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models, steering
from interp_jax.interventions import at

PATTERN = "blocks.attn.pattern"
AXES = ("head", "query", "key")


def by_hand(pattern: np.ndarray, k: float, start: int, stop: int) -> np.ndarray:
    new = np.array(pattern, np.float64)
    inside = (np.arange(pattern.shape[-1]) >= start) & (np.arange(pattern.shape[-1]) < stop)
    for *head, query in np.ndindex(pattern.shape[:-1]):
        row = new[(*head, query)]
        mass = row[inside].sum()
        if query >= stop and 0 < mass < row.sum():
            row[inside] *= mass**k / mass
            row[~inside] *= (1 - mass**k) / (1 - mass)
    return new


def edited(pattern, k, stop, start=0, axes=AXES):
    edit = {"pattern": steering.split_softmax(k, stop, start=start)}
    return ij.intervene(lambda x: ij.site(x, "pattern", axes=axes), edit)(pattern)


@pytest.fixture(scope="module")
def pattern() -> jax.Array:
    scores = np.random.default_rng(0).normal(size=(3, 7, 7)) * 3
    return jax.nn.softmax(jnp.where(np.tri(7, dtype=bool), jnp.asarray(scores, jnp.float32), -jnp.inf))


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("k", [0.0, 0.3, 0.9, 1.0])
def test_the_equation(pattern, k, start) -> None:
    new = edited(pattern, k, 3, start)
    np.testing.assert_allclose(new, by_hand(np.asarray(pattern), k, start, 3), atol=1e-6)
    np.testing.assert_allclose(new.sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(new[:, :3], pattern[:, :3])  # queries of the prompt itself
    if k == 1:
        np.testing.assert_allclose(new, pattern, atol=1e-7)
    if k == 0:
        assert not new[:, 3:, 3:].any() and not new[:, 3:, :start].any()


def test_all_weight_on_one_side() -> None:
    """No weight in the prompt, none outside, and next to none on either side: no NaN, also not in the derivative."""
    rows = jnp.array([[1.0, 0, 0], [0, 0.5, 0.5], [1.0, 0, 0], [1e-30, 0.5, 0.5], [1.0, 1e-30, 0]])
    many = jnp.zeros((5, 5, 3)).at[:, 4].set(rows)
    for k in (0.0, 0.5):
        new = edited(many, k, 1, axes=("batch", "query", "key"))
        np.testing.assert_allclose(new[:3, 4], rows[:3])
        np.testing.assert_allclose(new[:, 4].sum(-1), 1, atol=1e-6)
        slope = jax.grad(lambda x, k=k: edited(x, k, 1, axes=("query", "key"))[..., 0].sum())(many[:3].reshape(15, 3))
        assert np.isfinite(slope).all()
    np.testing.assert_allclose(edited(many, 0.5, 1, axes=("batch", "query", "key"))[3, 4, 0], 1e-15, rtol=1e-4)


def test_bfloat16(pattern) -> None:
    low = pattern.astype(jnp.bfloat16)
    new = edited(low, 0.4, 3)
    assert new.dtype == jnp.bfloat16
    want = by_hand(np.asarray(low, np.float64), 0.4, 0, 3)
    # rows of bfloat16 do not sum to 1: the weights are shared within what there is
    np.testing.assert_allclose(np.asarray(new, np.float64), want, rtol=0.05, atol=4e-3)
    np.testing.assert_allclose(np.asarray(new, np.float64).sum(-1), np.asarray(low, np.float64).sum(-1), atol=1e-2)


def test_a_map_over_exponents_is_a_loop(pattern) -> None:
    ks = jnp.array([0.0, 0.5, 1.0])
    mapped = jax.jit(jax.vmap(edited, (None, 0, None)))(pattern, ks, jnp.int32(3))
    np.testing.assert_allclose(mapped, jnp.stack([edited(pattern, k, 3) for k in ks]), atol=1e-6)


def test_in_a_model(model, tokens) -> None:
    """Layer by layer as by hand, and an exponent of 1 gives the model as it is."""
    acts = ij.capture(models.forward, PATTERN, output=False)(model, tokens)[PATTERN]
    first = {PATTERN: at(steering.split_softmax(0.2, 2), layer=0)}
    new = ij.capture(ij.intervene(models.forward, first), PATTERN, output=False)(model, tokens)[PATTERN]
    np.testing.assert_allclose(new[0], by_hand(np.asarray(acts[0]), 0.2, 0, 2), atol=1e-5)
    assert not np.allclose(new[1], acts[1], atol=1e-4)
    same = ij.intervene(models.forward, {PATTERN: steering.split_softmax(1.0, 2)})(model, tokens)
    np.testing.assert_allclose(same, models.forward(model, tokens), atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_no_part_of_the_prompt(model, tokens, side) -> None:
    mask = jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]] if side == "right" else [[1] * 5, [0, 1, 1, 1, 1]], bool)
    edit = {PATTERN: steering.split_softmax(0.3, jnp.array([3, 2]), start=1)}
    padded = ij.intervene(models.forward, edit)(model, tokens, attention_mask=mask)
    for row, stop in enumerate((3, 2)):
        alone = {PATTERN: steering.split_softmax(0.3, stop, start=1)}
        want = ij.intervene(models.forward, alone)(model, tokens[row][np.asarray(mask[row])])
        np.testing.assert_allclose(padded[row][np.asarray(mask[row])], want, atol=1e-5)


def test_with_the_cache_as_without(model, tokens) -> None:
    mask = jnp.array([[1] * 5, [0, 0, 1, 1, 1]], bool)
    edits = {PATTERN: steering.split_softmax(0.1, jnp.array([3, 2]))}
    found, n = models.generate(model, tokens, 6, attention_mask=mask, edits=edits), tokens.shape[1]
    real = jnp.pad(mask, ((0, 0), (0, 5)), constant_values=True)
    logits = ij.intervene(models.forward, edits)(model, found[:, :-1], attention_mask=real)
    np.testing.assert_array_equal(found[:, n:], logits[:, n - 1 :].argmax(-1))


def test_other_edits_of_the_pattern_must_not_look_at_all_keys(model, tokens) -> None:
    with pytest.raises(ValueError, match="does not do the same at each place along 'key'"):
        models.generate(model, tokens, 2, edits={PATTERN: lambda x: x / x.sum(-1, keepdims=True)})


def test_bad_input(model, tokens) -> None:
    for k in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"split_softmax: k=.* is not from 0 to 1"):
            steering.split_softmax(k, 3)
    with pytest.raises(ValueError, match="from token 2 to 2 has no tokens: give start < stop"):
        steering.split_softmax(0.5, 2, start=2)
    for site in ("blocks.attn.attn_scores", "blocks.resid_post"):
        with pytest.raises(ValueError, match=r'no attention pattern .*: edit "blocks.attn.pattern"'):
            ij.intervene(models.forward, {site: steering.split_softmax(0.5, 2)})(model, tokens)
