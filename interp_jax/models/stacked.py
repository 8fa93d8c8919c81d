"""The weights as stacked arrays in TransformerLens's layout, and back."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp

from interp_jax.models.params import paths
from interp_jax.models.transformer import Transformer

Array = jax.Array

_TOP = {"W_E": "w_e", "W_pos": "w_pos", "W_U": "w_u", "ln_final_w": "ln_final.w", "ln_final_b": "ln_final.b"}
_LAYER = {
    **{f"W_{x.upper()}": f"attn.w_{x}" for x in "qkvo"},
    **{f"b_{x.upper()}": f"attn.b_{x}" for x in "qkvo"},
    **{f"{kind}_{part}": f"mlp.{kind.lower()}_{part}" for kind in "Wb" for part in ("in", "gate", "out")},
    **{f"{n}_{kind}": f"{n}.{kind}" for n in ("ln1", "ln2", "ln1_post", "ln2_post") for kind in "wb"},
    **{f"{x}_norm_w": f"attn.{x}_norm.w" for x in "qk"},
}


def weights(model: Transformer) -> dict[str, Array]:
    """Every weight by TransformerLens's name, the layers stacked. What the model does not have is not in the dict.

    The weights are those that the forward pass multiplies by: `W_E` times the scale of the embeddings, and a norm's
    `w` plus its offset, where a family (Gemma) has them.

    Returns:
      `W_E [d_vocab d_model]`, `W_pos [n_ctx d_model]`, `W_U [d_model d_vocab]` (`W_E` transposed where they are tied);
      `W_Q W_K W_V [layer head d_model d_head]` (`W_K`, `W_V` over the key-value heads), `W_O [layer head d_head
      d_model]`, `W_in W_gate [layer d_model d_mlp]`, `W_out [layer d_mlp d_model]`; `b_Q b_K b_V [layer head d_head]`,
      `b_O b_out [layer d_model]`, `b_in b_gate [layer d_mlp]`; `ln1_w ln1_b ln2_w ln2_b [layer d_model]`,
      `ln_final_w ln_final_b [d_model]`, and the like of post-norms and of the norms of queries and keys.

    Raises:
      TypeError: `model` is neither a `Decoder` nor an `Encoder`.

    Example:
      >>> import jax
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=3, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> w = models.weights(models.Decoder.create(jax.random.key(0), config))
      >>> w["W_Q"].shape, w["W_U"].shape
      ((3, 2, 8, 4), (8, 20))
    """
    _check_model("weights", model)
    leaves = paths(model)
    found = {name: leaves[path] for name, path in _TOP.items() if path in leaves}
    for name, path in _LAYER.items():
        layers = [f"blocks.{i}.{path}" for i in range(model.config.n_layers)]
        if f"blocks.{path}" in leaves:
            found[name] = _view(name)(leaves[f"blocks.{path}"])
        elif layers[0] in leaves:
            found[name] = _view(name)(jnp.stack([leaves[layer] for layer in layers]))
    found = {name: _effective(model, name, value) for name, value in found.items()}
    if "W_U" not in found:
        found["W_U"] = model.w_e.T
    return found


def with_weights(model: Transformer, new: Mapping[str, Any]) -> Transformer:
    """The same model with some of its weights replaced; `with_weights(model, weights(model))` is `model`
    (to rounding, where weights are scaled).

    Args:
      model: stays as it is.
      new: any part of what `weights` gives, in its shapes; cast to the model's dtype.

    Raises:
      ValueError: a name that the model does not have, a wrong shape, or a `W_U` other than `W_E` transposed in a model
        that ties them.
      TypeError: `model` is neither a `Decoder` nor an `Encoder`.

    Example:
      >>> import jax
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=3, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> quiet = models.with_weights(model, {"W_out": 0 * models.weights(model)["W_out"]})
      >>> float(quiet.blocks[0].mlp.w_out.sum())
      0.0
    """
    _check_model("with_weights", model)
    leaves, known = paths(model), jax.eval_shape(weights, model)
    for name, value in new.items():
        if name not in known:
            raise ValueError(f"with_weights: this model has no {name!r}; it has {', '.join(sorted(known))}")
        if jnp.shape(value) != known[name].shape:
            raise ValueError(f"with_weights: {name} must have shape {known[name].shape}, not {jnp.shape(value)}")
        value = jnp.asarray(value, model.dtype)
        if name == "W_U" and "w_u" not in leaves:
            continue  # held against W_E below
        value = _effective(model, name, value, inverse=True)
        if name in _TOP:
            leaves[_TOP[name]] = value
        elif model.scanned:
            leaves[f"blocks.{_LAYER[name]}"] = _view(name)(value)
        else:
            for i in range(model.config.n_layers):
                leaves[f"blocks.{i}.{_LAYER[name]}"] = _view(name)(value[i : i + 1])[0]
    if "W_U" in new and "w_u" not in leaves:
        _check_tied(jnp.asarray(new["W_U"], model.dtype), leaves["w_e"])
    return jax.tree.unflatten(jax.tree.structure(model), list(leaves.values()))


def _check_model(name: str, model: Any) -> None:
    if not isinstance(model, Transformer):
        raise TypeError(f"{name}: needs a Decoder or an Encoder, not a {type(model).__name__}, whose layout is unknown")


def _view(name: str) -> Callable[[Array], Array]:
    """From our layout to TransformerLens's, and back: they differ in W_Q, W_K and W_V alone."""
    return (lambda x: jnp.swapaxes(x, 1, 2)) if name in ("W_Q", "W_K", "W_V") else (lambda x: x)


def _effective(model: Transformer, name: str, value: Array, *, inverse: bool = False) -> Array:
    """What the forward pass multiplies by, of a parameter as it is stored; or the other way round."""
    config, sign = model.config, -1 if inverse else 1
    if name == "W_E" and config.embed_scale:
        return value * jnp.asarray(config.d_model ** (sign * 0.5), value.dtype)
    if name.endswith("_w") and config.norm_offset:
        return value + jnp.asarray(sign * config.norm_offset, value.dtype)
    return value


def _check_tied(w_u: Array, w_e: Array) -> None:
    traced = isinstance(w_u, Tracer) or isinstance(w_e, Tracer)
    if traced or not bool(jnp.array_equal(w_u, w_e.T)):
        raise ValueError("with_weights: this model's W_U is its W_E transposed; leave W_U out, or change W_E")
