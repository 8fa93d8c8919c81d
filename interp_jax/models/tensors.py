"""Parts of checkpoint tensors as our parameters, and back: transposed, split, head by head, a slice at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import itertools
import math
from typing import Any

import numpy as np

from interp_jax.models.families import Rename

Shape = tuple[int, ...]
Index = tuple[slice, ...]
_BLOCK = 1 << 15  # values that are worth a read of their own


@dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint of any format, still on the disk.

    Attributes:
      where: its file and its name there, for errors.
      shape: of the whole tensor.
      read: one slice an axis -> these values; nothing else is read.
    """

    where: str
    shape: Shape
    read: Callable[[Index], np.ndarray]


@dataclass(frozen=True)
class Held:
    """A parameter that is in memory already, in our layout."""

    array: Any

    def read(self, index: Index | None = None, dtype: Any = None) -> np.ndarray:
        """The parameter, or a slice of it."""
        taken = np.asarray(self.array if index is None else self.array[index])
        out = aligned(taken.shape, dtype or taken.dtype)
        out[...] = taken
        return out


@dataclass(frozen=True)
class Source:
    """Where one of our parameters stands in a checkpoint.

    Attributes:
      tensor: the tensor that it is, or is a part of.
      rename: the tensor's rule.
      part: which of `rename.ours` it is.
      shapes: those of all of them.
    """

    tensor: Tensor
    rename: Rename
    part: int
    shapes: tuple[Shape, ...]

    def read(self, index: Index | None = None, dtype: Any = None) -> np.ndarray:
        """The parameter, or a slice of it along the first of its input or output axes.

        Only what is needed leaves the disk, a block at a time, so that little more than the result is in memory.

        Raises:
          ValueError: the tensor's shape does not fit the config.
        """
        shape, n_in = self.shapes[self.part], _n_in(self.rename)
        index = index or tuple(slice(None) for _ in shape)
        self._check(n_in)
        rows, columns = _range(shape[:n_in], index[:n_in]), _range(shape[n_in:], index[n_in:])
        blocks = self._blocks(n_in, rows, columns)
        first = next(blocks)
        out = aligned((rows.stop - rows.start, columns.stop - columns.start), dtype or first[1].dtype)
        for at, block in itertools.chain([first], blocks):
            out[at] = block
        return out.reshape(*_taken(shape[:n_in], rows), *_taken(shape[n_in:], columns))

    def _blocks(self, n_in: int, rows: slice, columns: slice) -> Iterator[tuple[Any, np.ndarray]]:
        """(where, values) of the matrix [rows columns], as the blocks of the tensor come."""
        shape, n_parts, read = self.shapes[self.part], len(self.shapes), self.tensor.read
        if self.rename.interleaved:  # head by head: that of each of the parts, in turn
            width = math.prod(shape[n_in + 1 :])
            for at in _steps(columns.stop - columns.start, rows.stop - rows.start, width):
                here = slice((columns.start + at.start) * n_parts, (columns.start + at.stop) * n_parts)
                block = read((here, rows) if n_in else (here,))
                heads = block.reshape(-1, n_parts, width, rows.stop - rows.start)
                yield (slice(None), at), heads[:, self.part].reshape(-1, heads.shape[-1]).T
            return
        before = sum(math.prod(other[n_in:]) for other in self.shapes[: self.part])
        columns = slice(before + columns.start, before + columns.stop)
        if not n_in:
            yield ..., read((columns,))
        elif self.rename.transpose:
            for at in _steps(columns.stop - columns.start, rows.stop - rows.start):
                yield (slice(None), at), read((slice(columns.start + at.start, columns.start + at.stop), rows)).T
        else:
            for at in _steps(rows.stop - rows.start, columns.stop - columns.start):
                yield at, read((slice(rows.start + at.start, rows.start + at.stop), columns))

    def _check(self, n_in: int) -> None:
        inputs = math.prod(self.shapes[0][:n_in])
        outputs = sum(math.prod(shape[n_in:]) for shape in self.shapes)
        want = (outputs,) if not n_in else (outputs, inputs) if self.rename.transpose else (inputs, outputs)
        if self.tensor.shape != want:
            raise ValueError(
                f"{self.tensor.where} has shape {self.tensor.shape}, which does not fit the config: {want}"
            )


def aligned(shape: Shape, dtype: Any) -> np.ndarray:
    """Memory for an array that begins where jax's own do on a CPU, so that `jax.device_put` need not copy it."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


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


def _steps(n: int, across: int, unit: int = 1) -> Iterator[slice]:
    """A small part of `n` at a time, in whole units; each has `across` values beside it."""
    step = max(n // unit // 32, _BLOCK // max(1, across * unit), 1) * unit
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
