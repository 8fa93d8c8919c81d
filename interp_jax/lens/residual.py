"""The residual stream read through the unembedding: the logit lens, and what each component writes of a logit.

    logit lens:   softmax(unembed(norm(resid[layer])))
    attribution:  logit = sum over components c of (centre(c) / scale * w) . W_U[:, token]  +  (b . W_U + b_U)[token]

nostalgebraist 2020, "interpreting GPT: the logit lens"; Elhage et al. 2021, "A mathematical framework". The final norm
is linear once its scale is the one of the actual run, so contributions add up to the logit.
Caveat: early layers need not speak the unembedding's language (Belrose et al. 2023, arXiv:2303.08112), and a direct
contribution says nothing of what later components make of it. Weights are `models.weights(model)` of a decoder, with or
without a final norm; models that cap their logits are read before the cap, at `unembed.out`, unless the logit lens is
told otherwise.
"""

from collections.abc import Mapping

from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float, Int

from interp_jax.weights import CAP, Weights, check_decoder, unembedding


def logit_lens(
    weights: Weights,
    resid: Float[Typed, "*axes d_model"],
    *,
    eps: float = 1e-5,
    centred: bool | None = None,
    capped: bool = False,
) -> Float[Typed, "*axes d_vocab"]:
    """The logits that the model would give, were this the last layer.

    Args:
      weights: `models.weights(model)`. Without `ln_final_w` there is no norm; `b_U` is added.
      resid: `[... d_model]`, such as a capture of `blocks.resid_post`.
      eps: of the final norm (`model.config.norm_eps`).
      centred: whether the final norm subtracts the mean; None: if it has a bias, as LayerNorm has and RMSNorm has not.
      capped: give logits after the cap, as the model does, where it caps its logits; else those before, `unembed.out`.

    Returns:
      float32 `[... d_vocab]`.

    Raises:
      ValueError: the last axis is not d_model; `centred` without a final norm; the weights of an encoder, or of a model
        without an unembedding.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import lens, models
      >>> model, _ = models.load("microworld", dtype=jnp.float32)
      >>> logits, acts = ij.capture(models.forward, "blocks.resid_post")(model, jnp.array([[1, 5, 9]]))
      >>> read = lens.logit_lens(models.weights(model), acts["blocks.resid_post"], eps=model.config.norm_eps)
      >>> read.shape, bool(jnp.allclose(read[-1], logits, atol=1e-4))
      ((4, 1, 3, 641), True)
    """
    check_decoder("logit_lens", weights)
    w_u = unembedding("logit_lens", weights)
    x = _centred(weights, resid, centred)
    if "ln_final_w" in weights:
        x = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps) * _gain(weights) + _shift(weights)
    logits = x @ w_u + _vocab_bias(weights)
    if capped and CAP in weights:
        logits = weights[CAP] * jnp.tanh(logits / weights[CAP])
    return logits


def logit_directions(weights: Weights, tokens: Int[Typed, "*batch"]) -> Float[Typed, "*batch d_model"]:
    """The directions in which the final norm's output is read: the tokens' columns of `W_U`, float32.

    Subtract two for a logit difference: `logit_directions(w, answers) - logit_directions(w, distractors)`.

    Raises:
      ValueError: a model without an unembedding.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import lens
      >>> lens.logit_directions({"W_U": jnp.eye(3)}, jnp.array([2])).tolist()
      [[0.0, 0.0, 1.0]]
    """
    return jnp.moveaxis(jnp.take(unembedding("logit_directions", weights), tokens, axis=1, mode="fill"), 0, -1)


def logit_biases(weights: Weights, tokens: Int[Typed, "*batch"]) -> Float[Typed, "*batch"]:
    """What the unembedding's bias gives to the tokens' logits, float32; 0 in a model that has none.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import lens
      >>> lens.logit_biases({"W_U": jnp.eye(3), "b_U": jnp.arange(3.0)}, jnp.array([2, 1])).tolist()
      [2.0, 1.0]
    """
    bias = jnp.broadcast_to(_vocab_bias(weights), unembedding("logit_biases", weights).shape[1:])
    return jnp.take(bias, tokens, mode="fill")


