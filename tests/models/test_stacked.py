"""Stacked weights in TransformerLens's layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models
from interp_jax.models import Decoder


def test_round_trip_is_exact(model: Decoder) -> None:
    again = models.with_weights(model, models.weights(model))
    assert jax.tree.structure(again) == jax.tree.structure(model)
    assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True))


def test_every_parameter_is_there(model: Decoder) -> None:
    found = models.weights(model)
    if model.w_u is None:
        assert np.array_equal(found.pop("W_U"), found["W_E"].T)
    assert sum(w.size for w in found.values()) == sum(w.size for w in jax.tree.leaves(model))


def test_layout(model: Decoder) -> None:
    w, c = models.weights(model), model.config
    assert w["W_Q"].shape == (3, c.n_heads, c.d_model, c.d_head)
    assert w["W_K"].shape == w["W_V"].shape == (3, c.n_kv_heads, c.d_model, c.d_head)
    assert w["W_O"].shape == (3, c.n_heads, c.d_head, c.d_model)
    assert w["W_in"].shape == (3, c.d_model, c.d_mlp)
    assert w["W_out"].shape == (3, c.d_mlp, c.d_model)
    assert w["W_E"].shape == w["W_U"].T.shape == (c.d_vocab, c.d_model)
    assert ("W_gate" in w, "W_pos" in w) == (c.gated, c.positions == "learned")
    assert ("b_Q" in w, "b_out" in w, "ln1_b" in w) == (c.attn_bias, c.mlp_bias, c.norm == "layernorm")


def test_replaced_weights_act(model: Decoder, prompts: tuple) -> None:
    changed = models.with_weights(model, {"W_O": models.weights(model)["W_O"].at[1].set(0.0)})
    assert float(jnp.abs(changed.blocks[1].attn.w_o).max()) == 0
    assert np.array_equal(changed.blocks[0].attn.w_o, model.blocks[0].attn.w_o)
    assert not np.allclose(changed(prompts[0]), model(prompts[0]))


def test_under_grad(model: Decoder, prompts: tuple) -> None:
    def loss(w_in: jax.Array) -> jax.Array:
        return models.with_weights(model, {"W_in": w_in})(prompts[0])[..., 0].sum()

    assert float(jnp.abs(jax.grad(loss)(models.weights(model)["W_in"])).max()) > 0


def test_a_tied_unembedding_cannot_go_its_own_way(model: Decoder) -> None:
    w_u = models.weights(model)["W_U"]
    if model.w_u is None:
        with pytest.raises(ValueError, match="W_E transposed"):
            models.with_weights(model, {"W_U": 2 * w_u})
    else:
        assert np.array_equal(models.with_weights(model, {"W_U": 2 * w_u}).w_u, 2 * w_u)


def test_bad_input_is_one_line(model: Decoder) -> None:
    for other in ({"W_E": 0}, lambda x: x):
        for call in (models.weights, lambda other: models.with_weights(other, {})):
            with pytest.raises(TypeError, match="Decoder|Transformer"):  # checked shapes say it in their own words
                call(other)
    with pytest.raises(ValueError, match="this model has no 'W_q'; it has W_E, W_K"):
        models.with_weights(model, {"W_q": 0})
    with pytest.raises(ValueError, match=r"W_O must have shape \(3, 4, .*, 16\), not \(2,\)"):
        models.with_weights(model, {"W_O": np.zeros(2)})
