"""Dictionaries of every layer of a model: a folder with one for each layer, or those that are shipped by name."""

from pathlib import Path
import re
from typing import Any

from interp_jax.dictionaries.checkpoints import load
from interp_jax.dictionaries.kinds.base import Dictionary

SHIPPED = Path(__file__).parent / "shipped"


def load_layers(path: str | Path, *, dtype: Any = None) -> list[Dictionary]:
    """The dictionaries of a folder's layers, in their order: what is in its folders `layer_0`, `layer_1` and so on.

    Args:
      path: the folder; or the name of a shipped set, `"microworld-transcoders"`, which wins over a folder of that name:
        write `"./name"` for the folder.
      dtype: of the arrays; None keeps what the files have, which of a shipped set is bfloat16.

    Raises:
      FileNotFoundError: there is no such folder or shipped set.
      ValueError: the folder has none of layers, or lacks one of them; as `load`.

    Example:
      >>> from interp_jax import dictionaries
      >>> transcoders = dictionaries.load_layers("microworld-transcoders", dtype="float32")
      >>> len(transcoders), transcoders[2].sites
      (4, ('blocks.2.ln2.normalized', 'blocks.2.mlp_out'))
    """
    shipped = sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir())
    folder = SHIPPED / path if str(path) in shipped else Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: no such folder, nor a shipped set; shipped: {', '.join(shipped)}")
    layers = sorted(int(one.name[6:]) for one in folder.iterdir() if re.fullmatch(r"layer_\d+", one.name))
    if not layers or layers != list(range(len(layers))):
        found = ", ".join(map(str, layers)) or "none"
        raise ValueError(f"{path}: has layers {found}; give a folder with layer_0, layer_1 and so on, or load one")
    loaded = [load(folder / f"layer_{layer}") for layer in layers]
    return loaded if dtype is None else [one.cast(dtype) for one in loaded]
