"""`load`: a local folder, a model shipped with the package, or a model of the Hugging Face hub."""

import os
from pathlib import Path
from typing import Any

from interp_jax.models.checkpoint import INDEX, SINGLE, read_folder, read_json
from interp_jax.models.decoder import Decoder
from interp_jax.models.tokenizer import Tokenizer

SHIPPED = Path(__file__).parent / "shipped"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def load(
    name_or_path: str | os.PathLike[str], *, dtype: Any = None, mesh: Any = None, scan_layers: bool | None = None
) -> tuple[Decoder, Tokenizer | None]:
    """Loads a model and its tokenizer from a Hugging Face folder. Reads safetensors only; runs no code of the folder.

    Args:
      name_or_path: the name of a shipped model (`"microworld"`), a folder, or a hub id (`"gpt2"`, `"owner/name"`).
        A shipped name wins over a folder of that name: write `"./name"` for the folder.
      dtype: of the parameters; None keeps what the file has.
      mesh: not supported yet.
      scan_layers: only False or None is supported yet.

    Returns:
      The model, and its tokenizer or None if the folder has no tokenizer.json.

    Raises:
      FileNotFoundError: no such folder or hub model, a missing file, or a hub that cannot be reached.
      ValueError: a truncated file, an unsupported architecture or option, missing or surplus weights.
      NotImplementedError: `mesh` or `scan_layers=True`.

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
    if mesh is not None:
        raise NotImplementedError("load: mesh is not supported yet; load without it and jax.device_put the model")
    if scan_layers:
        raise NotImplementedError("load: scan_layers=True is not supported yet; leave it out")
    return read_folder(_find(name_or_path), dtype)


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    name = os.fspath(name_or_path)
    if name and (SHIPPED / name / "config.json").exists() and Path(name).name == name:
        return SHIPPED / name
    if Path(name).is_dir():
        return Path(name)
    local = isinstance(name_or_path, os.PathLike) or name.startswith((".", "/", "~")) or name.count("/") > 1
    if local or not name:
        raise FileNotFoundError(f"{name!r}: there is no such model folder")
    return _download(name)


def _download(repo: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def get(file: str, *, needed: bool = True) -> Path | None:
        try:
            return Path(hf_hub_download(repo, file, endpoint=os.environ.get("HF_ENDPOINT")))
        except LocalEntryNotFoundError:  # an EntryNotFoundError too, but of the cache: the hub did not answer
            if not needed:
                return None
            raise FileNotFoundError(
                f"{repo!r}: the hub cannot be reached and {file} is not in its cache; give a folder"
            ) from None
        except EntryNotFoundError:
            if not needed:
                return None
            raise FileNotFoundError(
                f"{repo!r}: the hub's model has no {file}; only safetensors models are read"
            ) from None
        except (HfHubHTTPError, HFValidationError, OSError) as e:
            reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
            raise FileNotFoundError(f"{repo!r}: no such folder, shipped model or hub model ({reason})") from None

    config = get("config.json")
    index = get(INDEX, needed=False)
    if index is None:
        get(SINGLE)
    else:
        for shard in sorted(set(read_json(index).get("weight_map", {}).values())):
            get(shard)
    for file in _TOKENIZER_FILES:
        get(file, needed=False)
    assert config is not None
    return config.parent
