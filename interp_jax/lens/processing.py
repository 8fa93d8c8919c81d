"""Weights rewritten so that they are easier to read, the model's predictions as they were.

    fold norms:       (x / scale * w + b) W  =  (x / scale) (diag(w) W) + b W
    centre writers:   LayerNorm subtracts the mean of x, so each writer may drop its own
    centre unembed:   softmax(z + c) = softmax(z)

Elhage et al. 2021; the same three as TransformerLens's `fold_ln`, `center_writing_weights`, `center_unembed`.
Each maps a dictionary of `models.weights(model)` to another, in float32; `models.with_weights(model, new)` runs it.
Caveat: a model that ties `W_U` to `W_E` cannot hold weights in which the two differ: untie it first.
"""

from collections.abc import Mapping

from jax import Array
import jax.numpy as jnp

Weights = Mapping[str, Array]

_READERS = {"ln1": ("Q", "K", "V"), "ln2": ("in", "gate")}
_WRITERS = ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out")


def fold_norms(weights: Weights) -> dict[str, Array]:
    """Moves the weights of each norm into what reads its output; norms keep weights of 1 and biases of 0.

    The bias of the last norm, for which the unembedding has no place, stays, divided by the norm's weight.

    Raises:
      ValueError: the model's norms do not stand before what reads them (no `ln_final`: an encoder).

    Example:
      >>> from interp_jax import lens, models
      >>> folded = lens.fold_norms(models.weights(models.load("microworld")[0]))
      >>> float(abs(folded["ln1_w"] - 1).max())
      0.0
    """
    if "ln_final_w" not in weights:
        raise ValueError("fold_norms: these weights have no ln_final_w: only norms before their readers can be folded")
    new = _float32(weights)
    for norm, readers in _READERS.items():
        if f"{norm}_w" not in new:
            continue
        gain = new[f"{norm}_w"]
        for kind in (kind for kind in readers if f"W_{kind}" in new):
            matrix = new[f"W_{kind}"]  # [layer d_model d_mlp] or [layer head d_model d_head]
            if f"{norm}_b" in new:
                moved = jnp.einsum("lm,l...md->l...d", new[f"{norm}_b"], matrix)
                new[f"b_{kind}"] = moved + new.get(f"b_{kind}", 0.0)
            new[f"W_{kind}"] = matrix * gain.reshape(len(gain), *(1,) * (matrix.ndim - 3), -1, 1)
        new[f"{norm}_w"] = jnp.ones_like(gain)
        if f"{norm}_b" in new:
            new[f"{norm}_b"] = jnp.zeros_like(gain)
    gain = new["ln_final_w"]
    new["W_U"], new["ln_final_w"] = new["W_U"] * gain[:, None], jnp.ones_like(gain)
    if "ln_final_b" in new:
        new["ln_final_b"] = new["ln_final_b"] / gain
    return new


def centre_writing_weights(weights: Weights) -> dict[str, Array]:
    """Takes from everything that is written to the residual stream its mean over d_model.

    Raises:
      ValueError: a norm that does not subtract the mean (RMSNorm, known by having no bias), or one after the blocks.

    Example:
      >>> import jax
      >>> from interp_jax import lens, models
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> w = lens.centre_writing_weights(models.weights(models.Decoder.create(jax.random.key(0), config)))
      >>> bool(abs(w["W_E"].mean(-1)).max() < 1e-6)
      True
    """
    if "ln_final_b" not in weights or "ln1_post_w" in weights:
        raise ValueError("centre_writing_weights: this model's norms do not subtract the mean of the residual stream")
    new = _float32(weights)
    return new | {name: new[name] - new[name].mean(-1, keepdims=True) for name in _WRITERS if name in new}


def centre_unembed(weights: Weights) -> dict[str, Array]:
    """Takes from `W_U` its mean over the vocabulary: logits with mean 0, the same probabilities.

    Not for a model that caps its logits: there a constant is no longer a constant after the cap.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import lens
      >>> lens.centre_unembed({"W_U": jnp.array([[1.0, 3.0]])})["W_U"].tolist()
      [[-1.0, 1.0]]
    """
    new = _float32(weights)
    return new | {"W_U": new["W_U"] - new["W_U"].mean(-1, keepdims=True)}


def _float32(weights: Weights) -> dict[str, Array]:
    return {name: value.astype(jnp.float32) for name, value in weights.items()}
