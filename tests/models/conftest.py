"""Two tiny random models, one a family, large enough in their weights that every part of them shows."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Whitespace

from interp_jax.models import Config, Decoder, Tokenizer
from interp_jax.models.checkpoint import model_class

GPT2 = Config(n_layers=3, n_heads=4, d_model=16, d_mlp=24, d_vocab=37, n_ctx=32)
LLAMA = Config(
    family="llama",
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    d_model=16,
    d_head=6,
    d_mlp=24,
    d_vocab=37,
    n_ctx=32,
    act="silu",
    gated=True,
    norm="rmsnorm",
    positions="rotary",
    attn_bias=False,
    mlp_bias=False,
    tie_embeddings=False,
)
NEOX = replace(
    GPT2,
    family="gpt_neox",
    act="gelu",
    positions="rotary",
    rotary_dim=2,
    parallel=True,
    tie_embeddings=False,
)
GEMMA = replace(  # every option of Gemma 3 at once
    LLAMA,
    family="gemma3_text",
    act="gelu_new",
    norms="both",
    norm_offset=1.0,
    qk_norm="head",
    embed_scale=True,
    tie_embeddings=True,
    attn_scale=0.5,
    logit_softcap=3.0,
    window=3,
    local_layers=(0, 2),
    rope_theta=900.0,
    rope_local_theta=90.0,
    rope_scaling="linear",
    rope_factor=4.0,
)
CONFIGS = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "neox": NEOX,
    "gemma": GEMMA,
    "gemma2": replace(
        GEMMA,
        family="gemma2",
        qk_norm="none",
        attn_softcap=2.0,
        rope_local_theta=0.0,
        rope_scaling="none",
        rope_factor=1.0,
    ),
    "llama3": replace(
        LLAMA,
        rope_scaling="llama3",
        rope_factor=4.0,
        rope_original_n_ctx=16,
        attn_bias=True,
    ),
    "qwen3": replace(LLAMA, family="qwen3", qk_norm="head", window=3, local_layers=(1, 2)),
    "olmo": replace(LLAMA, family="olmo2", d_head=4, norms="post", qk_norm="all"),
    "phi": replace(LLAMA, family="phi3", d_head=4, rotary_dim=2, window=3, local_layers=(0, 1, 2)),
    "bert": replace(GPT2, family="bert", act="gelu", norm_eps=1e-12, norms="residual", n_types=2),
}

# One of each family that config.json knows, as small as can be.
SMALL = dict(n_layers=2, n_heads=2, n_kv_heads=2, d_model=8, d_head=4, d_mlp=6, d_vocab=11, n_ctx=9)
FAMILY: dict[str, Config] = {
    "gpt2": replace(GPT2, **SMALL),
    "gpt_neox": replace(CONFIGS["neox"], **SMALL),
    "llama": replace(LLAMA, **SMALL),
    "gemma3_text": replace(CONFIGS["gemma"], **SMALL, local_layers=(0,)),
    "bert": replace(CONFIGS["bert"], **SMALL),
}
FAMILY |= {
    name: replace(FAMILY["llama"], family=name, **extra)
    for name, extra in {
        "mistral": {},
        "qwen2": {"attn_bias": True, "out_bias": False},
        "qwen3": {"qk_norm": "head"},
        "gemma": {"norm_offset": 1.0, "embed_scale": True, "act": "gelu_new", "tie_embeddings": True},
        "olmo2": {"norms": "post", "qk_norm": "all"},
        "phi3": {},
        "starcoder2": {"norm": "layernorm", "gated": False, "attn_bias": True, "mlp_bias": True, "act": "gelu_new"},
    }.items()
}
FAMILY["gemma2"] = replace(
    FAMILY["gemma"], family="gemma2", norms="both", attn_softcap=50.0, logit_softcap=30.0, attn_scale=0.5
)


def random_model(config: Config) -> Any:
    """Every weight, biases and norms too, is random and of some size."""
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        centre = 1.0 - config.norm_offset if path[-1].name == "w" else 0.0  # of a norm
        return jax.device_put((centre + 0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(draw, model_class(config).abstract(config))


@pytest.fixture(scope="session", params=[pytest.param("gpt2", marks=pytest.mark.long), "llama"])
def model(request: pytest.FixtureRequest) -> Decoder:
    return random_model(CONFIGS[request.param])


@pytest.fixture(scope="session")
def prompts() -> tuple[np.ndarray, np.ndarray]:
    """Tokens [3 7] and a mask with padding on the left, on the right, and nowhere."""
    tokens = np.random.default_rng(0).integers(0, 37, (3, 7)).astype(np.int32)
    mask = np.ones((3, 7), bool)
    mask[0, :3] = False
    mask[1, 5:] = False
    return tokens, mask


@pytest.fixture(scope="session")
def word_tokenizer() -> Tokenizer:
    """One token a word, with a bos token that its config asks for."""
    words = ["<s>", "</s>", "<unk>", "the", "cat", "sat", "on", "mat", "."]
    backend = Backend(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    backend.add_special_tokens(["<s>", "</s>", "<unk>"])
    return Tokenizer(backend, special)


CHATML = """{% for message in messages %}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """One token a byte, so that a character may be several, with the special tokens and the template of ChatML."""
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    names = [*special, *sorted(ByteLevel.alphabet())]
    backend = Backend(BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    backend.add_special_tokens(special)
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, {"bos_token": "<s>", "eos_token": "</s>", "chat_template": CHATML})
