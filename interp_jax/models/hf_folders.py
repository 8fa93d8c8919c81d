"""Hugging Face folders: config.json, safetensors in one file or many."""

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from interp_jax.models.checkpoint import Checkpoint, bare, check_depth, sources, table
from interp_jax.models.config import Config
from interp_jax.models.families import FAMILIES, family_of
from interp_jax.models.tensors import Tensor, join
from interp_jax.models.tokenizer import Tokenizer

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"


def read(folder: Path) -> Checkpoint:
    """What the folder holds."""
    file = folder / CONFIG
    hf = read_json(file)
    name, family, headless = family_of(hf, str(file))
    tensors = {bare(family, key): tensor for weights in weight_files(folder) for key, tensor in _open(weights).items()}
    check_depth(str(folder), family, family.n_layers(name, hf, str(file)), tensors)
    config = family.config(name, hf, str(file), headless=headless)
    return Checkpoint(config, sources(str(folder), family, config, tensors))


def write(folder: Path, config: Config, arrays: Mapping[str, Any], dtype: Any, tokenizer: Tokenizer | None) -> None:
    """Writes config.json and the weights; `arrays`: our names, layer by layer -> the parameters."""
    family = FAMILIES[config.family]
    head = [rename.hf for rename in family.head]
    tensors = {
        name if name in head or config.headless else family.prefix + name: join(
            [np.asarray(arrays[path]) for path in ours], rename
        )
        for name, rename, ours in table(family, config, arrays)
    }
    hf = family.hf_config(config) | {"torch_dtype": str(dtype), "pad_token_id": None}
    if tokenizer is not None:
        hf |= {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    (folder / CONFIG).write_text(json.dumps(hf, indent=2) + "\n")
    safetensors.numpy.save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file of a model folder, or one line that says what is wrong with it."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file}: there is no such file; is {file.parent} a Hugging Face model folder?"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise ValueError(f"{file}: is not JSON ({e}); download it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file}: must hold a JSON object, not a {type(value).__name__}")
    return value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, all of which are there."""
    if (folder / INDEX).exists():
        index = read_json(folder / INDEX)
        if not isinstance(index.get("weight_map"), dict):
            raise ValueError(f"{folder / INDEX}: has no weight_map; download it again")
        files = [folder / Path(name).name for name in sorted(set(index["weight_map"].values()))]
    else:
        files = [folder / SINGLE]
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: there is no such file; download it (only safetensors weights are read)")
    return files


def _open(file: Path) -> dict[str, Tensor]:
    try:
        opened: Any = safetensors.safe_open(file, "numpy")
        slices = {name: opened.get_slice(name) for name in opened.keys()}
    except (safetensors.SafetensorError, OSError) as e:
        raise ValueError(f"{file}: is truncated or no safetensors file ({e}); download it again") from None
    return {
        name: Tensor(f"{file}: {name}", tuple(tensor.get_shape()), tensor.__getitem__)
        for name, tensor in slices.items()
    }
