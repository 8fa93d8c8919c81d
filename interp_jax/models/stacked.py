"""The weights as stacked arrays in TransformerLens's layout, and back."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from interp_jax.models.decoder import Decoder
from interp_jax.models.params import paths
from interp_jax.models.transformer import Transformer

Array = jax.Array

CAP = "logit_softcap"  # not a weight, but functions of weights must know of it
_TOP = {
    **{f"W_{name}": f"w_{name.lower()}" for name in ("E", "pos", "type", "head", "U")},
    **{f"b_{name}": f"b_{name.lower()}" for name in ("head", "U")},
    **{f"{n}_{kind}": f"{n}.{kind}" for n in ("ln_embed", "ln_final") for kind in "wb"},
}
_LAYER = {
    **{f"W_{x.upper()}": f"attn.w_{x}" for x in "qkvo"},
    **{f"b_{x.upper()}": f"attn.b_{x}" for x in "qkvo"},
    **{f"{kind}_{part}": f"mlp.{kind.lower()}_{part}" for kind in "Wb" for part in ("in", "gate", "out")},
    **{f"{n}_{kind}": f"{n}.{kind}" for n in ("ln1", "ln2", "ln1_post", "ln2_post") for kind in "wb"},
    **{f"{x}_norm_{kind}": f"attn.{x}_norm.{kind}" for x in "qk" for kind in "wb"},
}


def weights(model: Transformer) -> dict[str, Array]:
    """Every weight by TransformerLens's name, the layers stacked. What the model does not have is not in the dict.

    The weights are those that the forward pass multiplies by: `W_E` times the scale of the embeddings, and a norm's
    `w` plus its offset, where a family (Gemma) has them.

    Returns:
      `W_E [d_vocab d_model]`, `W_pos [n_ctx d_model]`, `W_U [d_model d_vocab]` (`W_E` transposed where they are tied,
      none in a headless model), `b_U [d_vocab]`; `W_Q W_K W_V [layer head d_model d_head]` (`W_K`, `W_V` over the
      key-value heads), `W_O [layer head d_head d_model]`, `W_in W_gate [layer d_model d_mlp]`, `W_out [layer d_mlp
      d_model]`; `b_Q b_K b_V [layer head d_head]`, `b_O b_out [layer d_model]`, `b_in b_gate [layer d_mlp]`; `ln1_w
      ln1_b ln2_w ln2_b [layer d_model]`, `ln_final_w ln_final_b [d_model]`, and the like of post-norms and of the
      norms of queries and keys. An encoder also has `W_type [n_types d_model]`, `ln_embed_w ln_embed_b [d_model]` and
      its head's `W_head [d_model d_model]` and `b_head [d_model]`; its head's norm is `ln_final`.
      A model that caps its logits also has the float32 scalar `logit_softcap`, so that functions of weights can tell.

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
    if "W_U" not in found and not model.config.headless:
        found["W_U"] = model.w_e.T
    if model.config.logit_softcap:
        with jax.ensure_compile_time_eval():  # a value that can be looked at, under transforms too
            found[CAP] = jnp.float32(model.config.logit_softcap)
    return found


def with_weights(model: Transformer, new: Mapping[str, Any]) -> Transformer:
    """The same model with some of its weights replaced; `with_weights(model, weights(model))` is `model`
    (to rounding, where weights are scaled).

    Biases that the model does not have and its `Config` can say that it has make a model that has them: `b_Q b_K b_V`
    (attn_bias), `b_O` (out_bias), `b_in b_gate b_out` (mlp_bias), `b_U` (unembed_bias). Those of the same option that
    are not given are zero.

    A parameter by its place, or every part of a class of `models.params`, is edited by penzai's selectors, which take a
    model as any pytree: see the second example.

    Args:
      model: stays as it is.
      new: any part of what `weights` gives, in its shapes; cast to the model's dtype.

    Raises:
      ValueError: a name that the model can not have, a wrong shape, a `W_U` other than `W_E` transposed in a model that
        ties them (see `untie`), or another `logit_softcap` than that of the model's `Config`. Under a transform those
        two cannot be compared: leave them out.
      TypeError: `model` is neither a `Decoder` nor an `Encoder`.

    Example:
      >>> import jax
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=3, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> quiet = models.with_weights(model, {"W_out": 0 * models.weights(model)["W_out"]})
      >>> float(quiet.blocks[0].mlp.w_out.sum())
      0.0
      >>> from penzai import pz
      >>> doubled = pz.select(model).at(lambda model: model.blocks[1].attn.w_v).apply(lambda w_v: 2 * w_v)
      >>> bool((models.weights(doubled)["W_V"][1] == 2 * models.weights(model)["W_V"][1]).all())
      True
    """
    _check_model("with_weights", model)
    model = _changed(model, _options(model, new))
    leaves, known = paths(model), jax.eval_shape(weights, model)
    for name, value in new.items():
        if name not in known:
            raise ValueError(f"with_weights: this model has no {name!r}; it has {', '.join(sorted(known))}")
        if jnp.shape(value) != known[name].shape:
            raise ValueError(f"with_weights: {name} must have shape {known[name].shape}, not {jnp.shape(value)}")
        if name == CAP or (name == "W_U" and "w_u" not in leaves):
            continue  # held against the model below
        value = _effective(model, name, jnp.asarray(value, model.dtype), inverse=True)
        if name in _TOP:
            leaves[_TOP[name]] = value
        elif model.scanned:
            leaves[f"blocks.{_LAYER[name]}"] = _view(name)(value)
        else:
            for i in range(model.config.n_layers):
                leaves[f"blocks.{i}.{_LAYER[name]}"] = _view(name)(value[i : i + 1])[0]
    if "W_U" in new and "w_u" not in leaves:
        _check_tied(model, jnp.asarray(new["W_U"], model.dtype), leaves["w_e"])
    if CAP in new:
        _check_cap(new[CAP], model.config.logit_softcap)
    return jax.tree.unflatten(jax.tree.structure(model), list(leaves.values()))


