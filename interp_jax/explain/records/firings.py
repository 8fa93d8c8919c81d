"""Where the features of a dictionary fire in a text, stored sparsely and sorted by feature.

A dictionary with k active features fires k times a token, so that a million tokens fit in memory where the dense
`[token d_sae]` would not. Of any kind: features of several layers are numbered one after the other, layer by layer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Firings:
    """All positive activations, sorted by feature and then by place.

    Attributes:
      places: int32 `[firing]`, flat index of the token, `sequence * n_positions + position`.
      values: float32 `[firing]`.
      starts: int64 `[d_sae + 1]`, where each feature's firings begin.
      shape: `(sequences, positions)` of the tokens.
      n_tokens: tokens that count: neither padding nor special.
    """

    places: np.ndarray
    values: np.ndarray
    starts: np.ndarray
    shape: tuple[int, int]
    n_tokens: int

    @classmethod
    def of_batches(cls, batches: Iterable[tuple[np.ndarray, ...]], n_features: int, mask: np.ndarray) -> "Firings":
        """Firings of batches in the order of the text, `(features, places, values)` each.

        `mask`, bool `[sequence position]`, says which tokens count.
        """
        features, places, values = (np.concatenate(column) for column in zip(*batches, strict=True))
        order = np.argsort(features, kind="stable")
        starts = np.searchsorted(features[order], np.arange(n_features + 1))
        n_sequences, n_positions = mask.shape
        return cls(places[order], values[order], starts, (n_sequences, n_positions), int(mask.sum()))

    @property
    def counts(self) -> np.ndarray:
        """How often each feature fires, int64 `[d_sae]`."""
        return np.diff(self.starts)

    @property
    def densities(self) -> np.ndarray:
        """The share of tokens on which each feature fires, float64 `[d_sae]`."""
        return self.counts / max(self.n_tokens, 1)

    def of(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """The places and values of one feature."""
        here = slice(self.starts[feature], self.starts[feature + 1])
        return self.places[here], self.values[here]

    def dense(self, feature: int) -> np.ndarray:
        """The values of one feature, float32 `[sequence position]`, zero where the feature does not fire."""
        out = np.zeros(self.shape[0] * self.shape[1], np.float32)
        places, values = self.of(feature)
        out[places] = values
        return out.reshape(self.shape)


def firings(dictionary: Any, activations: Any, mask: Any = None, *, batch_size: int = 32) -> Firings:
    """Encodes activations and sorts what fires.

    Args:
      dictionary: of any kind. Of one whose features have a sign, such as `PCA`, the positive ones fire.
      activations: `[sequence position d_in]`; `[sequence position site d_in]` for what reads several sites.
      mask: `[sequence position]`, False at padding and special tokens, which are left out; None: all count.
      batch_size: sequences that are encoded at once, densely.

    Raises:
      ValueError: activations of another shape than the dictionary's inputs, or a mask of another than the tokens'.

    Example:
      >>> import jax, numpy as np
      >>> from interp_jax import dictionaries, explain
      >>> dictionary = dictionaries.ReLU.create(jax.random.key(0), d_in=8, d_sae=32)
      >>> x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
      >>> found = explain.firings(dictionary, x)
      >>> found.shape, len(found.counts), int(found.counts.sum()) == int((dictionary.encode(x) > 0).sum())
      ((2, 5), 32, True)
    """
    activations = np.asarray(activations) if isinstance(activations, list) else activations
    n_axes = 2 + len(dictionary.input_shape)
    if activations.ndim != n_axes or activations.shape[2:] != dictionary.input_shape or 0 in activations.shape:
        wanted = ", ".join(("sequence", "position", *map(str, dictionary.input_shape)))
        raise ValueError(f"firings: activations of shape {tuple(activations.shape)}, wanted [{wanted}], not empty")
    mask = np.ones(activations.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    if mask.shape != activations.shape[:2]:
        raise ValueError(f"firings: a mask of shape {mask.shape} for tokens {activations.shape[:2]}; they must be one")
    encode = jax.jit(lambda dictionary, x: dictionary.encode(x).reshape(*x.shape[:2], -1))
    n_sequences, n_positions = mask.shape
    batches = []
    for start in range(0, n_sequences, batch_size):
        dense = np.asarray(encode(dictionary, jnp.asarray(activations[start : start + batch_size])), np.float32)
        found = np.nonzero((dense > 0) & mask[start : start + batch_size, :, None])
        places = ((found[0] + start) * n_positions + found[1]).astype(np.int32)
        batches.append((found[2], places, dense[found]))
    return Firings.of_batches(batches, math.prod(dictionary.feature_shape), mask)
