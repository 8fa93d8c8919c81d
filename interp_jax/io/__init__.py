"""Checkpoints and other tools' file formats: files to arrays with what is said of them, and back."""

from interp_jax.io import control_vectors, gguf_files, orbax, sae_lens, torch_files, vllm_lens

__all__ = ["control_vectors", "gguf_files", "orbax", "sae_lens", "torch_files", "vllm_lens"]
