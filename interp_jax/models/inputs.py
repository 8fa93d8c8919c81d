"""Bad input, caught before anything runs and said in one line."""

from typing import Any

import jax
from jax.core import Tracer
import jax.numpy as jnp
import numpy as np

from interp_jax.models.config import Config

Array = jax.Array


def check_tokens(config: Config, tokens: Any, attention_mask: Any) -> tuple[Any, Any]:
    """int32 tokens and bool mask, or one line that says what is wrong. What was in numpy stays there."""
    tokens = tokens if isinstance(tokens, jax.Array) else np.asarray(tokens)
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f"tokens must be integers, not {tokens.dtype}; tokenize text with models.tokenize")
    if tokens.ndim not in (1, 2) or not tokens.shape[-1]:
        raise ValueError(
            f"tokens must be [position] or [batch position] with at least one position, not {tokens.shape}"
        )
    n_ctx, d_vocab = config.n_ctx, config.d_vocab
    if attention_mask is not None:
        attention_mask = attention_mask if isinstance(attention_mask, jax.Array) else np.asarray(attention_mask)
        if attention_mask.shape != tokens.shape:
            raise ValueError(f"attention_mask has shape {attention_mask.shape}, but tokens have {tokens.shape}")
        attention_mask = attention_mask.astype(bool)
    longest = tokens.shape[-1]
    if attention_mask is not None and not isinstance(attention_mask, Tracer):
        real = np.asarray(attention_mask)
        longest = int(real.sum(-1).max(initial=0))
        if (np.diff(real.astype(np.int8), axis=-1, prepend=0) == 1).sum(-1).max(initial=0) > 1:
            raise ValueError("attention_mask has a gap between real tokens; padding may only stand at the two ends")
    if longest > n_ctx:
        raise ValueError(f"tokens: {longest} positions are more than the model's n_ctx {n_ctx}; shorten the prompts")
    check_range("tokens", tokens, 0, d_vocab, f"be below d_vocab {d_vocab}; is the tokenizer the model's own?")
    return tokens.astype(np.int32), attention_mask


def check_types(config: Config, tokens: Any, token_types: Any) -> Any:
    """int32 token types of an encoder, or None."""
    if token_types is None:
        return None
    if not config.n_types:
        raise ValueError("token_types: a decoder has none; leave them out")
    token_types = token_types if isinstance(token_types, jax.Array) else np.asarray(token_types)
    if token_types.shape != tokens.shape or not jnp.issubdtype(token_types.dtype, jnp.integer):
        raise ValueError(
            f"token_types must be integers of shape {tokens.shape}, not {token_types.dtype} {token_types.shape}"
        )
    check_range("token_types", token_types, 0, config.n_types, f"be below n_types {config.n_types}")
    return token_types.astype(np.int32)


def check_range(what: str, values: Any, low: int, high: int, remedy: str) -> None:
    """Where the values are concrete, each must be in `[low, high)`."""
    if isinstance(values, Tracer) or not values.size:
        return
    values = np.asarray(values)
    if values.min() < low or values.max() >= high:
        bad = int(values.min() if values.min() < low else values.max())
        raise ValueError(f"{what}: {bad} is out of range [{low}, {high}); it must {remedy}")
