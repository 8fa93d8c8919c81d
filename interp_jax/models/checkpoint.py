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
from jax.sharding import Mesh
import numpy as np
import safetensors
import safetensors.numpy

from interp_jax.models.config import Config
from interp_jax.models.decoder import Decoder
from interp_jax.models.encoder import Encoder
from interp_jax.models.families import FAMILIES, Family, Rename, read_config
from interp_jax.models.params import paths
from interp_jax.models.placement import placed
from interp_jax.models.tensors import Source, join
from interp_jax.models.tokenizer import Tokenizer
from interp_jax.models.transformer import Transformer, unstack_layers

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def read_folder(folder: Path, dtype: Any, mesh: Mesh | None, scan_layers: bool) -> tuple[Transformer, Tokenizer | None]:
    """The model and, if the folder has one, the tokenizer."""
    dtype = None if dtype is None else jnp.dtype(dtype)
    config = read_config(read_json(folder / "config.json"))
    model = model_class(config).abstract(config, scan_layers=scan_layers)
    sources = _sources(folder, config)
    leaves = []
    for path, leaf in paths(model).items():
        stacked = scan_layers and path.startswith("blocks.")
        layers = [path.replace("blocks.", f"blocks.{i}.", 1) for i in range(config.n_layers)] if stacked else [path]
        here = [sources[name] for name in layers]
        leaves.append(_place(path, here, leaf.shape, dtype, mesh, stacked=stacked))
    model = jax.tree.unflatten(jax.tree.structure(model), leaves)
    return model, Tokenizer.from_folder(folder) if any(folder.glob("*tokenizer.json")) else None


def model_class(config: Config) -> type[Transformer]:
    """The encoder or the decoder."""
    return Encoder if config.norms == "residual" else Decoder


def _place(path: str, sources: list[Source], shape: Any, dtype: Any, mesh: Mesh | None, *, stacked: bool) -> jax.Array:
    """One parameter on its devices, read a shard at a time; of a stacked one the sources are its layers."""

    def read(index: Any) -> np.ndarray:
        if not stacked:
            return sources[0].read(index, dtype)
        first = sources[0].read(index and index[1:], dtype)
        out = np.empty((len(sources), *first.shape), first.dtype)
        out[0] = first
        for layer, source in enumerate(sources[1:], 1):
            out[layer] = source.read(index and index[1:], dtype)
        return out

    if mesh is None:
        return jnp.asarray(read(None))
    sharding = placed(mesh, path, shape, stacked=stacked)
    shards = []
    for index, devices in _by_index(sharding, shape):
        value = read(index)
        shards += [jax.device_put(value, device) for device in devices]
        jax.block_until_ready(shards[-len(devices) :])
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def _by_index(sharding: jax.sharding.NamedSharding, shape: Any) -> list[tuple[Any, list[Any]]]:
    """The slices of a parameter, each with the devices that hold it."""
    groups: dict[str, tuple[Any, list[Any]]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        groups.setdefault(str(index), (index, []))[1].append(device)
    return list(groups.values())


def _sources(folder: Path, config: Config) -> dict[str, Source]:
    """Our names of the parameters, layer by layer -> where they stand. Nothing is missing, nothing is left over."""
    family = FAMILIES[config.family]
    ours = paths(model_class(config).abstract(config))
    wanted = {name: (rename, parts) for name, rename, parts in _tensors(family, config, ours)}
    files = {_bare(family, name): (file, name) for file in _weight_files(folder) for name in _names(file)}
    missing = sorted(set(wanted) - set(files))
    if missing:
        raise ValueError(f"{folder}: {len(missing)} weights are missing, such as {', '.join(missing[:3])}")
    spare = (*family.ignored, *(rename.hf for rename in family.head))
    extra = sorted(name for name in set(files) - set(wanted) if not name.endswith(spare))
    if extra:
        raise ValueError(
            f"{folder}: {len(extra)} weights have no place in {config.family}, such as {', '.join(extra[:3])}"
        )
    return {
        path: Source(*files[name], rename, i, tuple(ours[part].shape for part in parts))
        for name, (rename, parts) in wanted.items()
        for i, path in enumerate(parts)
    }


def save(path: str | os.PathLike[str], model: Transformer, tokenizer: Tokenizer | None = None) -> None:
    """Writes a Hugging Face folder, which `load` and transformers read. It is written whole or not at all.

    Args:
      path: a new or an empty folder.
      model: a `Decoder` or an `Encoder`; its dtype is kept.
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
    family, arrays = FAMILIES[model.config.family], paths(unstack_layers(model))
    head = [rename.hf for rename in family.head]
    tensors = {
        name if name in head else family.prefix + name: join([np.asarray(arrays[path]) for path in ours], rename)
        for name, rename, ours in _tensors(family, model.config, arrays)
    }
    hf = family.hf_config(model.config) | {"torch_dtype": str(model.dtype), "pad_token_id": None}
    if tokenizer is not None:
        hf |= {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
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
    for rename in (*family.names, *family.head):
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


def _bare(family: Family, name: str) -> str:
    """A tensor's name as the family's table has it: without the prefix, in one spelling."""
    for other, ours in family.spellings.items():
        if name.endswith(other):
            name = name.removesuffix(other) + ours
    return name.removeprefix(family.prefix)
