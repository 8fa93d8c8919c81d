"""`forward`: whole sequences to logits, padding and bad input handled."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from interp_jax.models.blocks import Frame, decode, unembed
from interp_jax.models.decoder import Decoder

Array = jax.Array


def forward(model: Decoder, tokens: Any, *, attention_mask: Any = None, logits_at: Any = None) -> Float[Array, "..."]:
    """The logits of every token, or of one a sequence. Compiled once for each shape.

    Args:
      model: the decoder.
      tokens: int `[position]` or `[batch position]`.
      attention_mask: bool or int, the shape of `tokens`, 0 at padding, which may stand on either side. Each sequence
        gets what it gets alone: positions count its real tokens from 0.
      logits_at: int `[batch]` (`[]` for a single sequence): index along the position axis, padding included, of the
        only token to unembed; negative ones count from the end.

    Returns:
      `[batch position d_vocab]`, or `[batch d_vocab]` with `logits_at`; no batch axis for a single sequence.
      What stands at padding has no meaning.

    Raises:
      ValueError: tokens that are no integers, are outside the vocabulary or longer than n_ctx; a mask or `logits_at`
        of the wrong shape, a mask with a gap, a `logits_at` outside the sequence. Values are checked where they are
        concrete; under a transform a token outside the vocabulary gives NaN.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> tokens, mask = jnp.array([[0, 1, 2], [3, 4, 5]]), jnp.array([[0, 1, 1], [1, 1, 1]])
      >>> models.forward(model, tokens, attention_mask=mask, logits_at=jnp.array([2, 2])).shape
      (2, 20)
    """
    tokens, attention_mask = check_tokens(model, tokens, attention_mask)
    if logits_at is not None:
        logits_at = jnp.asarray(logits_at)
        if logits_at.shape != tokens.shape[:-1] or not jnp.issubdtype(logits_at.dtype, jnp.integer):
            raise ValueError(
                f"forward: logits_at must be integers of shape {tokens.shape[:-1]} for tokens {tokens.shape}, "
                f"not {logits_at.dtype} {logits_at.shape}"
            )
        _check_range("logits_at", logits_at, -tokens.shape[-1], tokens.shape[-1], "index the position axis")
        logits_at = logits_at.astype(jnp.int32)
    return _forward(model, tokens, attention_mask, logits_at)


@jax.jit
def _forward(model: Decoder, tokens: Array, attention_mask: Array | None, logits_at: Array | None) -> Array:
    frame = whole(model, tokens, attention_mask)
    x, _ = decode(model, tokens, frame)
    if logits_at is None:
        return frame.site(unembed(model, x), "logits", "position", "d_vocab")
    index = jnp.where(logits_at < 0, logits_at + tokens.shape[-1], logits_at)[..., None, None]
    x = jnp.take_along_axis(x, index, axis=-2, mode="fill")[..., 0, :]
    return Frame.site(_without_positions(frame), unembed(model, x), "logits", "d_vocab")


def whole(model: Decoder, tokens: Array, attention_mask: Array | None) -> Frame:
    """The frame of a call without a cache."""
    batch, n = ("batch",) * (tokens.ndim - 1), tokens.shape[-1]
    index = jnp.arange(n, dtype=jnp.int32)
    causal = (index[:, None] >= index)[None]
    if attention_mask is None:
        return Frame(model.config, batch, jnp.broadcast_to(index, tokens.shape), causal)
    offset = left_padding(attention_mask)
    mask = causal & attention_mask[..., None, None, :]
    return Frame(model.config, batch, count(attention_mask), mask, offset, offset)


def count(attention_mask: Array) -> Array:
    """Positions of the real tokens, from 0; int32 `[*batch position]`."""
    return jnp.maximum(jnp.cumsum(attention_mask, axis=-1, dtype=jnp.int32) - 1, 0)


def left_padding(attention_mask: Array) -> Array:
    """Position of index 0: minus the number of padding tokens before the first real one; int32 `[*batch]`."""
    return -jnp.argmax(attention_mask, axis=-1).astype(jnp.int32)


def _without_positions(frame: Frame) -> Frame:
    return Frame(frame.config, frame.batch, frame.positions, frame.mask)


def check_tokens(model: Decoder, tokens: Any, attention_mask: Any) -> tuple[Array, Array | None]:
    """int32 tokens and bool mask, or one line that says what is wrong."""
    tokens = jnp.asarray(tokens)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f"tokens must be integers, not {tokens.dtype}; tokenize text with models.tokenize")
    if tokens.ndim not in (1, 2) or not tokens.shape[-1]:
        raise ValueError(
            f"tokens must be [position] or [batch position] with at least one position, not {tokens.shape}"
        )
    n_ctx, d_vocab = model.config.n_ctx, model.config.d_vocab
    if attention_mask is not None:
        attention_mask = jnp.asarray(attention_mask)
        if attention_mask.shape != tokens.shape:
            raise ValueError(f"attention_mask has shape {attention_mask.shape}, but tokens have {tokens.shape}")
        attention_mask = attention_mask.astype(bool)
    longest = tokens.shape[-1]
    if attention_mask is not None and not isinstance(attention_mask, jax.core.Tracer):
        real = np.asarray(attention_mask)
        longest = int(real.sum(-1).max(initial=0))
        if (np.diff(real.astype(np.int8), axis=-1, prepend=0) == 1).sum(-1).max(initial=0) > 1:
            raise ValueError("attention_mask has a gap between real tokens; padding may only stand at the two ends")
    if longest > n_ctx:
        raise ValueError(f"tokens: {longest} positions are more than the model's n_ctx {n_ctx}; shorten the prompts")
    _check_range("tokens", tokens, 0, d_vocab, f"be below d_vocab {d_vocab}; is the tokenizer the model's own?")
    return tokens.astype(jnp.int32), attention_mask


def _check_range(what: str, values: Array, low: int, high: int, remedy: str) -> None:
    if isinstance(values, jax.core.Tracer) or not values.size:
        return
    values = np.asarray(values)
    if values.min() < low or values.max() >= high:
        bad = int(values.min() if values.min() < low else values.max())
        raise ValueError(f"{what}: {bad} is out of range [{low}, {high}); it must {remedy}")
