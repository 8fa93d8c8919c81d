"""Models from llama.cpp's files: their metadata as a Hugging Face config, their tensors under Hugging Face's names.

llama.cpp changes some weights when it writes them: rows of queries and keys stand in the order of its rotation
(architecture llama), Gemma's norms hold 1 + w, GPT-2's linear layers are transposed. All of it is undone as rows are
read. The names are those of `gguf.get_tensor_name_map`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

import numpy as np

from interp_jax.io.gguf_files import Rows
from interp_jax.models.checkpoint import Checkpoint, abstract_parameters, sources, table
from interp_jax.models.families import Family, family_of
from interp_jax.models.families.gpt import GPT2_LINEAR
from interp_jax.models.gguf_configs import ARCHITECTURES, hf_config
from interp_jax.models.tensors import Index, Tensor

_ROPE = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")  # read with the config


def read(file: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Rows]) -> Checkpoint:
    """The model in a file whose header was read.

    Raises:
      ValueError: an architecture, an option or a type that is not supported, or weights that are not of the config.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{file}: unsupported architecture {architecture!r}; supported: {', '.join(ARCHITECTURES)}")
    if metadata.get("split.count", 1) > 1:
        raise ValueError(f"{file}: is one of {metadata['split.count']} parts; join them with llama-gguf-split --merge")
    where = f"{file}, metadata {architecture}"
    hf = hf_config(architecture, where, metadata, tensors)
    name, family, _ = family_of(hf)
    config = family.config(name, hf, where)
    family = GPT2_LINEAR if architecture == "gpt2" else family
    return Checkpoint(config, sources(str(file), family, config, _named(file, architecture, family, config, tensors)))


def _named(
    file: Path, architecture: str, family: Family, config: Any, tensors: Mapping[str, Rows]
) -> dict[str, Tensor]:
    """The tensors by their names in the family's table; those that have none there by their own."""
    import gguf

    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.n_layers)
    heads = {rename.hf for rename in family.head}
    ours = {}
    for hf, _, _ in table(family, config, abstract_parameters(config)):
        full = hf if hf in heads else family.prefix + hf
        ours[names.get_name(full, try_suffixes=(".weight", ".bias"))] = hf
    left = {name: name for name in tensors if name not in ours and name not in _ROPE}
    return {
        hf: _tensor(f"{file}: {name}", tensors[name], _undo(architecture, name, config))
        for name, hf in (ours | left).items()
        if name in tensors
    }


@dataclass(frozen=True)
class _Undo:
    """What llama.cpp did to a tensor. `woven`: in heads of so many rows the halves take turns; `add`: to each value."""

    woven: int = 0
    add: float = 0.0

    def rows(self, ours: np.ndarray) -> np.ndarray:
        """Where our rows stand in the file."""
        if not self.woven:
            return ours
        head, row = np.divmod(ours, self.woven)
        half, place = np.divmod(row, self.woven // 2)
        return head * self.woven + 2 * place + half


def _undo(architecture: str, name: str, config: Any) -> _Undo:
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return _Undo(add=-1.0)
    if architecture == "llama" and re.fullmatch(r"blk\.\d+\.attn_[qk]\.(?:weight|bias)", name):
        return _Undo(woven=config.d_head)
    return _Undo()


def _tensor(where: str, rows: Rows, undo: _Undo) -> Tensor:
    """A tensor of the file as it was before llama.cpp wrote it."""

    def read(index: Index) -> np.ndarray:
        start, stop, _ = index[0].indices(rows.shape[0])
        wanted = undo.rows(np.arange(start, stop))
        if len(rows.shape) == 1:
            return rows.read(0, 1)[0][wanted] + np.float32(undo.add)
        first, last = int(wanted.min()), int(wanted.max())
        block = rows.read(first, last + 1)
        return (block[wanted - first] if undo.woven else block)[:, index[1]]

    return Tensor(where, rows.shape, read)
