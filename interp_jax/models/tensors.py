"""Parts of checkpoint tensors as our parameters, and back: transposed, split, head by head, a slice at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from interp_jax.models.families import Rename

Shape = tuple[int, ...]
Index = tuple[slice, ...]


@dataclass(frozen=True)
class Source:
    """Where one of our parameters stands in a checkpoint.

    Attributes:
      file, name: the tensor.
      rename: its rule.
      part: which of `rename.ours` it is.
      shapes: those of all of them.
    """

    file: Path
    name: str
    rename: Rename
    part: int
    shapes: tuple[Shape, ...]

    def read(self, index: Index | None = None, dtype: Any = None) -> np.ndarray:
        """The parameter, or a slice of it along the first of its input or output axes.

        Only what is needed leaves the disk, a block at a time, so that little more than the result is in memory.

        Raises:
          ValueError: the tensor's shape does not fit the config.
        """
        shape = self.shapes[self.part]
        index = index or tuple(slice(None) for _ in shape)
        with safetensors.safe_open(self.file, "numpy") as f:
            tensor = f.get_slice(self.name)
            n_in = _n_in(self.rename)
            self._check(tuple(tensor.get_shape()), n_in)
            rows, columns = _range(shape[:n_in], index[:n_in]), _range(shape[n_in:], index[n_in:])
            blocks = self._blocks(tensor, n_in, rows, columns)
            first = next(blocks)
            out = np.empty((rows.stop - rows.start, columns.stop - columns.start), dtype or first[1].dtype)
            for at, block in itertools.chain([first], blocks):
                out[at] = block
        return out.reshape(*_taken(shape[:n_in], rows), *_taken(shape[n_in:], columns))

    def _blocks(self, tensor: Any, n_in: int, rows: slice, columns: slice) -> Iterator[tuple[Any, np.ndarray]]:
        """(where, values) of the matrix [rows columns], as the blocks of the tensor come."""
        shape, n_parts = self.shapes[self.part], len(self.shapes)
        if self.rename.interleaved:  # head by head: that of each of the parts, in turn
            width = math.prod(shape[n_in + 1 :])
            for at in _steps(columns.stop - columns.start, width):
                here = slice((columns.start + at.start) * n_parts, (columns.start + at.stop) * n_parts)
                block = tensor[here, rows] if n_in else tensor[here]
                heads = block.reshape(-1, n_parts, width, rows.stop - rows.start)
                yield (slice(None), at), heads[:, self.part].reshape(-1, heads.shape[-1]).T
            return
        before = sum(math.prod(other[n_in:]) for other in self.shapes[: self.part])
        columns = slice(before + columns.start, before + columns.stop)
        if not n_in:
            yield ..., tensor[columns]
        elif self.rename.transpose:
            for at in _steps(columns.stop - columns.start):
                yield (slice(None), at), tensor[columns.start + at.start : columns.start + at.stop, rows].T
        else:
            for at in _steps(rows.stop - rows.start):
                yield at, tensor[rows.start + at.start : rows.start + at.stop, columns]

    def _check(self, found: Shape, n_in: int) -> None:
        inputs = math.prod(self.shapes[0][:n_in])
        outputs = sum(math.prod(shape[n_in:]) for shape in self.shapes)
        want = (outputs,) if not n_in else (outputs, inputs) if self.rename.transpose else (inputs, outputs)
        if found != want:
            raise ValueError(f"{self.file}: {self.name} has shape {found}, which does not fit config.json: {want}")


def join(parts: Sequence[np.ndarray], rename: Rename) -> np.ndarray:
    """The checkpoint's tensor of our parameters: the inverse of `Source.read`."""
    n_in = _n_in(rename)
    matrices = [part.reshape(math.prod(part.shape[:n_in]), *part.shape[n_in:]) for part in parts]
    if rename.interleaved:
        joined = np.stack([m.reshape(m.shape[0], parts[0].shape[n_in], -1) for m in matrices], axis=2)
    else:
        joined = np.concatenate([m.reshape(m.shape[0], -1) for m in matrices], axis=1)
    joined = joined.reshape(joined.shape[0], -1)
    if rename.vector:
        return joined[0]
    return np.ascontiguousarray(joined.T if rename.transpose else joined)


def _n_in(rename: Rename) -> int:
    """How many of our axes are inputs: none of a vector's, two of w_o's `[head d_head d_model]`, one of the others'."""
    return 0 if rename.vector else 2 if rename.ours[0].endswith(".w_o") else 1


def _range(shape: Shape, index: Index) -> slice:
    """The elements of flattened axes that a slice of the first of them takes."""
    if not shape:
        return slice(0, 1)
    start, stop, _ = index[0].indices(shape[0])
    rest = math.prod(shape[1:])
    return slice(start * rest, stop * rest)


def _taken(shape: Shape, taken: slice) -> Shape:
    """The shape of axes of whose flattened elements `taken` was taken."""
    rest = math.prod(shape[1:])
    return ((taken.stop - taken.start) // rest, *shape[1:]) if shape else ()


def _steps(n: int, unit: int = 1) -> Iterator[slice]:
    """A small part of `n` at a time, in whole units."""
    step = max(n // unit // 32, 1) * unit
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
