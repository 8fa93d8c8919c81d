"""vllm-lens's steering vectors in JSON, as its servers take them. https://github.com/UKGovernmentBEIS/vllm-lens

    {"activations": {"data": base64, "dtype": "float32", "original_dtype": "torch.float32", "shape": [layer, d_model]},
     "layer_indices": [...], "scale": 1.0, "norm_match": false, "position_indices": null}

Layers count from 0, and a vector is added to what leaves that layer. `data` are the raw bytes, or with "compression":
"zstd" compressed ones; we write them raw, which every version reads. bfloat16 travels as int16.
"""

import base64
import binascii
from collections.abc import Sequence
import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from interp_jax.io.files import replacing

DTYPES = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8"), "float16": np.dtype("<f2"), "int16": np.dtype("<i2")}
OPTIONS = {"scale": 1.0, "norm_match": False, "position_indices": None}


def is_file(path: str | Path) -> bool:
    """Whether a file is a steering vector of vllm-lens."""
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return False
    return isinstance(held, dict) and {"activations", "layer_indices"} <= set(held)


def read(path: str | Path) -> tuple[np.ndarray, tuple[int, ...], dict[str, Any]]:
    """The activations of a file, their layers and the other options.

    Args:
      path: the file.

    Returns:
      `(float32 [layer d_model] or [layer position d_model], layers, options)`, the options being `scale`, `norm_match`
      and `position_indices`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no steering vector of vllm-lens, or damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not is_file(path):
        raise ValueError(f"{path}: no steering vector of vllm-lens: no JSON with activations and layer_indices")
    held = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        activations, layers = _tensor(held["activations"]), tuple(int(layer) for layer in held["layer_indices"])
    except (KeyError, TypeError, ValueError, OSError, binascii.Error) as error:
        raise ValueError(f"{path}: damaged activations: {type(error).__name__}: {error}") from None
    if activations.ndim not in (2, 3) or len(activations) != len(layers):
        raise ValueError(f"{path}: activations {list(activations.shape)} for {len(layers)} layers: it is damaged")
    return activations, layers, {name: held.get(name, default) for name, default in OPTIONS.items()}


def write(path: str | Path, activations: Any, layers: Sequence[int], **options: Any) -> None:
    """Writes a steering vector to a file, whole or not at all; one already there is replaced.

    Args:
      path: the file. Its parents are made.
      activations: `[layer d_model]` or `[layer position d_model]`, written as float32.
      layers: their layers.
      **options: `scale`, `norm_match`, `position_indices`, where they are not 1, False and None.

    Raises:
      FileExistsError: `path` is there and is something else.
      TypeError: another option.

    Example:
      >>> import numpy as np, tempfile
      >>> from interp_jax.io import vllm_lens
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     vllm_lens.write(f"{folder}/a.json", np.ones((1, 3)), [5], scale=2.0)
      ...     activations, layers, options = vllm_lens.read(f"{folder}/a.json")
      >>> activations.tolist(), layers, options["scale"]
      ([[1.0, 1.0, 1.0]], (5,), 2.0)
    """
    path = Path(path)
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise TypeError(f"vllm_lens.write: no option {unknown[0]!r}; its options: {', '.join(OPTIONS)}")
    if path.exists() and not is_file(path):
        raise FileExistsError(f"{path}: is there and is no steering vector of vllm-lens; choose another file")
    x = np.asarray(activations, DTYPES["float32"])
    data = base64.b64encode(x.tobytes()).decode("ascii")
    tensor = {"data": data, "dtype": "float32", "original_dtype": "torch.float32", "shape": list(x.shape)}
    held = {"activations": tensor, "layer_indices": [int(layer) for layer in layers], **OPTIONS, **options}
    with replacing(path) as new:
        new.write_text(json.dumps(held), encoding="utf-8")


def _tensor(held: dict[str, Any]) -> np.ndarray:
    dtype, shape = DTYPES[held["dtype"]], [int(n) for n in held["shape"]]
    raw = base64.b64decode(held["data"], validate=True)
    if held.get("compression") == "zstd":
        import pyarrow  # a dependency of datasets

        raw = pyarrow.decompress(raw, math.prod(shape) * dtype.itemsize, codec="zstd", asbytes=True)
    x = np.frombuffer(raw, dtype).reshape(shape)
    if held.get("original_dtype") == "torch.bfloat16":
        x = x.view(ml_dtypes.bfloat16)
    return x.astype(np.float32)
