"""Checkpoints and other tools' file formats: pytrees in, pytrees out."""

from interp_jax.io import orbax

__all__ = ["orbax"]
