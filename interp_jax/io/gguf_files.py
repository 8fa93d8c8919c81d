"""llama.cpp's `.gguf` files: metadata by name, and tensors whose rows are dequantised when they are asked for.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Types and dequantisation are the `gguf` package's; its reader
is not used, since it makes an array of every string: 11 s and 700 MB for a vocabulary of 262,144 words, where this one
takes 0.3 s.
"""

from collections.abc import Iterator
from dataclasses import dataclass
import functools
import math
import mmap
from pathlib import Path
import struct
from typing import Any

import numpy as np

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_AT_ONCE = 1 << 15  # values that are dequantised together: they stay in a processor's cache


@dataclass(frozen=True)
class Rows:
    """A tensor that is still in the file.

    Attributes:
      file: the file.
      offset: the byte of the file at which the tensor begins.
      shape: its shape, with the axis along which values stand side by side last, as in numpy.
      kind: its type in the file, such as "F16" or "Q4_K".
      width: how many bytes a row (along the last axis) takes.
    """

    file: Path
    offset: int
    shape: tuple[int, ...]
    kind: str
    width: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, `stop` not included, as float32 `[row column]`. A vector is one row."""
        import gguf

        with open(self.file, "rb") as f:
            f.seek(self.offset + start * self.width)
            raw = np.fromfile(f, np.uint8, (stop - start) * self.width).reshape(stop - start, self.width)
        out = np.empty((stop - start, self.shape[-1]), np.float32)
        step = max(1, _AT_ONCE // self.shape[-1])
        for first in range(0, stop - start, step):  # given as one row: of several, `dequantize` takes 16 at a time
            rows = slice(first, min(first + step, stop - start))
            values = gguf.dequantize(raw[rows].reshape(1, -1), gguf.GGMLQuantizationType[self.kind])
            out[rows] = values.reshape(out[rows].shape)
        return out


def is_file(path: str | Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    with open(path, "rb") as f:
        return f.read(4) == MAGIC


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Rows]]:
    """The metadata and the tensors of a file.

    Args:
      path: the file.

    Returns:
      `({key: value}, {name: Rows})`; values are numbers, strings and lists of them.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no GGUF file, it is torn, or its version or a tensor's type is not read; the message names it.

    Example:
      >>> import gguf, numpy as np, tempfile
      >>> from interp_jax.io import gguf_files
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     writer = gguf.GGUFWriter(f"{folder}/a.gguf", "llama")
      ...     writer.add_tensor("w", np.arange(64, dtype=np.float16).reshape(2, 32))
      ...     writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file()
      ...     writer.close()
      ...     metadata, tensors = gguf_files.read(f"{folder}/a.gguf")
      ...     metadata["general.architecture"], tensors["w"].shape, tensors["w"].read(1, 2)[0, :3].tolist()
      (None, None, None)
      ('llama', (2, 32), [32.0, 33.0, 34.0])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not is_file(path):
        raise ValueError(f"{path}: is no GGUF file: it does not begin with GGUF")
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _Header(path, data).read()
        except (struct.error, UnicodeDecodeError, ArithmeticError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(f"{path}: torn or damaged GGUF file ({error}); download it again") from None


class _Header:
    """Reads the header of a mapped file from its beginning."""

    def __init__(self, path: Path, data: mmap.mmap):
        self.path, self.data, self.at = path, data, 4

    def read(self) -> tuple[dict[str, Any], dict[str, Rows]]:
        version = self._number("I")
        if version not in VERSIONS:
            raise ValueError(
                f"{self.path}: GGUF version {version} is not read, only {VERSIONS}, in little-endian order"
            )
        n_tensors, n_keys = self._number("Q"), self._number("Q")
        metadata = {self._string(): self._value(self._number("I")) for _ in range(n_keys)}
        infos = [self._info() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        start = -(-self.at // alignment) * alignment
        return metadata, dict(self._tensors(start, infos))

    def _number(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def _string(self) -> str:
        n = self._number("Q")
        if self.at + n > len(self.data):
            raise struct.error("it ends within a string")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(self._number("I"), self._number("Q"))
        if kind not in _NUMBERS:
            raise struct.error(f"it has a value of the unknown type {kind}")
        return self._number(_NUMBERS[kind])

    def _array(self, kind: int, n: int) -> list[Any]:
        if kind not in _NUMBERS:
            return [self._value(kind) for _ in range(n)]
        form = f"<{n}{_NUMBERS[kind]}"
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return list(values)

    def _info(self) -> tuple[str, tuple[int, ...], int, int]:
        name, n_axes = self._string(), self._number("I")
        axes = tuple(self._number("Q") for _ in range(n_axes))
        return name, axes[::-1], self._number("I"), self._number("Q")

    def _tensors(self, start: int, infos: list[tuple[str, tuple[int, ...], int, int]]) -> Iterator[tuple[str, Rows]]:
        for name, shape, kind, offset in infos:
            known, block, size = _type(kind)
            if known is None:
                raise ValueError(
                    f"{self.path}: {name} is of type {kind}, which the gguf package does not know; update it"
                )
            columns = shape[-1] if shape else 1
            width = columns // block * size
            end = start + offset + math.prod(shape[:-1]) * width
            if columns % block or end > len(self.data):
                raise struct.error(f"{name} reaches byte {end} of {len(self.data)}")
            yield name, Rows(self.path, start + offset, shape, known, width)


@functools.cache
def _type(kind: int) -> tuple[str | None, int, int]:
    """The name of a type, the number of values in a block of it, and the bytes of one."""
    import gguf

    named = next((known for known in gguf.GGMLQuantizationType if known == kind), None)
    if named is None:
        return None, 1, 1
    return named.name, *gguf.GGML_QUANT_SIZES[named]
