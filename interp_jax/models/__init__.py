"""One decoder, its families, loading and saving, generation, tokens and stacked weights."""

from interp_jax.models.checkpoint import save
from interp_jax.models.config import Config
from interp_jax.models.decoder import Decoder, forward
from interp_jax.models.generation import generate
from interp_jax.models.loading import load
from interp_jax.models.prompts import locate, tokenize
from interp_jax.models.stacked import weights, with_weights
from interp_jax.models.tokenizer import Tokenizer

__all__ = [
    "Config",
    "Decoder",
    "Tokenizer",
    "forward",
    "generate",
    "load",
    "locate",
    "save",
    "tokenize",
    "weights",
    "with_weights",
]
