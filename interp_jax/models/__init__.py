"""One decoder and one encoder, their families, loading and saving, generation, tokens and stacked weights.

.. include:: README.md
"""

from interp_jax.models import rasp
from interp_jax.models.adapters import tag
from interp_jax.models.answering import answering
from interp_jax.models.config import Config
from interp_jax.models.decoder import Decoder
from interp_jax.models.encoder import Encoder
from interp_jax.models.forwarding import forward, hidden
from interp_jax.models.generation import generate
from interp_jax.models.loading import load
from interp_jax.models.prompts import locate, tokenize
from interp_jax.models.saving import save
from interp_jax.models.stacked import untie, weights, with_weights
from interp_jax.models.state_dicts import from_state_dict
from interp_jax.models.tokenizer import Tokenizer
from interp_jax.models.transformer import stack_layers, unstack_layers

__all__ = [
    "Config",
    "Decoder",
    "Encoder",
    "Tokenizer",
    "answering",
    "forward",
    "from_state_dict",
    "generate",
    "hidden",
    "load",
    "locate",
    "rasp",
    "save",
    "stack_layers",
    "tag",
    "tokenize",
    "unstack_layers",
    "untie",
    "weights",
    "with_weights",
]
