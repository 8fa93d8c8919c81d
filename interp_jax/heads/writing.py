"""What one head writes to the residual stream at given places: the vector that its OV circuit makes of what it saw.

    out[q] = sum_k A[q, k] x_v[k] W_V W_O

Elhage et al. 2021, "A mathematical framework for transformer circuits". Read it as words by
`weights.top_tokens_written`, with `weights.fold_norms` for the scale of the final norm.
Caveat: that is its direct path to the logits; later layers read it too.
"""

from collections.abc import Callable
from typing import Any

from jax import Array
import jax.numpy as jnp

from interp_jax.core import capture, transform


def head_output(f: Callable[..., Any], layer: int, head: int) -> Callable[..., Array]:
    """What a head writes at one position of each text.

    Args:
      f: `(model, tokens [batch position])`, with the site `blocks.attn.result`.
      layer, head: which head.

    Returns:
      `g(model, tokens, position, **kwargs) -> [batch d_model]`, where position is int `[batch]`, counted from the left
      of the row, and the keywords are given to `f`.

    Raises:
      ValueError: a layer or a head that is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import heads, models
      >>> model, _ = models.load("microworld")
      >>> heads.head_output(models.forward, 3, 0)(model, jnp.array([[1, 5, 9]]), jnp.array([2])).shape
      (1, 128)
    """
    return transform(_head_output, (layer, head), f)


def _head_output(options: tuple[int, int], f: Any, model: Any, tokens: Array, position: Array, **kwargs: Any) -> Array:
    layer, head = options
    site = f"blocks.{layer}.attn.result"

    def picked(result: Array) -> Array:
        if not 0 <= head < result.shape[-2]:
            raise ValueError(f"head_output: head={head} of {result.shape[-2]} heads")
        return result[jnp.arange(len(result)), position, head]

    return capture(f, {site: picked}, output=False)(model, tokens, **kwargs)[site]
