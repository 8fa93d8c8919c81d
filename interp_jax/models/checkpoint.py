"""Hugging Face folders: config.json, safetensors in one file or many, and the tokenizer's files."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from interp_jax.models.config import Config
from interp_jax.models.decoder import Decoder
from interp_jax.models.families import FAMILIES, Family, Rename, read_config
from interp_jax.models.params import paths
from interp_jax.models.tokenizer import Tokenizer

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def read_folder(folder: Path, dtype: Any) -> tuple[Decoder, Tokenizer | None]:
    """The model and, if the folder has one, the tokenizer."""
    config = read_config(read_json(folder / "config.json"))
    family = FAMILIES[config.family]
    model = Decoder.abstract(config)
    wanted = {name: (rename, ours) for name, rename, ours in _tensors(family, config, paths(model))}
    files = {_bare(family, name): (file, name) for file in _weight_files(folder) for name in _names(file)}
    missing = sorted(set(wanted) - set(files))
    if missing:
        raise ValueError(f"{folder}: {len(missing)} weights are missing, such as {', '.join(missing[:3])}")
    extra = sorted(name for name in set(files) - set(wanted) if not name.endswith((*family.buffers, "lm_head.weight")))
    if extra:
        raise ValueError(
            f"{folder}: {len(extra)} weights have no place in {config.family}, such as {', '.join(extra[:3])}"
        )
    shapes = {path: leaf.shape for path, leaf in paths(model).items()}
    arrays: dict[str, jax.Array] = {}
    for name, (rename, ours) in wanted.items():
        tensor = _read(*files[name])
        for path, part in zip(ours, _split(tensor, rename, [shapes[path] for path in ours], files[name]), strict=True):
            arrays[path] = jnp.asarray(part, dtype=dtype or part.dtype)
    model = jax.tree.unflatten(jax.tree.structure(model), [arrays[path] for path in shapes])
    return model, Tokenizer.from_folder(folder) if (folder / "tokenizer.json").exists() else None


def save(path: str | os.PathLike[str], model: Decoder, tokenizer: Tokenizer | None = None) -> None:
    """Writes a Hugging Face folder, which `load` and transformers read. It is written whole or not at all.

    Args:
      path: a new or an empty folder.
      model: any `Decoder`; its dtype is kept.
      tokenizer: goes into the same folder.

    Raises:
      FileExistsError: there is something at `path` already.

    Example:
      >>> import jax, tempfile
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     models.save(folder + "/model", models.Decoder.create(jax.random.key(0), config))
      ...     models.load(folder + "/model")[0].config == config
      True
    """
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path}: is there already and not empty; remove it or save elsewhere")
    family, arrays = FAMILIES[model.config.family], paths(model)
    tensors = {}
    for name, rename, ours in _tensors(family, model.config, arrays):
        full = name if name.startswith("lm_head.") else family.prefix + name
        tensors[full] = _join([np.asarray(arrays[path]) for path in ours], rename, ours)
    hf = family.hf_config(model.config) | {"torch_dtype": str(model.dtype)}
    if tokenizer is not None:
        hf |= {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        (temporary / "config.json").write_text(json.dumps(hf, indent=2) + "\n")
        safetensors.numpy.save_file(tensors, temporary / SINGLE, metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.write(temporary)
        temporary.chmod(0o755)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


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


def _tensors(family: Family, config: Config, ours: Any) -> Iterator[tuple[str, Rename, list[str]]]:
    """(name in the checkpoint without the prefix, its rule, our names), for the parameters that the model has."""
    for rename in family.names:
        for layer in range(config.n_layers if "{}" in rename.hf else 1):
            parts = [name.format(layer) for name in rename.ours]
            if parts[0] in ours:
                yield rename.hf.format(layer), rename, parts


def _weight_files(folder: Path) -> list[Path]:
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


def _names(file: Path) -> list[str]:
    try:
        with safetensors.safe_open(file, "numpy") as f:
            return list(f.keys())
    except (safetensors.SafetensorError, OSError) as e:
        raise ValueError(f"{file}: is truncated or no safetensors file ({e}); download it again") from None


def _read(file: Path, name: str) -> np.ndarray:
    with safetensors.safe_open(file, "numpy") as f:
        return f.get_tensor(name)


def _bare(family: Family, name: str) -> str:
    return name.removeprefix(family.prefix)


def _split(
    tensor: np.ndarray, rename: Rename, shapes: list[tuple[int, ...]], where: tuple[Path, str]
) -> list[np.ndarray]:
    tensor = tensor.T if rename.transpose else tensor
    sizes = [int(np.prod(shape)) for shape in shapes]
    if tensor.size != sum(sizes) or (len(shapes) == 1 and tensor.ndim == len(shapes[0]) and tensor.shape != shapes[0]):
        raise ValueError(f"{where[0]}: {where[1]} has shape {tensor.shape}, which does not fit config.json: {shapes}")
    if tensor.ndim == 1:
        parts = np.split(tensor, np.cumsum(sizes)[:-1])
    else:
        parts = np.split(tensor, np.cumsum([size // tensor.shape[0] for size in sizes])[:-1], axis=1)
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _join(parts: list[np.ndarray], rename: Rename, ours: list[str]) -> np.ndarray:
    kind = ours[0].rsplit(".", 1)[-1]
    if kind.startswith("b"):
        return np.concatenate([part.reshape(-1) for part in parts])
    if parts[0].ndim == 1:
        return parts[0]
    # w_o is [head d_head d_model]: two axes in. All others have one.
    matrices = [
        part.reshape(-1, part.shape[-1]) if kind == "w_o" else part.reshape(part.shape[0], -1) for part in parts
    ]
    joined = np.concatenate(matrices, axis=1)
    return np.ascontiguousarray(joined.T if rename.transpose else joined)
