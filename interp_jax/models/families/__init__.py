"""The families: how a Hugging Face config and its weight names map to ours. No forward code."""

from collections.abc import Mapping
from typing import Any

from interp_jax.models.config import Config
from interp_jax.models.families.bert import BERT
from interp_jax.models.families.formats import Family, Rename
from interp_jax.models.families.gemma import GEMMA, GEMMA2, GEMMA3
from interp_jax.models.families.gpt import GPT2, NEOX
from interp_jax.models.families.llama import LLAMA, MISTRAL, OLMO2, PHI3, QWEN2, QWEN3
from interp_jax.models.families.starcoder import STARCODER2

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
    "starcoder2": STARCODER2,
}


def family_of(hf: Mapping[str, Any], where: str = "config.json") -> tuple[str, Family, bool]:
    """The name of a config's family, the family, and whether the model is without a head.

    Raises:
      ValueError: no family has this architecture.
    """
    architectures, kind = hf.get("architectures") or [], hf.get("model_type")
    if not isinstance(architectures, list):
        raise ValueError(f"{where}: 'architectures' must be a list of names, not {architectures!r}")
    for name, family in FAMILIES.items():
        if family.architecture in architectures or (not architectures and kind == name):
            return name, family, False
        if family.base in architectures:
            return name, family, True
    supported = ", ".join(f"{family.architecture} ({name})" for name, family in FAMILIES.items())
    found = ", ".join(map(str, architectures)) or kind or "none named"
    raise ValueError(
        f"{where}: unsupported architecture {found}; supported: {supported}, and each without its head, such as "
        f"{LLAMA.base} and {BERT.base}"
    )


def read_config(hf: Mapping[str, Any], where: str = "config.json") -> Config:
    """HF config dict -> `Config`. Raises ValueError at an architecture or a value that is not supported."""
    name, family, headless = family_of(hf, where)
    return family.config(name, hf, where, headless=headless)


__all__ = ["FAMILIES", "Family", "Rename", "family_of", "read_config"]
