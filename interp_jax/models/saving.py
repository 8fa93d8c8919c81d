"""`save`: a model to a folder, which is read back before it stands under its name."""

from dataclasses import replace
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any, Literal
import warnings

import numpy as np

from interp_jax.models import hf_folders, orbax_folders
from interp_jax.models.checkpoint import Checkpoint
from interp_jax.models.config import Config
from interp_jax.models.families import FAMILIES, read_config
from interp_jax.models.params import paths
from interp_jax.models.tokenizer import Tokenizer
from interp_jax.models.transformer import Transformer, unstack_layers


def save(
    path: str | os.PathLike[str],
    model: Transformer,
    tokenizer: Tokenizer | None = None,
    *,
    format: Literal["huggingface", "orbax"] | None = None,
) -> None:
    """Writes a folder, which `load` reads. It is written whole or not at all, and read back before it counts.

    A Hugging Face folder, which transformers reads too, where the files of the model's family can hold its config. What
    they cannot (an option that no model of that family has, no MLP at all) is saved by Orbax as a checkpoint of ours,
    with a warning that names it.

    Args:
      path: a new or an empty folder.
      model: a `Decoder` or an `Encoder`; its dtype is kept.
      tokenizer: goes into the same folder.
      format: `"huggingface"`: that or an error. `"orbax"`: a checkpoint of ours in any case.

    Raises:
      FileExistsError: there is something at `path` already.
      ValueError: `format="huggingface"` and the family's files cannot hold the config; parameters that are not those of
        the config; what was written reads back as something else.

    Example:
      >>> import jax, tempfile
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     models.save(folder + "/model", models.Decoder.create(jax.random.key(0), config))
      ...     models.load(folder + "/model")[0].config == config
      True
    """
    path, config = Path(path), model.config
    if format not in (None, "huggingface", "orbax"):
        raise ValueError(f"save: format must be 'huggingface', 'orbax' or None, not {format!r}")
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path}: is there already and not empty; remove it or save elsewhere")
    lost = "" if format == "orbax" else _lost(config)
    if lost and format == "huggingface":
        raise ValueError(f"save: files of family {config.family} cannot hold {lost}; leave format out")
    if lost:
        warnings.warn(
            f"{path}: files of family {config.family} cannot hold {lost}; saved by Orbax as a checkpoint of "
            "interp_jax, which models.load reads and transformers does not",
            stacklevel=2,
        )
    own = bool(lost) or format == "orbax"
    path.parent.mkdir(parents=True, exist_ok=True)
    parent = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        _write(parent / path.name, model, tokenizer, own=own)
        (parent / path.name).replace(path)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _write(folder: Path, model: Transformer, tokenizer: Tokenizer | None, *, own: bool) -> None:
    """Writes the folder and reads it back."""
    arrays = paths(unstack_layers(model))
    if own:
        orbax_folders.write(folder, model.config, arrays)
    else:
        folder.mkdir()
        hf_folders.write(folder, model.config, arrays, model.dtype, tokenizer)
    if tokenizer is not None:
        tokenizer.write(folder)
    _compare(orbax_folders.read(folder) if own else hf_folders.read(folder), model.config, arrays)


def _compare(written: Checkpoint, config: Config, arrays: dict[str, Any]) -> None:
    """Raises ValueError where the checkpoint is not the model, bit for bit."""
    if _meaning(written.config) != _meaning(config) or set(written.parameters) != set(arrays):
        raise ValueError("save: what was written reads back as another config; nothing was saved, please report it")
    for name, array in arrays.items():
        got, want = written.parameters[name].read(), np.asarray(array)
        if (got.dtype, got.shape) != (want.dtype, want.shape) or not np.array_equal(_bytes(got), _bytes(want)):
            raise ValueError(f"save: {name} does not read back as it was; nothing was saved, is the disk sound?")


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _lost(config: Config) -> str:
    """What the files of the model's family cannot hold, in words; "" if they hold all of it."""
    if config.family not in FAMILIES:
        return f"a model of no family ({config.family!r})"
    if config.d_model % config.n_heads:
        return f"d_model={config.d_model} that is no multiple of n_heads={config.n_heads}, as transformers wants it"
    try:
        back = read_config(FAMILIES[config.family].hf_config(config))
    except ValueError as error:
        return str(error).rpartition(": ")[2]
    ours, theirs = _meaning(config), _meaning(back)
    return ", ".join(f"{name}={value!r}" for name, value in vars(ours).items() if value != getattr(theirs, name))


def _meaning(config: Config) -> Config:
    """The config with what it leaves to defaults written out, so that two that mean the same are equal."""
    out_bias = config.attn_bias if config.out_bias is None else config.out_bias
    return replace(config, attn_scale=config.score_scale, rotary_dim=config.n_rotary, out_bias=out_bias)
