"""The layers of a model, the embeddings first, as the probes of these experiments read them."""

from collections.abc import Callable
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import models

ROOT = Path(__file__).resolve().parents[1]


def data(folder: str) -> Path:
    """A folder of real data sets: in $INTERP_JAX_DATA, or in `shared/data` beside this repository.

    Raises:
      FileNotFoundError: it is not there.
    """
    where = Path(os.environ.get("INTERP_JAX_DATA", ROOT.parent / "shared" / "data")) / folder
    if not where.is_dir():
        raise FileNotFoundError(f"{where}: no such folder; say by INTERP_JAX_DATA where the data sets are")
    return where


def layers(
    model: Any, tokens: Any, mask: Any, pick: Callable[[jax.Array], jax.Array] = lambda x: x, chunk: int = 16
) -> np.ndarray:
    """What every layer gives on, float32 `[layer batch ...]`; layer 0 is the embeddings.

    Args:
      model: a decoder or an encoder.
      tokens, mask: `[batch position]`.
      pick: what is kept of `[batch position d_model]`.
      chunk: how many sequences are run at once.
    """
    after = f"blocks.{'normalized_resid_post' if model.config.norms == 'residual' else 'resid_post'}"
    before = "blocks.0.resid_pre"
    read = ij.capture(models.hidden, {before: pick, after: pick}, output=False)
    parts = []
    for at in range(0, len(tokens), chunk):
        rows = np.minimum(np.arange(at, at + chunk), len(tokens) - 1)  # of one size: one program
        acts = read(model, jnp.asarray(tokens)[rows], attention_mask=jnp.asarray(mask)[rows])
        parts.append(np.concatenate([np.asarray(acts[before], np.float32)[None], np.asarray(acts[after], np.float32)]))
    return np.concatenate(parts, axis=1)[:, : len(tokens)]


def of_one_size(x: np.ndarray) -> np.ndarray:
    """Every state at a root mean square of 1: later layers of a decoder are larger, and a mix would weigh size."""
    return x / np.maximum(np.sqrt((x * x).mean(-1, keepdims=True)), 1e-6)
