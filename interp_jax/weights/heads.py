"""Heads from their weights alone: the OV and QK circuits, how heads compose, and which tokens they read and write.

    OV = W_V W_O,  QK = W_Q W_K^T,  composition of A before B = |OV_A M_B| / (|OV_A| |M_B|)

with M_B = QK_B (queries: A feeds B's query), QK_B^T (keys) or OV_B (values), Frobenius norms. Elhage et al. 2021, "A
mathematical framework for transformer circuits".
Caveat: norms and rotary positions stand between the factors; fold the norms first (`weights.fold_norms`), and take QK
of a rotary model as that of distance 0. A composition score means little but beside those of random matrices.
"""

from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float, Int

from interp_jax.weights.views import Weights, check_decoder, per_head, unembedding


def ov_circuits(weights: Weights) -> Float[Typed, "layer head d_model d_model_out"]:
    """What each head writes when it looks at a residual vector: `x @ OV`, float32 `[layer head d_model d_model]`.

    Args:
      weights: `models.weights(model)`; heads that share a key-value head share its `W_V`.

    Example:
      >>> from interp_jax import models, weights
      >>> weights.ov_circuits(models.weights(models.load("microworld")[0])).shape
      (4, 4, 128, 128)
    """
    return jnp.einsum("lhmd,lhdn->lhmn", per_head(weights, "W_V"), per_head(weights, "W_O"))


def qk_circuits(weights: Weights) -> Float[Typed, "layer head d_model d_model_out"]:
    """What each head looks for: its score is `query @ QK @ key` before scaling. float32 `[layer head d_model d_model]`.

    Example:
      >>> from interp_jax import models, weights
      >>> weights.qk_circuits(models.weights(models.load("microworld")[0])).shape
      (4, 4, 128, 128)
    """
    return jnp.einsum("lhmd,lhnd->lhmn", per_head(weights, "W_Q"), per_head(weights, "W_K"))


def composition_scores(weights: Weights, kind: str) -> Float[Typed, "layer head layer_to head_to"]:
    """How much of what a head writes is read by each head of a later layer.

    Computed by inner products of the factors, so that no matrix of d_model by d_model is made.

    Args:
      weights: `models.weights(model)`.
      kind: "Q", "K" or "V": what of the later head reads.

    Returns:
      float32 `[layer head layer_to head_to]` between 0 and 1; 0 where `layer_to` is not later, or a head is all zeros.

    Raises:
      ValueError: another kind.

    Example:
      >>> from interp_jax import models, weights
      >>> weights.composition_scores(models.weights(models.load("microworld")[0]), "K").shape
      (4, 4, 4, 4)
    """
    pairs = {"Q": ("W_Q", "W_K"), "K": ("W_K", "W_Q"), "V": ("W_V", "W_O")}
    if kind not in pairs:
        raise ValueError(f"composition_scores: kind={kind!r} is none of 'Q', 'K', 'V'")
    read, other = (per_head(weights, name) for name in pairs[kind])
    other = other if kind == "V" else jnp.swapaxes(other, -1, -2)  # [layer head d_head d_model]
    value, out = per_head(weights, "W_V"), per_head(weights, "W_O")
    # |A B C D|^2 = tr((A^T A) (B C) (D D^T) (B C)^T), all of them d_head by d_head.
    middle = jnp.einsum("lhdm,kgme->lhkgde", out, read)
    left, right = _gram(jnp.swapaxes(value, -1, -2)), _gram(other)
    both = jnp.einsum("lhdc,lhkgce,kgef,lhkgdf->lhkg", left, middle, right, middle)
    norm_a = jnp.einsum("lhdc,lhcd->lh", left, _gram(out))
    norm_b = jnp.einsum("lhdc,lhcd->lh", _gram(jnp.swapaxes(read, -1, -2)), right)
    norms = norm_a[:, :, None, None] * norm_b
    scores = jnp.sqrt(jnp.maximum(both, 0) / jnp.where(norms > 0, norms, 1))
    layers = jnp.arange(len(out))
    return jnp.where((layers[:, None] < layers)[:, None, :, None], scores, 0)


def top_tokens_written(
    weights: Weights, vectors: Float[Typed, "*axes d_model"], k: int = 10
) -> tuple[Float[Typed, "*axes k"], Int[Typed, "*axes k"]]:
    """The tokens whose logits a vector of the residual stream raises most: (values, token ids), each `[... k]`.

    Raises:
      ValueError: a `k` that is not between 1 and d_vocab; a headless model's weights, or an encoder's, whose head has
        an activation.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import weights
      >>> weights.top_tokens_written({"W_U": jnp.eye(3)}, jnp.array([0.0, 2.0, 1.0]), k=2)[1].tolist()
      [1, 2]
    """
    check_decoder("top_tokens_written", weights)
    return _top(vectors.astype(jnp.float32) @ unembedding("top_tokens_written", weights), k)


def top_tokens_read(
    weights: Weights, vectors: Float[Typed, "*axes d_model"], k: int = 10
) -> tuple[Float[Typed, "*axes k"], Int[Typed, "*axes k"]]:
    """The tokens whose embeddings lie most along a vector that is read: (values, token ids), each `[... k]`.

    Raises:
      ValueError: a `k` that is not between 1 and d_vocab.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import weights
      >>> weights.top_tokens_read({"W_E": jnp.eye(3)}, jnp.array([0.0, 2.0, 1.0]), k=1)[1].tolist()
      [1]
    """
    return _top(vectors.astype(jnp.float32) @ weights["W_E"].astype(jnp.float32).T, k)


def _top(values: Array, k: int) -> tuple[Array, Array]:
    if not 1 <= k <= values.shape[-1]:
        raise ValueError(f"k={k} is not between 1 and d_vocab, {values.shape[-1]}")
    best, tokens = lax.top_k(values, k)
    return best, tokens


def _gram(x: Array) -> Array:
    return jnp.einsum("...dm,...em->...de", x, x)