def untie(model: Decoder) -> Decoder:
    """The same model with an unembedding of its own, so that `W_U` may be other than `W_E` transposed. A model that has
    one already is given back.

    Args:
      model: stays as it is.

    Raises:
      ValueError: the model has no unembedding.
      TypeError: `model` is no `Decoder`; an `Encoder` always unembeds with `W_E`.

    Example:
      >>> import jax
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=3, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.untie(models.Decoder.create(jax.random.key(0), config))
      >>> model.config.tie_embeddings, model.w_u.shape
      (False, (8, 20))
    """
    if not isinstance(model, Decoder):
        raise TypeError(f"untie: needs a Decoder, not {type(model).__name__}; an Encoder always unembeds with its W_E")
    if model.config.headless:
        raise ValueError("untie: this model is headless: it has no unembedding that could be its own")
    return model if model.w_u is not None else _changed(model, {"tie_embeddings": False}, w_u=model.w_e.T)


def _options(model: Transformer, new: Mapping[str, Any]) -> dict[str, bool]:
    """What must change in the model's `Config` for the biases in `new` that it lacks."""
    config, options = model.config, {}
    out_bias = config.attn_bias if config.out_bias is None else config.out_bias
    if not config.attn_bias and not new.keys().isdisjoint(("b_Q", "b_K", "b_V")):
        options |= {"attn_bias": True, "out_bias": out_bias}  # which would follow attn_bias otherwise
    if not out_bias and "b_O" in new:
        options["out_bias"] = True
    if not config.mlp_bias and not new.keys().isdisjoint(("b_in", "b_out", *(("b_gate",) if config.gated else ()))):
        options["mlp_bias"] = True
    if isinstance(model, Decoder) and not config.headless and not config.unembed_bias and "b_U" in new:
        options["unembed_bias"] = True
    return options


def _changed(model: Transformer, options: Mapping[str, bool], **given: Array) -> Any:
    """The model under another `Config`: parameters that it lacked are `given`, or zero."""
    if not options:
        return model
    config = replace(model.config, **options)
    empty = type(model).abstract(config, dtype=model.dtype, scan_layers=model.scanned)
    leaves = paths(model) | given
    filled = [leaves[path] if path in leaves else jnp.zeros(x.shape, x.dtype) for path, x in paths(empty).items()]
    return jax.tree.unflatten(jax.tree.structure(empty), filled)


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


def _check_tied(model: Transformer, w_u: Array, w_e: Array) -> None:
    """`W_E` may have been scaled and scaled back: equal to rounding."""
    traced = isinstance(w_u, Tracer) or isinstance(w_e, Tracer)
    if traced or not bool(jnp.allclose(w_u, w_e.T, rtol=4 * float(jnp.finfo(w_e.dtype).eps), atol=0)):
        remedy = ", or give models.untie(model)" if isinstance(model, Decoder) else ""
        raise ValueError(
            f"with_weights: this model's W_U is its W_E transposed; leave W_U out, or change W_E alike{remedy}"
        )


def _check_cap(value: Any, cap: float) -> None:
    if isinstance(value, Tracer) or float(value) != float(np.float32(cap)):
        raise ValueError(f"with_weights: {CAP} is {cap} in the model's Config and no weight; leave it out")
