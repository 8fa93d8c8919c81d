"""The families: how a Hugging Face config and its weight names map to ours. No forward code."""

from typing import Any

from interp_jax.models.config import Config
from interp_jax.models.families.bert import BERT
from interp_jax.models.families.formats import Family, Rename
from interp_jax.models.families.gemma import GEMMA, GEMMA2, GEMMA3
from interp_jax.models.families.gpt import GPT2, NEOX
from interp_jax.models.families.llama import LLAMA, MISTRAL, OLMO2, PHI3, QWEN2, QWEN3

FAMILIES: dict[str, Family] = {
    "gpt2": GPT2,
    "gpt_neox": NEOX,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "olmo2": OLMO2,
    "phi3": PHI3,
    "bert": BERT,
}


def read_config(hf: dict[str, Any]) -> Config:
    """HF config dict -> `Config`. Raises ValueError at an architecture or an option that is not supported."""
    architectures = hf.get("architectures") or []
    for name, family in FAMILIES.items():
        if family.architecture in architectures or (not architectures and hf.get("model_type") == name):
            return family.config(name, hf)
    supported = ", ".join(f"{family.architecture} ({name})" for name, family in FAMILIES.items())
    found = ", ".join(architectures) or hf.get("model_type") or "none named"
    raise ValueError(f"config.json: unsupported architecture {found}; supported: {supported}")


__all__ = ["FAMILIES", "Family", "Rename", "read_config"]
