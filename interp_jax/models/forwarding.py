"""`forward`: tokens to logits, and `hidden`: tokens to hidden states, for a decoder and for an encoder."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interp_jax.models.config import Config
from interp_jax.models.frame import whole
from interp_jax.models.inputs import check_range, check_tokens, check_types

Array = jax.Array


def forward(
    model: Any, tokens: Any, *, attention_mask: Any = None, logits_at: Any = None, token_types: Any = None
) -> Float[Array, "... d_vocab"]:
    """The logits of every token, or of one a sequence. Compiled once for each shape.

    Args:
      model: a `Decoder` or an `Encoder`; any other is a guest (see `tag`), and called with what is given.
      tokens: int `[position]` or `[batch position]`.
      attention_mask: bool or int, the shape of `tokens`, 0 at padding, which may stand on either side. Each sequence
        gets what it gets alone: positions count its real tokens from 0.
      logits_at: int `[batch]` (`[]` for a single sequence): index along the position axis, padding included, of the
        only token to unembed; negative ones count from the end.
      token_types: int, the shape of `tokens`, below n_types; of an encoder, by default 0.

    Returns:
      `[batch position d_vocab]`, or `[batch d_vocab]` with `logits_at`; no batch axis for a single sequence.
      What stands at padding has no meaning.

    Raises:
      ValueError: a model without an unembedding; tokens that are no integers, are outside the vocabulary or longer
        than n_ctx; a mask or `logits_at` of the wrong shape, a mask with a gap, a `logits_at` outside the sequence;
        token types for a decoder. Values are checked where they are concrete; under a transform a token outside the
        vocabulary gives NaN.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> tokens, mask = jnp.array([[0, 1, 2], [3, 4, 5]]), jnp.array([[0, 1, 1], [1, 1, 1]])
      >>> models.forward(model, tokens, attention_mask=mask, logits_at=jnp.array([2, 2])).shape
      (2, 20)
    """
    if not isinstance(getattr(model, "config", None), Config):
        options = {"attention_mask": attention_mask, "logits_at": logits_at, "token_types": token_types}
        return model(tokens, **{name: value for name, value in options.items() if value is not None})
    if model.config.headless:
        raise ValueError(
            "forward: this model has no unembedding, and so no logits; models.hidden(model, tokens) returns its last "
            "hidden states, and has the same sites"
        )
    tokens, attention_mask, token_types = _checked(model, tokens, attention_mask, token_types)
    if logits_at is not None:
        logits_at = jnp.asarray(logits_at)
        if logits_at.shape != tokens.shape[:-1] or not jnp.issubdtype(logits_at.dtype, jnp.integer):
            raise ValueError(
                f"forward: logits_at must be integers of shape {tokens.shape[:-1]} for tokens {tokens.shape}, "
                f"not {logits_at.dtype} {logits_at.shape}"
            )
        check_range("logits_at", logits_at, -tokens.shape[-1], tokens.shape[-1], "index the position axis")
        logits_at = logits_at.astype(jnp.int32)
    return _forward(model, tokens, attention_mask, logits_at, token_types)


def hidden(
    model: Any, tokens: Any, *, attention_mask: Any = None, token_types: Any = None
) -> Float[Array, "... d_model"]:
    """The last hidden states: what the unembedding reads, or would, of a model without one. Compiled once for each
    shape. A decoder's are those after its last norm.

    Args:
      model: a `Decoder` or an `Encoder`.
      tokens, attention_mask, token_types: as in `forward`.

    Returns:
      `[batch position d_model]`; no batch axis for a single sequence. What stands at padding has no meaning.

    Raises:
      ValueError: as `forward`.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=2, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8, headless=True)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> models.hidden(model, jnp.array([0, 1, 2])).shape
      (3, 8)
      >>> acts = ij.capture(models.hidden, "blocks.resid_post", output=False)(model, jnp.array([0, 1, 2]))
      >>> acts["blocks.resid_post"].shape
      (2, 3, 8)
    """
    return _hidden(model, *_checked(model, tokens, attention_mask, token_types))


def _checked(model: Any, tokens: Any, attention_mask: Any, token_types: Any) -> tuple[Any, Any, Any]:
    tokens, attention_mask = check_tokens(model.config, tokens, attention_mask)
    return tokens, attention_mask, check_types(model.config, tokens, token_types)


@jax.jit
def _hidden(model: Any, tokens: Array, attention_mask: Array | None, token_types: Array | None) -> Array:
    return model.hidden(tokens, token_types, whole(model.config, tokens, attention_mask, causal=model.causal))


@jax.jit
def _forward(
    model: Any, tokens: Array, attention_mask: Array | None, logits_at: Array | None, token_types: Array | None
) -> Array:
    frame = whole(model.config, tokens, attention_mask, causal=model.causal)
    x = model.hidden(tokens, token_types, frame)
    axes = (*frame.batch, "position")
    if logits_at is not None:
        index = jnp.where(logits_at < 0, logits_at + tokens.shape[-1], logits_at)[..., None, None]
        x = jnp.take_along_axis(x, index, axis=-2, mode="fill")[..., 0, :]
        axes = frame.batch
    return model.unembed(x, axes, frame.places)
