"""Where the features of a dictionary fire in a text, stored sparsely and sorted by feature.

A dictionary with k active features fires k times a token, so that a million tokens fit in memory where the dense
`[token d_sae]` would not.
"""

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float
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

    @property
    def counts(self) -> np.ndarray:
        """int64 `[d_sae]`, how often each feature fires."""
        return np.diff(self.starts)

    @property
    def densities(self) -> np.ndarray:
        """float64 `[d_sae]`, the share of tokens on which each feature fires."""
        return self.counts / max(self.n_tokens, 1)

    def of(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """The places and values of one feature."""
        here = slice(self.starts[feature], self.starts[feature + 1])
        return self.places[here], self.values[here]

    def dense(self, feature: int) -> np.ndarray:
        """float32 `[sequence position]`, zero where the feature does not fire."""
        out = np.zeros(self.shape[0] * self.shape[1], np.float32)
        places, values = self.of(feature)
        out[places] = values
        return out.reshape(self.shape)


def firings(
    dictionary: Any,
    activations: Float[np.ndarray | Array, "sequence position d_in"],
    mask: Bool[np.ndarray | Array, "sequence position"],
    *,
    batch_size: int = 32,
) -> Firings:
    """Encodes activations and sorts what fires.

    Args:
      dictionary: with `encode_sparse`.
      activations: `[sequence position d_in]`.
      mask: `[sequence position]`, False at padding and special tokens, which are left out.
      batch_size: sequences that are encoded at once.

    Example:
      >>> import jax, numpy as np
      >>> from interp_jax import dictionaries, report
      >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
      >>> x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
      >>> found = report.firings(dictionary, x, np.ones((2, 5), bool))
      >>> found.shape, len(found.counts), bool(found.counts.sum() <= 2 * 5 * 4)
      ((2, 5), 32, True)
    """
    encode = jax.jit(lambda dictionary, x: dictionary.encode_sparse(x))
    n_sequences, n_positions = mask.shape
    places, features, values = [], [], []
    for start in range(0, n_sequences, batch_size):
        value, index = jax.device_get(encode(dictionary, jnp.asarray(activations[start : start + batch_size])))
        keep = (value > 0) & np.asarray(mask[start : start + batch_size])[..., None]
        sequence, position, _ = np.nonzero(keep)
        places.append(((sequence + start) * n_positions + position).astype(np.int32))
        features.append(index[keep])
        values.append(value[keep])
    feature = np.concatenate(features)
    order = np.argsort(feature, kind="stable")
    starts = np.searchsorted(feature[order], np.arange(dictionary.d_sae + 1))
    return Firings(
        np.concatenate(places)[order],
        np.concatenate(values)[order],
        starts,
        (n_sequences, n_positions),
        int(np.asarray(mask).sum()),
    )
