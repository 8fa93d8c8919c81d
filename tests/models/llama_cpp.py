"""Writes GGUF files as llama.cpp's convert_hf_to_gguf.py does: its keys, its names, and what it does to weights."""

from collections.abc import Mapping
from pathlib import Path
import tempfile
from typing import Any

import gguf
import numpy as np
import safetensors.numpy

from interp_jax.models import hf_folders
from interp_jax.models.families import FAMILIES
from interp_jax.models.params import paths
from interp_jax.models.transformer import unstack_layers

ARCHITECTURES = {  # our families -> llama.cpp's architectures
    **{name: name for name in ("llama", "qwen2", "qwen3", "gemma", "gemma2", "phi3", "gpt2", "olmo2")},
    "gemma3_text": "gemma3",
    "mistral": "llama",
}


def tensors_of(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The Hugging Face config and tensors of a model of ours."""
    with tempfile.TemporaryDirectory() as folder:
        hf_folders.write(Path(folder), model.config, paths(unstack_layers(model)), model.dtype, None)
        tensors = safetensors.numpy.load_file(Path(folder) / "model.safetensors")
    return FAMILIES[model.config.family].hf_config(model.config), tensors


def write(
    file: Path,
    hf: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    *,
    kind: str = "F32",
    tokenizer: Mapping[str, Any] | None = None,
    **change: Any,
) -> Path:
    """A GGUF file of a Hugging Face config and its tensors.

    Args:
      kind: type of the matrices; vectors are always F32.
      tokenizer: what follows `tokenizer.` -> value.
      change: keys of the architecture, with `__` for a dot, beside those of the config or in their place; None: none.
    """
    family = hf["model_type"]
    architecture = ARCHITECTURES[family]
    writer = gguf.GGUFWriter(str(file), architecture)
    keys = (_gpt2(hf) if family == "gpt2" else _others(hf)) | {k.replace("__", "."): v for k, v in change.items()}
    for key, value in keys.items():
        if value is not None:
            _add(writer, f"{architecture}.{key}", value)
    for key, value in (tokenizer or {}).items():
        _add(writer, f"tokenizer.{key}", value)
    n_layers = hf.get("num_hidden_layers") or hf["n_layer"]
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, n_layers)
    for name, tensor in tensors.items():
        if name == "lm_head.weight" and hf["tie_word_embeddings"]:
            continue
        values = _changed(architecture, hf, name, np.asarray(tensor, np.float32))
        wanted = gguf.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        raw = values if wanted.name == "F32" else gguf.quantize(values, wanted)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), raw, raw_dtype=wanted)
    rope = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(hf, rope))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return file


def llama3_factors(hf: Mapping[str, Any], rope: Mapping[str, Any]) -> np.ndarray:
    """What the frequencies are divided by, in float32, by wavelengths as Meta's own code has it."""
    d_head = hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"]
    theta = np.float32(rope.get("rope_theta") or hf["rope_theta"])
    wavelengths = 2 * np.pi * theta ** (np.arange(0, d_head, 2, dtype=np.float32) / d_head)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    n_ctx, factors = rope["original_max_position_embeddings"], []
    for wavelength in wavelengths:
        if wavelength < n_ctx / high:
            factors.append(1.0)
        elif wavelength > n_ctx / low:
            factors.append(rope["factor"])
        else:
            smooth = (n_ctx / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def _changed(architecture: str, hf: Mapping[str, Any], name: str, values: np.ndarray) -> np.ndarray:
    """What llama.cpp does to a weight."""
    if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
        n_heads = hf["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        halves = values.reshape(n_heads, 2, len(values) // n_heads // 2, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return values + 1
    if architecture == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return np.ascontiguousarray(values.T)
    return values


def _gpt2(hf: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "block_count": hf["n_layer"],
        "context_length": hf["n_positions"],
        "embedding_length": hf["n_embd"],
        "feed_forward_length": hf.get("n_inner") or 4 * hf["n_embd"],
        "attention.head_count": hf["n_head"],
        "attention.layer_norm_epsilon": float(hf["layer_norm_epsilon"]),
    }


def _others(hf: Mapping[str, Any]) -> dict[str, Any]:
    d_head = hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"]
    rope = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    local = rope.get("sliding_attention") or {}
    rope = rope.get("full_attention") or rope
    share = rope.get("partial_rotary_factor") or hf.get("partial_rotary_factor") or 1.0
    linear = rope.get("rope_type") == "linear"
    caps = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"}
    return {
        "block_count": hf["num_hidden_layers"],
        "context_length": hf["max_position_embeddings"],
        "embedding_length": hf["hidden_size"],
        "feed_forward_length": hf["intermediate_size"],
        "attention.head_count": hf["num_attention_heads"],
        "attention.head_count_kv": hf["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(hf["rms_norm_eps"]),
        "attention.key_length": d_head,
        "attention.value_length": d_head,
        "attention.sliding_window": hf.get("sliding_window"),
        "rope.dimension_count": int(d_head * share),
        "rope.freq_base": float(rope.get("rope_theta") or hf.get("rope_theta") or 10000.0),
        "rope.scaling.type": "linear" if linear else None,
        "rope.scaling.factor": float(rope["factor"]) if linear else None,
        "rope.freq_base_swa": local.get("rope_theta") or hf.get("rope_local_base_freq"),
        **{key: hf.get(name) for key, name in caps.items()},
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    add.get(type(value), writer.add_array)(key, value)
