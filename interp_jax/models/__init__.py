"""One decoder, its families, loading and saving, generation, tokens and stacked weights."""

from interp_jax.models.config import Config
from interp_jax.models.decoder import Decoder
from interp_jax.models.forward import forward

__all__ = ["Config", "Decoder", "forward"]
