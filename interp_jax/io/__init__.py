"""Checkpoints and other tools' file formats: files to arrays and back; and what is asked of a model elsewhere."""

from interp_jax.io import (
    chat,
    control_vectors,
    delphi,
    endpoint,
    gguf_files,
    neuronpedia,
    orbax,
    sae_lens,
    torch_files,
    vllm_lens,
)

__all__ = [
    "chat",
    "control_vectors",
    "delphi",
    "endpoint",
    "gguf_files",
    "neuronpedia",
    "orbax",
    "sae_lens",
    "torch_files",
    "vllm_lens",
]
