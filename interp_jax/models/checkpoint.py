"""What checkpoints of every format have in common: a config, and where each of our parameters stands."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from interp_jax.models.config import Config
from interp_jax.models.decoder import Decoder
from interp_jax.models.encoder import Encoder
from interp_jax.models.families import Family, Rename
from interp_jax.models.params import paths
from interp_jax.models.placement import placed
from interp_jax.models.tensors import Held, Source, Tensor, aligned
from interp_jax.models.transformer import Transformer, scans


@dataclass(frozen=True)
class Checkpoint:
    """A model that is still on the disk.

    Attributes:
      config: what the model is.
      parameters: our names, layer by layer (`blocks.0.attn.w_q`) -> where they stand.
    """

    config: Config
    parameters: Mapping[str, Source | Held]

    def model(self, dtype: Any = None, mesh: Mesh | None = None, *, scan_layers: bool | None = None) -> Transformer:
        """Reads the model, as `load` says."""
        scan_layers = scans(self.config, scan_layers)
        dtype = None if dtype is None else jnp.dtype(dtype)
        model = model_class(self.config).abstract(self.config, scan_layers=scan_layers)
        leaves = []
        for path, leaf in paths(model).items():
            stacked = scan_layers and path.startswith("blocks.")
            n_layers = self.config.n_layers
            layers = [path.replace("blocks.", f"blocks.{i}.", 1) for i in range(n_layers)] if stacked else [path]
            here = [self.parameters[name] for name in layers]
            leaves.append(_place(path, here, leaf.shape, dtype, mesh, stacked=stacked))
        return jax.tree.unflatten(jax.tree.structure(model), leaves)


def model_class(config: Config) -> type[Transformer]:
    """The encoder or the decoder."""
    return Encoder if config.norms == "residual" else Decoder


def abstract_parameters(config: Config) -> dict[str, Any]:
    """Our names of the parameters, layer by layer -> their shapes and dtypes."""
    return paths(model_class(config).abstract(config))


def sources(where: str, family: Family, config: Config, tensors: Mapping[str, Tensor]) -> dict[str, Source]:
    """Our names of the parameters -> where they stand in a checkpoint of a family.

    Args:
      where: the checkpoint, for errors.
      family: has the renaming table.
      config: the model's.
      tensors: every tensor of the checkpoint by its name in the table.

    Raises:
      ValueError: a tensor is missing or left over.
    """
    ours = abstract_parameters(config)
    wanted = {name: (rename, parts) for name, rename, parts in table(family, config, ours)}
    missing = sorted(set(wanted) - set(tensors))
    if missing:
        raise ValueError(f"{where}: {len(missing)} weights are missing, such as {', '.join(missing[:3])}")
    spare = (*family.ignored, *(rename.hf for rename in family.head))
    extra = sorted(name for name in set(tensors) - set(wanted) if not name.endswith(spare))
    if extra:
        raise ValueError(
            f"{where}: {len(extra)} weights have no place in {config.family}, such as {', '.join(extra[:3])}"
        )
    return {
        path: Source(tensors[name], rename, i, tuple(ours[part].shape for part in parts))
        for name, (rename, parts) in wanted.items()
        for i, path in enumerate(parts)
    }


def table(family: Family, config: Config, ours: Mapping[str, Any]) -> Iterator[tuple[str, Rename, list[str]]]:
    """(name in the checkpoint without the prefix, its rule, our names), for the parameters that the model has."""
    for rename in (*family.names, *family.head):
        for layer in range(config.n_layers if "{}" in rename.hf else 1):
            parts = [name.format(layer) for name in rename.ours]
            if parts[0] in ours:
                yield rename.hf.format(layer), rename, parts


def bare(family: Family, name: str) -> str:
    """A tensor's name as the family's table has it: without the prefix, in one spelling."""
    for other, ours in family.spellings.items():
        if name.endswith(other):
            name = name.removesuffix(other) + ours
    return name.removeprefix(family.prefix)


def check_depth(where: str, family: Family, n_layers: int, names: Iterable[str]) -> None:
    """Raises ValueError where the weights are not of `n_layers` layers: before anything is made of each of them."""
    pattern = re.compile("|".join(f"(?:{_layer(rename.hf)})" for rename in family.names if "{}" in rename.hf))
    found = {next(filter(None, match.groups())) for name in names if (match := pattern.fullmatch(name))}
    there = max(map(int, found), default=-1) + 1
    if there != n_layers:
        raise ValueError(
            f"{where}: the config tells of {n_layers} layers, the weights are of {there}; one file is of another model"
        )


def _layer(hf: str) -> str:
    return re.escape(hf).replace(re.escape("{}"), r"(\d+)")


def _place(
    path: str, layers: list[Source | Held], shape: Any, dtype: Any, mesh: Mesh | None, *, stacked: bool
) -> jax.Array:
    """One parameter on its devices, read a shard at a time; `layers` has one entry if it is not stacked."""

    def read(index: Any) -> np.ndarray:
        if not stacked:
            return layers[0].read(index, dtype)
        first = layers[0].read(index and index[1:], dtype)
        out = aligned((len(layers), *first.shape), first.dtype)
        out[0] = first
        for layer, source in enumerate(layers[1:], 1):
            out[layer] = source.read(index and index[1:], dtype)
        return out

    if mesh is None:
        return jax.device_put(read(None))
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
