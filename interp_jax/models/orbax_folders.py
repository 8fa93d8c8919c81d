"""Our own checkpoints of models, for what no family's files can hold: Orbax, and the tokenizer's files beside it."""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from interp_jax.io import orbax
from interp_jax.models.checkpoint import Checkpoint, abstract_parameters
from interp_jax.models.config import Config
from interp_jax.models.tensors import Held


def is_folder(folder: Path) -> bool:
    """Whether a folder is a checkpoint of ours."""
    return (folder / "description").is_dir()


def read(folder: Path) -> Checkpoint:
    """What the folder holds.

    Raises:
      ValueError: it is torn, holds something else than a model, or was written by a newer release.
    """
    arrays, metadata = orbax.load(folder)
    options: Any = metadata.get("config")
    if metadata.get("kind") != "model" or not isinstance(options, dict):
        raise ValueError(
            f"{folder}: is a checkpoint of something else than a model; interp_jax.dictionaries.load may read it"
        )
    unknown = sorted(set(options) - {field.name for field in dataclasses.fields(Config)})
    if unknown:
        raise ValueError(
            f"{folder}: its config has {', '.join(unknown)}, which this release does not know; update interp_jax"
        )
    fields: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in options.items()}
    config = Config(**fields)
    wanted = {name: leaf.shape for name, leaf in abstract_parameters(config).items()}
    dtype = arrays["w_e"].dtype if "w_e" in arrays else None
    arrays |= {name: np.zeros(shape, dtype) for name, shape in wanted.items() if 0 in shape}
    if wanted != {name: array.shape for name, array in arrays.items()}:
        raise ValueError(f"{folder}: its parameters are not those of its config; save the model again")
    return Checkpoint(config, {name: Held(array) for name, array in arrays.items()})


def write(folder: Path, config: Config, arrays: Mapping[str, Any]) -> None:
    """Writes a new folder; `arrays`: our names, layer by layer -> the parameters."""
    arrays = {name: array for name, array in arrays.items() if array.size}  # Orbax takes no empty ones
    orbax.save(folder, arrays, {"kind": "model", "config": dataclasses.asdict(config)})
