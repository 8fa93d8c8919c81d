"""Parts of checkpoint tensors as our parameters, and back: transposed, split, head by head, a slice at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path

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

    def read(self, index: Index | None = None) -> np.ndarray:
        """The parameter, or a slice of it: only what is needed leaves the disk.

        Raises:
          ValueError: the tensor's shape does not fit the config.
        """
        shape = self.shapes[self.part]
        index = index or tuple(slice(None) for _ in shape)
        with safetensors.safe_open(self.file, "numpy") as f:
            tensor = f.get_slice(self.name)
            found = tuple(tensor.get_shape())
            n_in = _n_in(self.rename, len(found))
            self._check(found, n_in)
            rows, columns = _range(shape[:n_in], index[:n_in]), self._columns(shape[n_in:], index[n_in:])
            if not n_in:
                matrix = tensor[columns][None]
            else:
                matrix = tensor[columns, rows].T if self.rename.transpose else tensor[rows, columns]
        lead = _lead(shape[:n_in], rows)
        trail = _lead(shape[n_in:], _range(shape[n_in:], index[n_in:]))
        if self.rename.interleaved:
            matrix = matrix.reshape(-1, trail[0], len(self.shapes), math.prod(trail[1:]))[:, :, self.part]
        inner = tuple(slice(None) if i in (0, n_in) else at for i, at in enumerate(index))
        return matrix.reshape(*lead, *trail)[inner]

    def _columns(self, out: Shape, index: Index) -> slice:
        """Where the outputs stand in the tensor."""
        at, n_parts = _range(out, index), len(self.shapes)
        if self.rename.interleaved:
            return slice(at.start * n_parts, at.stop * n_parts)
        n_in = len(self.shapes[self.part]) - len(out)
        before = sum(math.prod(shape[n_in:]) for shape in self.shapes[: self.part])
        return slice(before + at.start, before + at.stop)

    def _check(self, found: Shape, n_in: int) -> None:
        inputs = math.prod(self.shapes[0][:n_in])
        outputs = sum(math.prod(shape[n_in:]) for shape in self.shapes)
        want = (outputs,) if not n_in else (outputs, inputs) if self.rename.transpose else (inputs, outputs)
        if found != want:
            raise ValueError(f"{self.file}: {self.name} has shape {found}, which does not fit config.json: {want}")


def join(parts: Sequence[np.ndarray], rename: Rename) -> np.ndarray:
    """The checkpoint's tensor of our parameters: the inverse of `Source.read`."""
    flat = parts[0].ndim == 1 or rename.hf.endswith(".bias") or "_norm." in rename.hf
    n_in = _n_in(rename, 1 if flat else 2)
    matrices = [part.reshape(math.prod(part.shape[:n_in]), *part.shape[n_in:]) for part in parts]
    if rename.interleaved:
        joined = np.stack([m.reshape(m.shape[0], parts[0].shape[n_in], -1) for m in matrices], axis=2)
    else:
        joined = np.concatenate([m.reshape(m.shape[0], -1) for m in matrices], axis=1)
    joined = joined.reshape(joined.shape[0], -1)
    if flat:
        return joined[0]
    return np.ascontiguousarray(joined.T if rename.transpose else joined)


def _n_in(rename: Rename, n_axes: int) -> int:
    """How many of our axes are inputs: none of a vector's, two of w_o's `[head d_head d_model]`, one of the others'."""
    return 0 if n_axes == 1 else 2 if rename.ours[0].endswith(".w_o") else 1


def _range(shape: Shape, index: Index) -> slice:
    """The elements of flattened axes that a slice of the first of them takes; the slices of the rest come later."""
    if not shape:
        return slice(0, 1)
    start, stop, _ = index[0].indices(shape[0])
    rest = math.prod(shape[1:])
    return slice(start * rest, stop * rest)


def _lead(shape: Shape, taken: slice) -> Shape:
    """The shape of flattened axes of which `taken` was taken."""
    rest = math.prod(shape[1:])
    return ((taken.stop - taken.start) // rest, *shape[1:]) if shape else ()
