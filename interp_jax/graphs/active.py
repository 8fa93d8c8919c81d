"""The features that are active on a prompt, and what they read and write, as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax.graphs.effects import Blocks, bucket
from interp_jax.graphs.placing import Placed

SLOTS = 16  # features in a block


@dataclass(frozen=True)
class Active:
    """The active features, by place, position and number.

    Attributes:
      place: int32 `[feature]`, the place of the layer among all, of sparse heads behind those of MLPs.
      position, index: int32 `[feature]`.
      row: int32 `[feature]`, the feature's row in the tables.
      value: float32 `[feature]`.
    """

    place: np.ndarray
    position: np.ndarray
    index: np.ndarray
    row: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.place)

    def blocks(self, n_positions: int, *, cross: bool) -> tuple[Blocks, np.ndarray]:
        """The features in blocks, and the slot of each, int `[feature]`, of the blocks laid out flat.

        The number of blocks is rounded up by `bucket`.
        """
        group = self.place * n_positions + self.position
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        sizes = np.diff(starts, append=len(group))
        n_blocks = -(-sizes // SLOTS)
        within = np.arange(len(group)) - np.repeat(starts, sizes)
        slot = np.repeat(n_blocks.cumsum() - n_blocks, sizes) * SLOTS + within
        total = bucket(int(n_blocks.sum()))
        rows, value = np.zeros(total * SLOTS, np.int32), np.zeros(total * SLOTS, np.float32)
        rows[slot], value[slot] = self.row, self.value
        place = np.zeros(total, np.int32)
        place[: n_blocks.sum()] = np.repeat((self.position if cross else group)[starts], n_blocks)
        made = Blocks(jnp.asarray(rows.reshape(-1, SLOTS)), jnp.asarray(place), jnp.asarray(value.reshape(-1, SLOTS)))
        return made, slot


def find_active(
    found: Sequence[Placed], written: Sequence[str], layers: Sequence[int], read: Mapping[str, Any], n_first: int
) -> Active:
    """The features that are active on a prompt but for its first positions.

    Args:
      found: the dictionaries.
      written: the sites that they write, in the order of places.
      layers: the numbers of the model's layers.
      read: what is encoded, `[layer position d_in]`, by site.
      n_first: how many positions are left out.
    """
    parts, start = [], 0
    for one in found:
        for layer in range(len(layers)) if one.layer is None else [layers.index(one.layer)]:
            x = read[one.read][layer]
            features = np.array(encoded(one.dictionary, x, None if one.layer is not None else layer))
            features[:n_first] = 0
            position, index = np.nonzero(features)
            place = written.index(one.written) * len(layers) + layer
            parts.append((np.full(len(index), place), position, index, start + index, features[position, index]))
            start += features.shape[-1]
    *places, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    place, position, index, row = (x.astype(np.int32) for x in places)
    return Active(place, position, index, row, value.astype(np.float32))


@jax.jit
def encoded(dictionary: Any, x: jax.Array, layer: Any = None) -> jax.Array:
    """Features in float32 `[position d_sae]` of one layer's inputs; a cross-layer transcoder is told which."""
    found = dictionary.encode(x) if layer is None else dictionary.encode_layer(x, layer)
    return found.astype(jnp.float32)


def tables(found: Sequence[Placed]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of all features, active or not: encoder columns `[row d_in]`, decoder rows `[row d]`, biases `[row]`.

    What a feature of a cross-layer transcoder writes to all layers stands side by side, `layer * d`.
    """
    encoders, decoders, biases = [], [], []
    for one in found:
        dictionary = one.dictionary
        columns = jnp.swapaxes(dictionary.W_enc, -1, -2)
        encoders.append(columns.reshape(-1, columns.shape[-1]))
        zero = dictionary.pre_activations(jnp.zeros((1, *dictionary.input_shape), columns.dtype))
        biases.append(zero.reshape(-1))
        if one.layer is None:
            rows = jnp.moveaxis(dictionary.causal(), 1, 2)  # [layer d_sae to_layer d]
            decoders.append(rows.reshape(-1, rows.shape[-2] * rows.shape[-1]))
        else:
            decoders.append(dictionary.W_dec)
    return jnp.concatenate(encoders), jnp.concatenate(decoders), jnp.concatenate(biases)
