"""All firings in some rows of a corpus that are drawn by chance: a small corpus that stands for the whole."""

from dataclasses import dataclass, replace

import numpy as np

from interp_jax.explain.records.firings import Firings
from interp_jax.explain.records.tallies import Part

MOST = 8_000_000  # firings that are held, in as many rows as have no more


@dataclass(frozen=True)
class Held:
    """The firings of the first rows of a random order, as many rows as have no more than `MOST` firings together.

    Attributes:
      rank: int64 `[sequence]`, the place of each row in the order.
      n_rows: int64 `[]`, rows from the beginning of the order that are held.
      units, places, values: of the firings, in the order in which they were read.
    """

    rank: np.ndarray
    n_rows: np.ndarray
    units: np.ndarray
    places: np.ndarray
    values: np.ndarray

    @classmethod
    def none(cls, mask: np.ndarray, n_tokens: int, seed: int) -> "Held":
        """Before any row was read: the order, and how many rows of it have `n_tokens` tokens that count.

        `mask` is bool `[sequence position]`, of what counts.
        """
        order = np.random.default_rng((seed, 2)).permutation(len(mask))
        rank = np.empty(len(mask), np.int64)
        rank[order] = np.arange(len(mask))
        n_rows = 1 + np.searchsorted(np.cumsum(mask[order].sum(1)), n_tokens)
        whole = np.zeros(0, np.int64)
        return cls(rank, np.array(min(n_rows, len(mask))), whole, whole, np.zeros(0, np.float32))

    def add(self, part: Part) -> "Held":
        """With the firings of further rows."""
        here = self.rank[part.places // part.n_positions] < self.n_rows
        units = np.append(self.units, part.units[here])
        places = np.append(self.places, part.places[here])
        values = np.append(self.values, part.values[here])
        held = replace(self, units=units, places=places, values=values)
        if len(values) <= MOST:
            return held
        rank = self.rank[places // part.n_positions]
        n_rows = np.searchsorted(np.cumsum(np.bincount(rank, minlength=int(self.n_rows))), MOST, side="right")
        kept = rank < max(n_rows, 1)
        kept_rows = np.array(max(n_rows, 1))
        return Held(self.rank, kept_rows, units[kept], places[kept], values[kept])

    @property
    def rows(self) -> np.ndarray:
        """The rows that are held, int64 `[row]`, in the order of the corpus."""
        return np.flatnonzero(self.rank < self.n_rows)

    def firings(self, n_units: int, mask: np.ndarray) -> Firings:
        """What is held, as a corpus of its own, whose rows are `rows`."""
        rows, n_positions = self.rows, mask.shape[1]
        row, position = np.divmod(self.places, n_positions)
        places = (np.searchsorted(rows, row) * n_positions + position).astype(np.int32)
        order = np.argsort(places, kind="stable")
        return Firings.of_batches([(self.units[order], places[order], self.values[order])], n_units, mask[rows])
