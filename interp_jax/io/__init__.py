"""Checkpoints and other tools' file formats: pytrees in, pytrees out."""

from interp_jax.io import orbax, sae_lens

__all__ = ["orbax", "sae_lens"]
