"""The cache of activations of delphi (EleutherAI), from which it explains and scores features; and back.

    <folder>/<module>/config.json                     what was read
    <folder>/<module>/<first>_<last>.safetensors      features first to last, both included
        locations    uint16 or uint32 [firing 3]: sequence, position, feature less `first`
        activations  float16 [firing]
        tokens       [sequence position], the same in every file

Nothing is said of padding and special tokens; delphi leaves out the bos token when it makes a cache.
"""

from dataclasses import dataclass
import json
from pathlib import Path
import re
from typing import Any

import numpy as np

from interp_jax.io.files import replacing

N_SPLITS = 5  # files of a module, as in delphi


@dataclass(frozen=True)
class Cache:
    """Where the features of a module fire.

    Attributes:
      tokens: int32 `[sequence position]`.
      features: int64 `[firing]`, sorted.
      rows, positions: int64 `[firing]`.
      values: float32 `[firing]`.
      n_features: how many features there are.
      config: what delphi says of the cache: `ctx_len`, `model_name` and more.
    """

    tokens: np.ndarray
    features: np.ndarray
    rows: np.ndarray
    positions: np.ndarray
    values: np.ndarray
    n_features: int
    config: dict[str, Any]


def save(folder: str | Path, module: str, cache: Cache, *, n_splits: int = N_SPLITS) -> None:
    """Writes the cache of a module.

    Args:
      folder: of all modules.
      module: the name of this one, such as "layers.5".
      cache: what is written; its config is completed by what delphi asks for.
      n_splits: files, each of as many features.

    Raises:
      ValueError: a name that is no folder's.
    """
    from safetensors.numpy import save_file

    where = Path(folder) / _checked(module)
    edges = np.linspace(0, cache.n_features, min(n_splits, cache.n_features) + 1).astype(int)
    begins = np.searchsorted(cache.features, edges)
    for first, last, begin, end in zip(edges[:-1], edges[1:] - 1, begins[:-1], begins[1:], strict=True):
        here = slice(begin, end)
        locations = np.stack([cache.rows[here], cache.positions[here], cache.features[here] - first], axis=1)
        small = locations.max(initial=0) < 2**16
        arrays = {
            "locations": locations.astype(np.uint16 if small else np.uint32),
            "activations": np.minimum(cache.values[here], np.finfo(np.float16).max).astype(np.float16),
            "tokens": np.ascontiguousarray(cache.tokens),
        }
        with replacing(where / f"{first}_{last}.safetensors") as new:
            save_file(arrays, new)
    asked = {"dataset_repo": "", "dataset_split": "", "dataset_name": "", "dataset_column": "", "model_name": ""}
    about = asked | {
        "ctx_len": cache.tokens.shape[1],
        "n_tokens": cache.tokens.size,
        "batch_size": 32,
        "n_splits": n_splits,
    }
    with replacing(where / "config.json") as new:
        new.write_text(json.dumps(about | cache.config), encoding="utf-8")


def modules(folder: str | Path) -> list[str]:
    """The modules whose caches a folder has."""
    return sorted(path.parent.name for path in Path(folder).glob("*/config.json"))


def load(folder: str | Path, module: str) -> Cache:
    """Reads the cache of a module.

    Raises:
      FileNotFoundError: there is none.
      ValueError: a file is broken, lacks the tokens, or its features are not those of its name.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    where = Path(folder) / _checked(module)
    files = sorted(where.glob("*_*.safetensors"), key=lambda path: int(path.name.split("_")[0]))
    if not files:
        known = ", ".join(modules(folder)) or "none"
        raise FileNotFoundError(f"{where}: no cache of delphi there; modules: {known}")
    parts, tokens, end = [], None, 0
    for path in files:
        named = re.fullmatch(r"(\d+)_(\d+)", path.stem)
        if named is None or int(named[1]) != end:
            raise ValueError(f"{path}: features from {end} on were wanted; a file of the cache is missing")
        first, end = int(named[1]), int(named[2]) + 1
        try:
            arrays = load_file(path)
        except SafetensorError:
            raise ValueError(f"{path}: is broken; make the cache anew") from None
        if "tokens" not in arrays:
            raise ValueError(f"{path}: has no tokens; make the cache with save_tokens=True")
        tokens = arrays["tokens"].astype(np.int32)
        locations = arrays["locations"].astype(np.int64)
        if (locations >= [*tokens.shape, end - first]).any():
            raise ValueError(f"{path}: locations beyond its tokens {list(tokens.shape)} or its features")
        locations[:, 2] += first
        parts.append((locations, arrays["activations"].astype(np.float32)))
    locations, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((locations[:, 1], locations[:, 0], locations[:, 2]))
    rows, positions, features = locations[order].T
    config = (
        json.loads((where / "config.json").read_text(encoding="utf-8")) if (where / "config.json").is_file() else {}
    )
    assert tokens is not None  # there is a file
    return Cache(tokens, features, rows, positions, values[order], end, config)


def _checked(module: str) -> str:
    if not module or Path(module).name != module:
        raise ValueError(f"delphi: module {module!r} is no name of a folder, such as 'layers.5'")
    return module
