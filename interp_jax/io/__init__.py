"""Checkpoints and other tools' file formats: files to arrays with what is said of them, and back."""

from interp_jax.io import gguf_files, orbax, sae_lens, torch_files

__all__ = ["gguf_files", "orbax", "sae_lens", "torch_files"]
