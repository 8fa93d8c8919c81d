"""The weights as stacked arrays in TransformerLens's layout, and back."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp

from interp_jax.models.decoder import Decoder
from interp_jax.models.params import paths

Array = jax.Array

_TOP = {"W_E": "w_e", "W_pos": "w_pos", "W_U": "w_u", "ln_final_w": "ln_final.w", "ln_final_b": "ln_final.b"}
_LAYER = {
    **{f"W_{x.upper()}": f"attn.w_{x}" for x in "qkvo"},
    **{f"b_{x.upper()}": f"attn.b_{x}" for x in "qkvo"},
    **{f"{kind}_{part}": f"mlp.{kind.lower()}_{part}" for kind in "Wb" for part in ("in", "gate", "out")},
    **{f"{norm}_{kind}": f"{norm}.{kind}" for norm in ("ln1", "ln2") for kind in "wb"},
}


def weights(model: Decoder) -> dict[str, Array]:
    """Every weight by TransformerLens's name, the layers stacked. What the model does not have is not in the dict.

    Returns:
      `W_E [d_vocab d_model]`, `W_pos [n_ctx d_model]`, `W_U [d_model d_vocab]` (`W_E` transposed where they are tied);
      `W_Q W_K W_V [layer head d_model d_head]` (`W_K`, `W_V` over the key-value heads), `W_O [layer head d_head
      d_model]`, `W_in W_gate [layer d_model d_mlp]`, `W_out [layer d_mlp d_model]`; `b_Q b_K b_V [layer head d_head]`,
      `b_O b_out [layer d_model]`, `b_in b_gate [layer d_mlp]`; `ln1_w ln1_b ln2_w ln2_b [layer d_model]`,
      `ln_final_w ln_final_b [d_model]`.

    Example:
      >>> import jax
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=3, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> w = models.weights(models.Decoder.create(jax.random.key(0), config))
      >>> w["W_Q"].shape, w["W_U"].shape
      ((3, 2, 8, 4), (8, 20))
    """
    leaves = paths(model)
    found = {name: leaves[path] for name, path in _TOP.items() if path in leaves}
    for name, path in _LAYER.items():
        layers = [f"blocks.{i}.{path}" for i in range(model.config.n_layers)]
        if layers[0] in leaves:
            found[name] = jnp.stack([_view(name)(leaves[layer]) for layer in layers])
    if model.w_u is None:
        found["W_U"] = model.w_e.T
    return found


def with_weights(model: Decoder, new: Mapping[str, Any]) -> Decoder:
    """The same model with some of its weights replaced; `with_weights(model, weights(model))` is `model`.

    Args:
      model: stays as it is.
      new: any part of what `weights` gives, in its shapes; cast to the model's dtype.

    Raises:
      ValueError: a name that the model does not have, a wrong shape, or a `W_U` other than `W_E` transposed in a model
        that ties them.

    Example:
      >>> import jax
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=3, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> quiet = models.with_weights(model, {"W_out": 0 * models.weights(model)["W_out"]})
      >>> float(quiet.blocks[0].mlp.w_out.sum())
      0.0
    """
    leaves, known = paths(model), jax.eval_shape(weights, model)
    for name, value in new.items():
        if name not in known:
            raise ValueError(f"with_weights: this model has no {name!r}; it has {', '.join(sorted(known))}")
        if jnp.shape(value) != known[name].shape:
            raise ValueError(f"with_weights: {name} must have shape {known[name].shape}, not {jnp.shape(value)}")
        value = jnp.asarray(value, model.dtype)
        if name == "W_U" and model.w_u is None:
            _check_tied(value, jnp.asarray(new.get("W_E", model.w_e), model.dtype))
        elif name in _TOP:
            leaves[_TOP[name]] = value
        else:
            for i in range(model.config.n_layers):
                leaves[f"blocks.{i}.{_LAYER[name]}"] = _view(name)(value[i])
    return jax.tree.unflatten(jax.tree.structure(model), list(leaves.values()))


def _view(name: str) -> Callable[[Array], Array]:
    """From our layout of one layer to TransformerLens's, and back: they differ in W_Q, W_K and W_V alone."""
    return (lambda x: jnp.swapaxes(x, 0, 1)) if name in ("W_Q", "W_K", "W_V") else (lambda x: x)


def _check_tied(w_u: Array, w_e: Array) -> None:
    traced = isinstance(w_u, Tracer) or isinstance(w_e, Tracer)
    if traced or not bool(jnp.array_equal(w_u, w_e.T)):
        raise ValueError("with_weights: this model's W_U is its W_E transposed; leave W_U out, or change W_E")
