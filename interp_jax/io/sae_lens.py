"""SAELens's folders: a config `cfg.json` beside `sae_weights.safetensors`. https://decoderesearch.github.io/SAELens

Before SAELens's version 6 the config was flat and had other keys. `read` gives every config as version 6 has it.
"""

from collections.abc import Mapping
import difflib
import json
from pathlib import Path
from typing import Any

from jax import Array
import jax.numpy as jnp

from interp_jax.io.folders import replacing

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
# keys from before version 6
RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index", "activation_fn_str": "activation_fn"}
REQUIRED = ("architecture", "d_in", "d_sae")
# What changes the computation; other keys say how the dictionary was trained and are left alone.
OPTIONS = ("apply_b_dec_to_input", "normalize_activations", "rescale_acts_by_decoder_norm", "reshape_activations")


def is_folder(path: str | Path) -> bool:
    """Whether a folder is one of SAELens's."""
    return (Path(path) / CONFIG).is_file() and (Path(path) / WEIGHTS).is_file()


def read(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the config of a folder.

    Args:
      path: the folder.

    Returns:
      `({name: array}, config)`; the config has `architecture`, `d_in`, `d_sae` and a `metadata` mapping.

    Raises:
      FileNotFoundError: one of the two files is not there.
      ValueError: a file is torn, the config lacks a key or misspells one, or something of it is not supported.
    """
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    path = Path(path)
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path / CONFIG}: torn or damaged: {error}") from error
    try:
        arrays = dict(load_file(str(path / WEIGHTS)))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path / WEIGHTS}: torn or damaged: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path / CONFIG}: not a config: it holds no JSON object")
    config = config if _version(config) >= 6 else _from_before_6(config, path)
    for key in REQUIRED:
        if key not in config:
            raise ValueError(f"{path / CONFIG}: has no {key!r}{_near(key, config)}")
    for key in set(config) - {*REQUIRED, *OPTIONS}:
        if difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.9):
            raise ValueError(f"{path / CONFIG}: unknown key {key!r}{_near(key, OPTIONS)}")
    return _without_scaling(arrays, path), {"metadata": {}, **config}


def write(path: str | Path, arrays: Mapping[str, Array], config: Mapping[str, Any]) -> None:
    """Writes a folder, whole or not at all; a SAELens folder already there is replaced.

    Args:
      path: the folder. Its parents are made.
      arrays: `{name: array}`.
      config: as version 6 has it.

    Raises:
      FileExistsError: `path` is there and is something else.
      OSError: the folder cannot be written.
      TypeError: JSON cannot hold the config.

    Example:
      >>> import jax.numpy as jnp, tempfile
      >>> from interp_jax.io import sae_lens
      >>> config = {"architecture": "standard", "d_in": 2, "d_sae": 4, "metadata": {"sae_lens_version": "6.0.0"}}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     sae_lens.write(f"{folder}/a", {"b_dec": jnp.ones(2)}, config)
      ...     arrays, again = sae_lens.read(f"{folder}/a")
      >>> arrays["b_dec"].tolist(), again == config
      ([1.0, 1.0], True)
    """
    from safetensors.flax import save_file

    path, text = Path(path).absolute(), json.dumps(dict(config))
    if path.exists() and not is_folder(path):
        raise FileExistsError(f"{path}: is there and is not a SAELens folder; choose another folder")
    with replacing(path) as new:
        new.mkdir()
        save_file({name: jnp.asarray(array) for name, array in arrays.items()}, str(new / WEIGHTS))
        (new / CONFIG).write_text(text, encoding="utf-8")


def _version(config: Mapping[str, Any]) -> int:
    """The major version of SAELens that wrote the config; 0 where it says none, as the old ones do."""
    version = config.get("sae_lens_version") or config.get("metadata", {}).get("sae_lens_version") or "0"
    return int(str(version).split(".")[0])


def _from_before_6(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """An old config with the keys of version 6, and what version 6 would take for granted written out."""
    new = {RENAMED.get(key, key): value for key, value in config.items()}
    new = {"architecture": "standard", "apply_b_dec_to_input": True, **new}
    function, keywords = new.get("activation_fn", "relu"), new.get("activation_fn_kwargs") or {}
    if function == "topk":
        new |= {"architecture": "topk", "k": keywords.get("k", new.get("k"))}
    elif function != "relu":
        raise ValueError(f"{path / CONFIG}: activation_fn {function!r} is not supported; supported: relu, topk")
    normalize = new.get("normalize_activations")
    if isinstance(normalize, bool) or normalize is None:
        new["normalize_activations"] = "expected_average_only_in" if normalize else "none"
    new.setdefault("reshape_activations", "hook_z" if "hook_z" in (new.get("hook_name") or "") else "none")
    about = ("model_name", "hook_name", "hook_layer", "hook_head_index", "dataset_path", "context_size", "prepend_bos")
    return new | {"metadata": {key: new[key] for key in about if key in new}}


def _without_scaling(arrays: dict[str, Array], path: Path) -> dict[str, Array]:
    """The arrays without SAELens's factor of finetuning, which must be 1."""
    scaling = arrays.pop("scaling_factor", None)
    if scaling is not None and not bool(jnp.all(scaling == 1)):
        raise ValueError(f"{path / WEIGHTS}: finetuning_scaling_factor is not supported; fold it into W_dec first")
    return arrays


def _near(key: str, known: Any) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.7)
    return f"; near: {near[0]!r}" if near else ""
