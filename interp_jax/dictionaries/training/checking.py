"""Batches of training, checked at the door: structure, shapes and dtypes."""

from typing import Any

from jax import Array
import jax.numpy as jnp

from interp_jax.dictionaries.kinds.base import Dictionary


def check_batch(dictionary: Dictionary, batch: Any) -> None:
    """Checks a batch of training at the door.

    Raises:
      ValueError: it is a pair where one array is wanted or the other way round, has other axes than
        `[n *input_shape]` or, of what reads sequences, `[n position d_in]`, is empty, or holds integers; says what to
        give.
    """
    kind, axes = type(dictionary).__name__, ("n", "position")[: 1 + dictionary.reads_sequence]
    wanted = ", ".join((*axes, *map(str, dictionary.input_shape)))
    if isinstance(batch, tuple) != dictionary.reads_pair or isinstance(batch, dict):
        one = f"one array [{wanted}]: it reconstructs what it reads; a transcoder takes pairs"
        pair = f"a pair (inputs [{wanted}], targets): it reads one site and reconstructs another"
        raise ValueError(
            f"{kind}: a batch is {pair if dictionary.reads_pair else one}; this one is {_described(batch)}"
            + (", as harvest gives it for two sites" if dictionary.reads_pair else "")
        )
    x, *targets = batch if dictionary.reads_pair else (batch,)
    if x.ndim != len(axes) + len(dictionary.event) or x.shape[len(axes) :] != dictionary.input_shape or not x.size:
        one = "one row for each token, as harvest gives them"
        rows = "whole sequences, which harvest takes apart" if dictionary.reads_sequence else one
        raise ValueError(
            f"{kind}: a batch of shape {x.shape}, wanted [{wanted}], n at least 1, with the axes "
            f"{', '.join((*axes, *dictionary.event))}: {rows}"
        )
    out = (*x.shape[:-1], dictionary.W_dec.shape[-1])
    if targets and (len(targets) != 1 or targets[0].shape != out):
        told = ", ".join(str(y.shape) for y in targets)
        raise ValueError(f"{kind}: targets of shape {told} for inputs {x.shape}, wanted {out}")
    for part in (x, *targets):
        if not jnp.issubdtype(part.dtype, jnp.floating):
            raise ValueError(f"{kind}: a batch of {part.dtype}; give activations, float32 or bfloat16")


def _described(batch: Any) -> str:
    if isinstance(batch, tuple):
        return f"a tuple of {len(batch)}"
    return f"an array of shape {batch.shape}" if isinstance(batch, Array) else f"a {type(batch).__name__}"
