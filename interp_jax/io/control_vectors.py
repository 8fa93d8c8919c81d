"""Control vectors in GGUF, as repeng and llama.cpp exchange them: a float32 tensor `direction.<layer>` for each layer.

https://github.com/vgel/repeng. Layers count from 0, and a direction is added to what leaves that layer. Beside the
tensors stand `controlvector.model_hint`, a word about the model, and `controlvector.layer_count`.
Caveat: llama.cpp refuses a file that has layer 0, which repeng leaves out by default; and repeng writes the type of a
model ("llama") where others write its name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from interp_jax.io import gguf_files
from interp_jax.io.files import replacing

KIND = "controlvector"
HINT, COUNT, PREFIX = f"{KIND}.model_hint", f"{KIND}.layer_count", "direction."


def read(path: str | Path) -> tuple[dict[int, np.ndarray], str]:
    """The directions of a file, and its word about the model.

    Args:
      path: the file.

    Returns:
      `({layer: float32 [d_model]}, model_hint)`, layers rising.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no GGUF file or torn, not of control vectors, or its directions are not all of one width.
    """
    metadata, tensors = gguf_files.read(path)
    kind = metadata.get("general.architecture")
    named = {name: rows for name, rows in tensors.items() if name.startswith(PREFIX)}
    if kind != KIND or not named:
        raise ValueError(f"{path}: no control vector: it is a {kind!r} with {len(named)} tensors {PREFIX}<layer>")
    directions = {}
    for name, rows in named.items():
        number = name.removeprefix(PREFIX)
        if not number.isdecimal() or len(rows.shape) != 1:
            raise ValueError(
                f"{path}: {name} of shape {list(rows.shape)}: a direction is [d_model], of a numbered layer"
            )
        directions[int(number)] = rows.read(0, 1)[0]
    widths = {len(direction) for direction in directions.values()}
    if len(widths) > 1:
        raise ValueError(f"{path}: directions of widths {sorted(widths)}: it is damaged")
    return dict(sorted(directions.items())), str(metadata.get(HINT, ""))


def write(path: str | Path, directions: Mapping[int, Any], model_hint: str) -> None:
    """Writes directions to a file, whole or not at all; a control vector already there is replaced.

    Args:
      path: the file. Its parents are made.
      directions: `{layer: [d_model]}`, written as float32.
      model_hint: a word about the model, which may be empty.

    Raises:
      FileExistsError: `path` is there and is something else.

    Example:
      >>> import numpy as np, tempfile
      >>> from interp_jax.io import control_vectors
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     control_vectors.write(f"{folder}/a.gguf", {1: np.ones(4), 2: np.zeros(4)}, "llama")
      ...     directions, hint = control_vectors.read(f"{folder}/a.gguf")
      >>> directions[1].tolist(), list(directions), hint
      ([1.0, 1.0, 1.0, 1.0], [1, 2], 'llama')
    """
    import gguf

    path = Path(path)
    if path.exists():
        try:
            read(path)
        except (ValueError, OSError):
            raise FileExistsError(f"{path}: is there and is no control vector; choose another file") from None
    with replacing(path) as new:
        writer = gguf.GGUFWriter(str(new), KIND)
        writer.add_string(HINT, model_hint)
        writer.add_uint32(COUNT, len(directions))
        for layer, direction in directions.items():
            writer.add_tensor(f"{PREFIX}{layer}", np.asarray(direction, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