def direct_attribution(
    weights: Weights,
    contributions: Mapping[str, Array],
    scale: Float[Typed, "*batch 1"] | None,
    directions: Float[Typed, "*batch d_model"],
    *,
    bias: Float[Typed, "*batch"] | None = None,
    centred: bool | None = None,
) -> dict[str, Array]:
    """How much of a logit, or of a difference of logits, each component writes directly. Logits are those before a cap.

    Args:
      weights: `models.weights(model)`.
      contributions: name -> `[... *batch d_model]`, vectors that together are the final residual stream; those of
        `components` for example, at the position that is read.
      scale: `[*batch 1]`, capture of `ln_final.scale` at that position; None in a model without norms.
      directions: `[*batch d_model]`, of `logit_directions`.
      bias: `[*batch]`, of `logit_biases`, which takes tokens as `logit_directions` does and is subtracted as it is; a
        model whose unembedding has a bias, as one with folded norms has, needs it.
      centred: as in `logit_lens`.

    Returns:
      name -> float32 `[... *batch]`; "bias" `[*batch]` is what the final norm's bias and the unembedding's give. All of
      them add up to the logit.

    Raises:
      ValueError: a contribution whose last axis is not d_model; a scale without a final norm, or the norm without a
        scale; no bias where the weights have `b_U`; the weights of an encoder, or of a model without an unembedding.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import lens, models
      >>> model, _ = models.load("microworld", dtype=jnp.float32)
      >>> w, sites = models.weights(model), [*lens.COMPONENTS, "ln_final.scale"]
      >>> logits, acts = ij.capture(models.forward, sites)(model, jnp.array([[1, 5, 9]]))
      >>> parts = {name: x[..., -1, :] for name, x in lens.components(w, acts).items()}
      >>> directions, bias = (read(w, jnp.array([7])) for read in (lens.logit_directions, lens.logit_biases))
      >>> found = lens.direct_attribution(w, parts, acts["ln_final.scale"][:, -1], directions, bias=bias)
      >>> found["heads"].shape  # layer, head, batch
      (4, 4, 1)
      >>> bool(jnp.allclose(lens.total(found), logits[:, -1, 7], atol=1e-4))
      True
    """
    check_decoder("direct_attribution", weights)
    if (scale is None) == ("ln_final_w" in weights):
        has = "has a final norm: give its scale, captured at 'ln_final.scale'"
        has_not = "has no final norm (ln_final_w), and so no scale: give None"
        raise ValueError(f"direct_attribution: this model {has if scale is None else has_not}")
    if bias is None and "b_U" in weights:
        raise ValueError(
            "direct_attribution: this model's unembedding has a bias: give bias=lens.logit_biases(weights, tokens)"
        )
    read = directions if scale is None else _gain(weights) * directions / scale
    found = {name: (_centred(weights, x, centred) * read).sum(-1) for name, x in contributions.items()}
    return found | {"bias": (_shift(weights) * directions).sum(-1) + (0.0 if bias is None else bias)}


COMPONENTS = ("embed", "blocks.attn.z", "blocks.mlp_out")  # what to capture for `components`, with pos_embed if any


def components(weights: Weights, acts: Mapping[str, Array]) -> dict[str, Array]:
    """The parts of the final residual stream of a pre-norm model.

    Args:
      weights: `models.weights(model)`.
      acts: captures of `COMPONENTS`, and of `pos_embed` where the model has it.

    Returns:
      "embed" (and "pos_embed") `[batch position d_model]`; "heads" `[layer head batch position d_model]`; "mlps"
      `[layer batch position d_model]`; "attn_bias" `[layer batch position d_model]` where the model has `b_O`.

    Raises:
      ValueError: the model has norms after attention, as an encoder has, so that heads do not write on their own; or a
        site is missing.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import lens, models
      >>> model, _ = models.load("microworld")
      >>> acts = ij.capture(models.forward, lens.COMPONENTS, output=False)(model, jnp.array([[1, 5, 9]]))
      >>> {name: x.shape for name, x in lens.components(models.weights(model), acts).items()}
      {'embed': (1, 3, 128), 'heads': (4, 4, 1, 3, 128), 'mlps': (4, 1, 3, 128)}
    """
    check_decoder("components", weights)
    if "ln1_post_w" in weights:
        raise ValueError("components: this model has norms after its blocks: heads do not write to the stream alone")
    needed = (*COMPONENTS, *(("pos_embed",) if "W_pos" in weights else ()))
    if missing := [name for name in needed if name not in acts]:
        raise ValueError(f"components: capture {missing[0]!r} too; it needs {', '.join(needed)}")
    z, w_o = acts["blocks.attn.z"].astype(jnp.float32), weights["W_O"].astype(jnp.float32)
    parts = {name: acts[name].astype(jnp.float32) for name in ("embed", "pos_embed") if name in needed}
    parts["heads"] = jnp.einsum("l...phd,lhdm->lh...pm", z, w_o)
    parts["mlps"] = acts["blocks.mlp_out"].astype(jnp.float32)
    if "b_O" in weights:
        bias = weights["b_O"].astype(jnp.float32)
        parts["attn_bias"] = jnp.broadcast_to(bias.reshape(len(bias), *(1,) * (z.ndim - 3), -1), parts["mlps"].shape)
    return parts


def total(found: Mapping[str, Array]) -> Array:
    """The sum of what `direct_attribution` found, over everything but the batch: `[*batch]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import lens
      >>> lens.total({"heads": jnp.ones((2, 3, 1)), "bias": jnp.ones(1)}).tolist()
      [7.0]
    """
    n = found["bias"].ndim
    return sum((x.sum(tuple(range(x.ndim - n))) for x in found.values()), jnp.zeros(()))


def _centred(weights: Weights, x: Array, centred: bool | None) -> Array:
    d_model = unembedding("a residual stream", weights).shape[0]
    if x.shape[-1] != d_model:
        raise ValueError(f"a residual stream of shape {list(x.shape)} does not end in d_model, {d_model}")
    if centred and "ln_final_w" not in weights:
        raise ValueError("centred=True: these weights have no final norm (ln_final_w) that could subtract the mean")
    x = x.astype(jnp.float32)
    centred = "ln_final_b" in weights if centred is None else centred
    return x - x.mean(-1, keepdims=True) if centred else x


def _gain(weights: Weights) -> Array:
    return weights.get("ln_final_w", jnp.ones(())).astype(jnp.float32)


def _shift(weights: Weights) -> Array:
    return weights.get("ln_final_b", jnp.zeros(())).astype(jnp.float32)


def _vocab_bias(weights: Weights) -> Array:
    return weights.get("b_U", jnp.zeros(())).astype(jnp.float32)
