"""Checkpoints and other tools' file formats: pytrees in, pytrees out."""

from interp_jax.io import orbax, sae_lens, torch_files

__all__ = ["orbax", "sae_lens", "torch_files"]
