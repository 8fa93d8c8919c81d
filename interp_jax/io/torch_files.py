"""torch's `.pt` and `.pth` files, read without torch and without running a pickle.

Such a file is a zip of `data.pkl`, which says how the tensors lie in storages, and of the storages' raw bytes. The
pickle is parsed by `pickletools`, which runs nothing, and its few operations are carried out here: plain containers,
strings, numbers, and calls of exactly `collections.OrderedDict` and `torch._utils._rebuild_tensor_v2`. All else is
refused by name, before anything is imported or called. https://docs.pytorch.org/docs/stable/notes/serialization.html
Caveat: neither whole modules nor the format from before torch 1.6 is read; save a `state_dict()` with today's torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import pickletools
from typing import Any
import zipfile

import ml_dtypes
import numpy as np

TENSOR, ORDERED = "torch._utils._rebuild_tensor_v2", "collections.OrderedDict"
DTYPES = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}


class _RefusedError(ValueError):
    """What the file asks for is not read; the message names it."""


@dataclass(frozen=True)
class _Name:
    """A global that the pickle asked for, one of those that are allowed. It is a word here, never the thing."""

    name: str


def read(path: str | Path) -> Any:
    """What `torch.save` wrote, with numpy arrays for the tensors.

    Args:
      path: the file.

    Returns:
      The saved dicts (an OrderedDict as a dict), lists, tuples, strings and numbers. An array is read-only and keeps
      shape and dtype (bfloat16 as `ml_dtypes.bfloat16`, which jax knows); arrays of one storage share its memory.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is not such a file, it is torn, or it asks for what is not read; the message names it.

    Example:
      >>> import tempfile, zipfile
      >>> from interp_jax.io import torch_files
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with zipfile.ZipFile(f"{folder}/a.pt", "w") as z:
      ...         z.writestr("a/data.pkl", b"cos\\nsystem\\n(U\\x04ls /tR.")
      ...     torch_files.read(f"{folder}/a.pt")
      Traceback (most recent call last):
      ValueError: .../a.pt: refused: its pickle asks for os.system; only tensors and plain containers are read
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except _RefusedError as error:
        raise ValueError(f"{path}: refused: {error}") from None
    except Exception as error:  # whatever zipfile, pickletools, numpy and the stack raise on damaged bytes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: torn, damaged or not a zip file of torch.save: {reason[:200]}") from error


def _read(archive: zipfile.ZipFile) -> Any:
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} members named data.pkl instead of one")
    root = pickles[0].removesuffix("data.pkl")
    storages: dict[str, bytes] = {}

    def member(name: str) -> bytes:
        if name not in members:
            raise ValueError(f"{name} is missing")
        if members[name].compress_type != zipfile.ZIP_STORED:  # torch never does; so memory is bounded by the file
            raise _RefusedError(f"{name} is compressed")
        return archive.read(name)

    def storage(pid: Any) -> np.ndarray:
        _, name, key, _, n = pid  # "storage", its type, the member that holds it, a device, elements
        if key not in storages:
            storages[key] = member(f"{root}data/{key}")
        return np.frombuffer(storages[key], DTYPES[_kind(name, _Name).name], _count(n))

    if f"{root}byteorder" in members and member(f"{root}byteorder") != b"little":
        raise _RefusedError("its bytes are not in little-endian order")
    return _run(member(pickles[0]), storage)


def _run(pickle: bytes, storage: Callable[[Any], np.ndarray]) -> Any:
    """The stack machine of the pickle format, with the operations that torch writes and no other."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for op, arg, _ in pickletools.genops(pickle):
        match op.name:
            case "PROTO":
                pass
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[op.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(arg)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[op.name]())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(op.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "APPEND" | "APPENDS":
                items = since_mark() if op.name == "APPENDS" else [stack.pop()]
                _kind(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = since_mark() if op.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                _kind(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[_count(arg)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[_count(arg)])
            case "GLOBAL":
                stack.append(_name(str(arg)))
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":  # the attributes of an OrderedDict, such as `_metadata`: dropped
                stack.pop()
                _kind(stack[-1], dict)
            case "STOP":
                (result,) = stack
                return _checked(result)
            case _:
                raise _RefusedError(f"its pickle has the operation {op.name}, which torch.save does not write")
    raise ValueError("the pickle has no end")


def _name(words: str) -> _Name:
    """The name of a global, "module name" in the pickle, if it is one that is allowed."""
    name = ".".join(words.split(" "))
    if name not in {TENSOR, ORDERED, *DTYPES}:
        raise _RefusedError(f"its pickle asks for {name[:100]}; only tensors and plain containers are read")
    return _Name(name)


def _call(function: Any, arguments: Any) -> Any:
    """What the two functions that are allowed would give; nothing is called but our own code."""
    if function == _Name(ORDERED) and arguments == ():
        return {}
    if function != _Name(TENSOR):
        raise ValueError(f"a call of {function.name if isinstance(function, _Name) else type(function).__name__}")
    return _tensor(*arguments[:4])


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray:
    """The view of a storage that a tensor is; it may not reach outside."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise ValueError("a tensor without a storage")
    shape, strides = tuple(map(_count, shape)), tuple(map(_count, strides))
    reach = _count(offset) + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and reach >= len(storage):
        raise ValueError(f"a tensor reaches element {reach} of a storage of {len(storage)}")
    steps = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def _count(n: Any) -> int:
    """`n`, which must be an integer of at least 0."""
    if type(n) is not int or n < 0:
        raise ValueError("something else where a size is wanted")
    return n


def _kind(value: Any, kind: type) -> Any:
    """`value`, which must be of exactly this type."""
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} is wanted")
    return value


def _checked(result: Any) -> Any:
    """`result`, unless a name stands in it where a value should. It may be cyclic, or hold one list many times."""
    todo, seen = [result], set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _Name):
            raise _RefusedError(f"it holds {value.name} itself; only tensors and plain containers are read")
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            todo += value
    return result
