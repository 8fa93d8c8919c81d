"""The forward pass: shapes, padding, dtypes, transforms, bad input."""

from functools import partial
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models
from interp_jax.models import Config, Decoder, Encoder
from interp_jax.models.config import check_value


def close(a: jax.Array, b: jax.Array, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=tolerance, atol=tolerance)


def test_a_batch_gives_what_each_sequence_gives_alone(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts
    logits = models.forward(model, tokens, attention_mask=mask)
    for row, real, got in zip(tokens, mask, logits, strict=True):
        close(got[real], model(row[real]))


def test_what_stands_at_padding_does_not_matter(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts
    other = np.where(mask, tokens, 5)
    a, b = (models.forward(model, x, attention_mask=mask) for x in (tokens, other))
    close(a[mask], b[mask])
    assert bool(jnp.isfinite(a).all())


def test_a_sequence_of_padding_is_finite_and_has_finite_gradients(model: Decoder) -> None:
    def total(model: Decoder) -> jax.Array:
        return models.forward(model, np.zeros((2, 4), int), attention_mask=np.array([[0] * 4, [1] * 4])).sum()

    value, grads = jax.value_and_grad(total)(model)
    assert bool(jnp.isfinite(value))
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))


def test_calls_agree(model: Decoder, prompts: tuple) -> None:
    tokens, _ = prompts
    logits = model(tokens)
    assert logits.shape == (3, 7, 37)
    assert logits.dtype == jnp.float32
    close(logits, models.forward(model, tokens.astype(np.int64)))
    close(logits, jax.jit(models.forward)(model, tokens))
    close(logits, jax.vmap(partial(models.forward, model))(tokens))
    close(logits[1], model(tokens[1]))


def test_logits_at(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts
    logits, at = model(tokens, attention_mask=mask), np.array([6, 4, -2])
    close(model(tokens, attention_mask=mask, logits_at=at), logits[jnp.arange(3), at])
    close(model(tokens[0], logits_at=jnp.int32(3)), model(tokens[0])[3])


def test_bfloat16(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    logits = half(tokens, attention_mask=mask)
    assert logits.dtype == jnp.bfloat16
    exact = model(tokens, attention_mask=mask)
    error = jnp.abs(logits.astype(jnp.float32) - exact)[mask]
    assert float(error.mean()) < 0.05 * float(jnp.abs(exact[mask]).mean())


def test_the_gradient_is_the_slope(model: Decoder, prompts: tuple) -> None:
    tokens, mask = prompts

    def loss(model: Decoder) -> jax.Array:
        return jnp.where(mask[..., None], jax.nn.log_softmax(model(tokens, attention_mask=mask)), 0.0)[..., 3].sum()

    grads = jax.grad(loss)(model)
    assert jax.tree.structure(grads) == jax.tree.structure(model)
    step = 1e-4 / max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    there, back = (jax.tree.map(lambda x, g, s=s: x + s * step * g, model, grads) for s in (1, -1))
    slope = sum(float(jnp.vdot(g, g)) for g in jax.tree.leaves(grads))
    assert float(loss(there) - loss(back)) / (2 * step) == pytest.approx(slope, rel=1e-2)


def test_a_stack_of_models_is_a_model(model: Decoder, prompts: tuple) -> None:
    stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), model)
    both = jax.vmap(lambda m: m(prompts[0]))(stacked)
    close(both[0], model(prompts[0]), 1e-4)
    assert not np.allclose(both[0], both[1])


def test_the_config_is_static_and_the_rest_arrays(model: Decoder) -> None:
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(model))
    assert hash(jax.tree.structure(model)) == hash(jax.tree.structure(jax.tree.map(jnp.zeros_like, model)))
    abstract = Decoder.abstract(model.config)
    shapes = [x.shape for x in jax.tree.leaves(abstract)]
    assert shapes == [x.shape for x in jax.tree.leaves(model)]


def test_eager_calls_compile_once(model: Decoder, prompts: tuple, caplog: pytest.LogCaptureFixture) -> None:
    model(prompts[0]).block_until_ready()
    with jax.log_compiles(True), caplog.at_level("WARNING"):
        model(prompts[0] * 0 + 1).block_until_ready()
    assert "_forward" not in caplog.text


@pytest.mark.parametrize(
    ("tokens", "options", "says"),
    [
        (np.array([[1, 37]]), {}, r"37 is out of range \[0, 37\)"),
        (np.array([-1, 2]), {}, "-1 is out of range"),
        (np.zeros(33, int), {}, "33 positions are more than the model's n_ctx 32"),
        (np.array([1.0]), {}, "must be integers"),
        (np.zeros((1, 1, 1), int), {}, r"must be \[position\] or \[batch position\]"),
        (np.zeros((2, 3), int), {"attention_mask": np.ones((2, 4))}, r"attention_mask has shape \(2, 4\)"),
        (np.zeros((1, 3), int), {"attention_mask": np.array([[1, 0, 1]])}, "gap"),
        (np.zeros((2, 3), int), {"logits_at": np.array([1])}, "logits_at must be integers of shape"),
        (np.zeros((1, 3), int), {"logits_at": np.array([3])}, "logits_at: 3 is out of range"),
    ],
)
def test_bad_input_is_one_line(model: Decoder, tokens: np.ndarray, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        model(tokens, **options)
    assert "\n" not in str(caught.value)


def test_more_padding_than_n_ctx_is_fine(model: Decoder) -> None:
    tokens = np.arange(40)[None] % 37
    mask = np.arange(40)[None] >= 30
    close(model(tokens, attention_mask=mask)[0, 30:], model(tokens[0, 30:]))


def test_a_traced_token_outside_the_vocabulary_is_loud(model: Decoder) -> None:
    assert bool(jnp.isnan(jax.jit(models.forward)(model, np.array([40]))).any())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_heads": 3}, "not divisible"),
        ({"n_kv_heads": 3}, "not a multiple"),
        ({"d_head": 3, "positions": "rotary"}, "even"),
        ({"n_types": 2}, "^Config: n_types are of an encoder"),
        ({"norms": "residual", "positions": "rotary"}, "of an encoder, which has positions='learned' and no other$"),
        ({"norms": "residual", "tie_embeddings": False}, "of an encoder, which has tie_embeddings=True and no other$"),
    ],
)
def test_sizes_that_do_not_fit(change: dict, says: str) -> None:
    sizes = {"n_layers": 1, "n_heads": 4, "d_model": 16, "d_mlp": 24, "d_vocab": 37, "n_ctx": 32}
    with pytest.raises(ValueError, match=says):
        Config(**{**sizes, **change})


@pytest.mark.parametrize(("kind", "norms"), [(Decoder, "residual"), (Encoder, "pre")])
def test_norms_of_the_other_class(kind: type, norms: str) -> None:
    config = Config(n_layers=1, n_heads=4, d_model=16, d_mlp=24, d_vocab=37, n_ctx=32, norms=norms)
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: norms='{norms}' are those of an? "):
        kind.create(jax.random.key(0), config)


@pytest.mark.parametrize(
    ("value", "says"), [([0], "must be a tuple, not [0]"), ((0.0,), ": each must be a whole number, not 0.0")]
)
def test_tuples_are_tuples_of_what_they_hold(value: Any, says: str) -> None:
    check_value("layers", (0, 1), tuple[int, ...])
    with pytest.raises(ValueError, match=rf"^layers ?{re.escape(says)}$"):
        check_value("layers", value, tuple[int, ...])
