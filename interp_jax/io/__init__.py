"""Checkpoints and other tools' file formats: pytrees in, pytrees out."""

from interp_jax.io import gguf_files, orbax, sae_lens, torch_files

__all__ = ["gguf_files", "orbax", "sae_lens", "torch_files"]
