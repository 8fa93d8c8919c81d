"""`load`: a local folder, a model shipped with the package, or a model of the Hugging Face hub."""

import os
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from interp_jax.models.checkpoint import INDEX, SINGLE, read_folder, read_json
from interp_jax.models.tokenizer import Tokenizer
from interp_jax.models.transformer import Transformer

SHIPPED = Path(__file__).parent / "shipped"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def load(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: Any = None,
    mesh: Mesh | None = None,
    scan_layers: bool | None = None,
) -> tuple[Transformer, Tokenizer | None]:
    """Loads a model and its tokenizer from a Hugging Face folder. Reads safetensors only; runs no code of the folder.

    Args:
      name_or_path: the name of a shipped model (`"microworld"`, or `"microworld@1"`, its version 1 or an error), a
        folder, or a hub id (`"gpt2"`, `"owner/name"`). A shipped name wins over a folder of that name: write `"./name"`
        for the folder.
      dtype: of the parameters; None keeps what the file has.
      mesh: a `jax.sharding.Mesh` with an axis named "model", over which heads, neurons and vocabulary are split; all
        else is replicated. Each device's shard is read from the file by itself. Its axes are taken as Auto: shard
        tokens over `model.w_e.sharding.mesh`.
      scan_layers: stack the blocks and scan over them: the same results and site names, and one block to compile
        whatever the depth. None: a Python loop.

    Returns:
      The model, and its tokenizer or None if the folder has no tokenizer.json.

    Raises:
      FileNotFoundError: no such folder, version or hub model, a missing file, or a hub that cannot be reached.
      ValueError: a truncated file, an unsupported architecture or option, missing or surplus weights, a mesh without
        an axis "model".

    Example:
      >>> import jax, tempfile
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     models.save(folder + "/model", models.Decoder.create(jax.random.key(0), config))
      ...     model, tokenizer = models.load(folder + "/model", dtype="bfloat16")
      >>> str(model.dtype), tokenizer
      ('bfloat16', None)
    """
    return read_folder(_find(name_or_path), dtype, mesh, bool(scan_layers))


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    name = os.fspath(name_or_path)
    shipped, _, version = name.partition("@")
    if shipped and (SHIPPED / shipped / "config.json").exists() and Path(shipped).name == shipped:
        there = read_json(SHIPPED / "manifest.json")[shipped]["version"] if version else version
        if version != there:
            raise FileNotFoundError(f"{name!r}: this release ships version {there}; load {shipped}@{there}")
        return SHIPPED / shipped
    if Path(name).is_dir():
        return Path(name)
    local = isinstance(name_or_path, os.PathLike) or name.startswith((".", "/", "~")) or name.count("/") > 1
    if local or not name:
        raise FileNotFoundError(f"{name!r}: there is no such model folder")
    return _download(name)


def _download(repo: str) -> Path:
    """The folder of the hub's cache that holds the model. What is there already is not downloaded again."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    endpoint = os.environ.get("HF_ENDPOINT")
    offline = False
    try:  # one question without the hub's minute of retries: does it answer, and does it know the model
        get_hf_file_metadata(hf_hub_url(repo, "config.json", endpoint=endpoint))
    except EntryNotFoundError:
        raise FileNotFoundError(
            f"{repo!r}: the hub's model has no config.json; only Hugging Face models are read"
        ) from None
    except (HfHubHTTPError, HFValidationError) as e:
        reason = str(e).strip().split("\n")[0]
        raise FileNotFoundError(f"{repo!r}: no such folder, shipped model or hub model ({reason})") from None
    except Exception:  # of whichever http library the hub's client uses
        offline = True

    def get(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(repo, file, endpoint=endpoint, local_files_only=offline))
        except EntryNotFoundError:  # not on the hub; or, offline, not in the cache
            return None

    def need(file: str) -> Path:
        path = get(file)
        if path is None and offline:
            raise FileNotFoundError(
                f"{repo!r}: the hub cannot be reached and {file} is not in its cache; give a folder"
            )
        if path is None:
            raise FileNotFoundError(f"{repo!r}: the hub's model has no {file}; only safetensors weights are read")
        return path

    folder = need("config.json").parent
    index = get(INDEX)
    for file in [SINGLE] if index is None else sorted(set(read_json(index).get("weight_map", {}).values())):
        need(file)
    for file in _TOKENIZER_FILES:
        get(file)
    return folder
