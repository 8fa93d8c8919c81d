"""Weights rewritten so that they are easier to read, the model's predictions as they were.

    fold norms:       (x / scale * w + b) W  =  (x / scale) (diag(w) W) + b W,  and where x has mean 0, W drops its own
    centre writers:   LayerNorm subtracts the mean of x, so each writer may drop its own
    centre unembed:   softmax(z + c) = softmax(z)
    fold values:      a pattern's rows add up to 1, so  sum over heads of pattern (v + b_V) W_O  =  ... + b_V W_O

Elhage et al. 2021; the same as TransformerLens's `fold_ln`, `center_writing_weights`, `center_unembed` and
`fold_value_biases`, in any order. Each maps a dictionary of `models.weights(model)` to another, in float32, and
`models.with_weights(model, new)` runs it, also where `model` has no biases and `new` has.
Caveat: a model that ties `W_U` to `W_E` cannot hold weights in which the two differ: give `models.untie(model)`.
"""

from jax import Array
import jax.numpy as jnp

from interp_jax.weights.views import CAP, Weights, check_decoder, float32, per_head, unembedding

_READERS = {"ln1": ("Q", "K", "V"), "ln2": ("in", "gate"), "ln_final": ("U",)}
_WRITERS = ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out")


def fold_norms(weights: Weights) -> dict[str, Array]:
    """Moves the weights of each norm into what reads its output; norms keep weights of 1 and biases of 0.

    A norm's bias becomes biases of its readers (`b_U`, for the last norm), which a model without them then has. Where
    the norm subtracts the mean, as LayerNorm does, known by its bias, readers are centred over d_model too, `W_gate`
    included, which TransformerLens leaves. Norms of queries and keys and norms of what is written stay as they are;
    without norms nothing changes.

    Raises:
      ValueError: an encoder's weights: its norms do not stand between the residual stream and its readers.

    Example:
      >>> from interp_jax import models, weights
      >>> folded = weights.fold_norms(models.weights(models.load("microworld")[0]))
      >>> float(abs(folded["ln1_w"] - 1).max())
      0.0
    """
    check_decoder("fold_norms", weights)
    new = float32(weights)
    for norm, kinds in _READERS.items():
        readers = [kind for kind in kinds if f"W_{kind}" in new]
        if f"{norm}_w" not in new or not readers:  # without an unembedding the last norm's output is what is read
            continue
        gain, shift = new[f"{norm}_w"], new.get(f"{norm}_b")
        for kind in readers:
            _fold(new, kind, gain, shift)
        new[f"{norm}_w"] = jnp.ones_like(gain)
        if shift is not None:
            new[f"{norm}_b"] = jnp.zeros_like(shift)
    return new


def _fold(new: dict[str, Array], kind: str, gain: Array, shift: Array | None) -> None:
    """Folds a norm of weights `[*layer d_model]` into one of its readers, `[*layer *head d_model d]`."""
    matrix = new[f"W_{kind}"]
    shape = (*gain.shape[:-1], *(1,) * (matrix.ndim - gain.ndim - 1), gain.shape[-1], 1)
    scaled = matrix * gain.reshape(shape)
    if shift is not None:
        new[f"b_{kind}"] = (matrix * shift.reshape(shape)).sum(-2) + new.get(f"b_{kind}", 0.0)
        scaled = scaled - scaled.mean(-2, keepdims=True)
    new[f"W_{kind}"] = scaled


def fold_value_biases(weights: Weights) -> dict[str, Array]:
    """Moves what the value biases add to attention's output, the same at every token, into `b_O`; `b_V` becomes 0.

    Logits stay, also where heads share values or a norm follows; a query of padding, which sees nothing, does not.
    An edit of a pattern whose rows then do not add up to 1 no longer moves the biases with it.

    Example:
      >>> import jax
      >>> from interp_jax import models, weights
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8, out_bias=False)
      >>> w = weights.fold_value_biases(models.weights(models.Decoder.create(jax.random.key(0), config)))
      >>> w["b_O"].shape, float(abs(w["b_V"]).max())
      ((1, 8), 0.0)
    """
    new = float32(weights)
    if "b_V" in new:
        moved = (per_head(new, "b_V")[..., None] * new["W_O"]).sum((1, 2))
        new |= {"b_O": moved + new.get("b_O", 0.0), "b_V": jnp.zeros_like(new["b_V"])}
    return new


def centre_writing_weights(weights: Weights) -> dict[str, Array]:
    """Takes from everything that is written to the residual stream its mean over d_model.

    Raises:
      ValueError: something reads the residual stream as it is, or through a norm that does not subtract the mean
        (RMSNorm, known by having no bias); or what is written passes a norm first; or an encoder's weights.

    Example:
      >>> import jax
      >>> from interp_jax import models, weights
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> w = weights.centre_writing_weights(models.weights(models.Decoder.create(jax.random.key(0), config)))
      >>> bool(abs(w["W_E"].mean(-1)).max() < 1e-6)
      True
    """
    check_decoder("centre_writing_weights", weights)
    readers = {norm for norm, kinds in _READERS.items() if norm == "ln_final" or f"W_{kinds[0]}" in weights}
    if missing := [norm for norm in _READERS if norm in readers and f"{norm}_b" not in weights]:
        raise ValueError(
            "centre_writing_weights: this model's norms do not subtract the mean of the residual stream wherever it is "
            f"read: there is no {missing[0]}_b (an RMSNorm, or no norm)"
        )
    if "ln1_post_w" in weights:
        raise ValueError(
            "centre_writing_weights: what this model writes passes a norm first (ln1_post), whose output has a mean"
        )
    new = float32(weights)
    return new | {name: new[name] - new[name].mean(-1, keepdims=True) for name in _WRITERS if name in new}


def centre_unembed(weights: Weights) -> dict[str, Array]:
    """Takes from `W_U`, and from `b_U`, its mean over the vocabulary: logits with mean 0, the same probabilities.

    Raises:
      ValueError: a model without an unembedding, or one that caps its logits: a constant is none after the cap.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import weights
      >>> weights.centre_unembed({"W_U": jnp.array([[1.0, 3.0]])})["W_U"].tolist()
      [[-1.0, 1.0]]
    """
    unembedding("centre_unembed", weights)
    if CAP in weights:
        raise ValueError(
            f"centre_unembed: this model caps its logits ({CAP}): to centre them before the cap would change its "
            "probabilities; centre the directions that are compared instead"
        )
    new = float32(weights)
    return new | {name: new[name] - new[name].mean(-1, keepdims=True) for name in ("W_U", "b_U") if name in new}
