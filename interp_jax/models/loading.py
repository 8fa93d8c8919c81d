"""`load`: a folder, a file of llama.cpp or nanoGPT, a shipped model, or a model of the Hugging Face hub."""

import os
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from interp_jax.io import gguf_files, torch_files
from interp_jax.models import gguf, gguf_tokenizer, hf_folders, nanogpt, orbax_folders
from interp_jax.models.checkpoint import Checkpoint
from interp_jax.models.hf_folders import CONFIG, INDEX, SINGLE, read_json
from interp_jax.models.tokenizer import Tokenizer
from interp_jax.models.transformer import Transformer

SHIPPED = Path(__file__).parent / "shipped"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def load(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: Any = None,
    mesh: Mesh | None = None,
    scan_layers: bool | None = None,
) -> tuple[Transformer, Tokenizer | None]:
    """Loads a model and its tokenizer. Runs no code of what it reads, and no pickle.

    What is read: Hugging Face folders with safetensors, checkpoints of `save`, llama.cpp's GGUF files (architectures
    llama, qwen2, qwen3, gemma, gemma2, gemma3, phi3, gpt2, olmo2; every type that the `gguf` package dequantises), and
    nanoGPT's `ckpt.pt`. Models without a head (`BertModel`, `LlamaModel`) have `models.hidden` and no logits.

    Args:
      name_or_path: the name of a shipped model (`"microworld"`, or `"microworld@1"`, its version 1 or an error), a
        folder, also one with a single GGUF file, a file, or a hub id (`"gpt2"`, `"owner/name"`). A shipped name wins
        over a folder of that name: write `"./name"` for the folder.
      revision: branch, tag or commit of a hub id; None: its main branch.
      dtype: of the parameters; None keeps what the file has, which of a GGUF file is float32, dequantised.
      mesh: a `jax.sharding.Mesh` with an axis named "model", over which heads, neurons and vocabulary are split; all
        else is replicated. Each device's shard is read from the file by itself. Its axes are taken as Auto: shard
        tokens over `model.w_e.sharding.mesh`.
      scan_layers: stack the blocks and scan over them: the same results and site names, and one block to compile
        whatever the depth, for a third more time a step on a CPU. None: where there are more than 16 layers.

    Returns:
      The model, and its tokenizer or None if there is none, or (with a warning) none that can be made. Weights are
      read and dequantised some rows at a time: on a CPU loading takes the memory of the result and little more, and
      the tokenizer of a GGUF file some 0.5 KB a word.

    Raises:
      FileNotFoundError: no such folder, file, version or hub model, a missing file, or a hub that cannot be reached.
      ValueError: a truncated file, an unsupported architecture or option, a value of the wrong kind, missing or surplus
        weights, a mesh without an axis "model", a revision of what is no hub id.

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
    checkpoint, tokenizer = _read(_find(name_or_path, revision))
    return checkpoint.model(dtype, mesh, scan_layers=scan_layers), tokenizer


def _read(path: Path) -> tuple[Checkpoint, Tokenizer | None]:
    """What a folder or a file holds, by what is in it."""
    if path.is_dir() and not orbax_folders.is_folder(path):
        path = _only_gguf(path) or path
    if path.is_dir():
        checkpoint = (orbax_folders if orbax_folders.is_folder(path) else hf_folders).read(path)
        return checkpoint, Tokenizer.from_folder(path) if any(path.glob("*tokenizer.json")) else None
    if gguf_files.is_file(path):
        metadata, tensors = gguf_files.read(path)
        return gguf.read(path, metadata, tensors), gguf_tokenizer.read(path, metadata)
    return nanogpt.checkpoint(str(path), torch_files.read(path)), None


def _only_gguf(folder: Path) -> Path | None:
    """The GGUF file of a folder that is no Hugging Face folder with weights."""
    files = sorted(folder.glob("*.gguf"))
    if not files or any(folder.glob("*.safetensors")):
        return None
    if len(files) > 1:
        raise ValueError(f"{folder}: holds {len(files)} GGUF files, such as {files[0].name}; give the path of one")
    return files[0]


def _find(name_or_path: str | os.PathLike[str], revision: str | None) -> Path:
    name = os.fspath(name_or_path)
    path = _here(name_or_path, name)
    if path is None:
        return _download(name, revision)
    if revision is not None:
        raise ValueError(f"load: revision={revision!r} is of a model of the hub; {name!r} is on this machine")
    return path


def _here(name_or_path: str | os.PathLike[str], name: str) -> Path | None:
    """The folder or file on this machine, None if the name can only be the hub's."""
    shipped, _, version = name.partition("@")
    if shipped and (SHIPPED / shipped / "config.json").exists() and Path(shipped).name == shipped:
        there = read_json(SHIPPED / "manifest.json")[shipped]["version"] if version else version
        if version != there:
            raise FileNotFoundError(f"{name!r}: this release ships version {there}; load {shipped}@{there}")
        return SHIPPED / shipped
    if Path(name).exists():
        return Path(name)
    local = isinstance(name_or_path, os.PathLike) or name.startswith((".", "/", "~")) or name.count("/") > 1
    local = local or name.endswith((".gguf", ".pt", ".pth"))
    if local or not name:
        raise FileNotFoundError(f"{name!r}: there is no such model folder or file")
    return None


def _download(repo: str, revision: str | None) -> Path:
    """The folder of the hub's cache that holds the model. What is there already is not downloaded again."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, RevisionNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT")
    offline = False
    try:  # one question without the hub's minute of retries: does it answer, and does it know the model
        get_hf_file_metadata(hf_hub_url(repo, CONFIG, revision=revision, endpoint=endpoint))
    except RevisionNotFoundError:
        raise FileNotFoundError(f"{repo!r}: the hub's model has no revision {revision!r}") from None
    except EntryNotFoundError:
        raise FileNotFoundError(
            f"{repo!r}: the hub's model has no config.json; of others download the file, and load that"
        ) from None
    except (HfHubHTTPError, HFValidationError) as e:
        reason = str(e).strip().split("\n")[0]
        raise FileNotFoundError(f"{repo!r}: no such folder, shipped model or hub model ({reason})") from None
    except Exception:  # of whichever http library the hub's client uses
        offline = True

    def get(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(repo, file, revision=revision, endpoint=endpoint, local_files_only=offline))
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

    folder = need(CONFIG).parent
    index = get(INDEX)
    for file in [SINGLE] if index is None else sorted(set(read_json(index).get("weight_map", {}).values())):
        need(file)
    for file in _TOKENIZER_FILES:
        get(file)
    return folder
