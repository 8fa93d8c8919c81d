"""What a model attends to and what counts: padding and special tokens, in one meaning for all that reads a corpus."""

from collections.abc import Callable, Iterable
from functools import partial
import inspect
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Bool, Int
import numpy as np

Mask = Bool[np.ndarray, "sequence position"]


@runtime_checkable
class Shaped(Protocol):
    """An array of jax, of numpy or of another library."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def sequences(name: str, tokens: Any, mask: Any, *, chunk: bool = False) -> Any:
    """Tokens `[sequence position]` and their mask as numpy has them; None where the tokens are an iterable of chunks.

    Raises:
      ValueError: no integers, another rank, a mask of another shape or dtype; says what to give, in the name of `name`.
    """
    if not isinstance(tokens, Shaped):
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


def skipped(name: str, skip: Any) -> list[int]:
    """The token ids that are left out, of one or several; None is none, as `tokenizer.bos_id` may be.

    Raises:
      ValueError: something else than ids; in the name of `name`.
    """
    ids = np.asarray(skip).ravel().tolist() if isinstance(skip, Shaped) else skip
    ids = list(ids) if isinstance(ids, Iterable) else [ids]
    ids = [id for id in ids if id is not None]
    if not all(isinstance(id, int | np.integer) and not isinstance(id, bool) for id in ids):
        raise ValueError(f"{name}: skip={skip!r:.60} are no token ids; give such as tokenizer.bos_id")
    return ids


def counted(tokens: Int[np.ndarray, "..."], mask: Bool[np.ndarray, "..."], skip: list[int]) -> Mask:
    """Which tokens count: those that are real and not to be skipped."""
    return mask & ~np.isin(tokens, skip) if skip else mask


def attending(name: str, f: Callable[..., Any], mask: Mask | None) -> Callable[[np.ndarray], dict[str, Any]]:
    """How `f` is told what to attend to: a function from the mask of some sequences to keywords of `f`.

    Args:
      name: of who asks, for errors.
      f: `(model, tokens)`, which is told if it takes a keyword `attention_mask`; one that is bound by `partial` gives
        way.
      mask: of all sequences, or None where they are not known yet. Where nothing is padding there is nothing to tell.

    Raises:
      ValueError: padding before a token, here or where the function is called, and `f` cannot be told; a mask that is
        bound, and no other is given, since it would stay as it is while the sequences change.
    """
    if mask is not None and mask.all():
        if isinstance(f, partial) and f.keywords.get("attention_mask") is not None:
            raise ValueError(f"{name}: f has bound an attention_mask of all sequences; give it as mask= instead")
        return lambda real: {}
    if _takes_mask(f):
        return lambda real: {"attention_mask": jnp.asarray(real)}

    def untold(real: np.ndarray) -> dict[str, Any]:
        if (real[:, 1:] & ~real[:, :-1]).any():
            raise ValueError(
                f"{name}: padding before tokens, which f, without a keyword attention_mask, would attend to; pad on "
                "the right, or let f take it; special tokens are left out by skip="
            )
        return {}

    if mask is not None:
        untold(mask)
    return untold


def _takes_mask(f: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # of what is built in
        return False
    return any(p.name == "attention_mask" or p.kind is p.VAR_KEYWORD for p in parameters)
