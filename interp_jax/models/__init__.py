"""One decoder, its families, loading and saving, generation, tokens and stacked weights."""

from interp_jax.models.adapters import tag
from interp_jax.models.checkpoint import save
from interp_jax.models.config import Config
from interp_jax.models.decoder import Decoder, forward
from interp_jax.models.generation import generate
from interp_jax.models.loading import load
from interp_jax.models.stacked import weights, with_weights
from interp_jax.models.tokenizer import Tokenizer, tokenize

__all__ = [
    "Config",
    "Decoder",
    "Tokenizer",
    "forward",
    "generate",
    "load",
    "save",
    "tag",
    "tokenize",
    "weights",
    "with_weights",
]
