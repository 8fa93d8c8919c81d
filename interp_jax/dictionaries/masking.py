"""What a model attends to and what counts: padding and special tokens, in one meaning for `harvest` and `evaluate`."""

from collections.abc import Callable, Iterable
import inspect
from typing import Any

import jax.numpy as jnp
from jaxtyping import Bool, Int
import numpy as np

Mask = Bool[np.ndarray, "sequence position"]


def sequences(name: str, tokens: Any, mask: Any, *, chunk: bool = False) -> Any:
    """Tokens `[sequence position]` and their mask as numpy has them; None where the tokens are an iterable of chunks.

    Raises:
      ValueError: no integers, another rank, a mask of another shape or dtype; says what to give, in the name of `name`.
    """
    if not hasattr(tokens, "shape"):
        if not isinstance(tokens, list | tuple) or not _are_rows(tokens):
            if chunk:
                raise ValueError(f"{name}: a chunk is tokens [batch position] or a pair of them and their mask")
            return None
        if len({len(row) for row in tokens}) > 1:
            raise ValueError(f"{name}: texts of different lengths; pad them, as models.tokenize does, with its mask")
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
        axes = "[batch position]" if chunk else "[sequence position]"
        raise ValueError(f"{name}: tokens {tokens.dtype} of shape {tokens.shape}; give token ids, integers {axes}")
    mask = np.ones(tokens.shape, bool) if mask is None else np.asarray(mask)
    if mask.shape != tokens.shape:
        raise ValueError(f"{name}: tokens of shape {tokens.shape} and a mask of shape {mask.shape}; they must be one")
    return tokens, mask.astype(bool)


def _are_rows(tokens: Any) -> bool:
    return bool(tokens) and all(
        isinstance(row, list) and all(isinstance(id, int | np.integer) for id in row) for row in tokens
    )


def counted(tokens: Int[np.ndarray, "..."], mask: Bool[np.ndarray, "..."], skip: int | Iterable[int]) -> Mask:
    """Which tokens count: real ones but for those to skip."""
    ids = [skip] if isinstance(skip, int | np.integer) else [id for id in skip if id is not None]
    return mask & ~np.isin(tokens, ids) if ids else mask


def attending(f: Callable[..., Any], mask: Mask | None) -> Callable[[np.ndarray], dict[str, Any]]:
    """How `f` is told what to attend to: a function from the mask of some sequences to keywords of `f`.

    Args:
      f: `(model, tokens)`, which is told if it takes a keyword `attention_mask`; one that
        is bound by `partial` gives way.
      mask: of all sequences, or None where they are not known yet. Where nothing is padding there is nothing to tell.
    """
    told = _takes_mask(f) and not (mask is not None and mask.all())
    return lambda real: {"attention_mask": jnp.asarray(real)} if told else {}


def _takes_mask(f: Callable[..., Any]) -> bool:
    try:
        return "attention_mask" in inspect.signature(f).parameters
    except (TypeError, ValueError):  # of what is built in
        return False
