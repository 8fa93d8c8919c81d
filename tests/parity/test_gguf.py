"""Files of llama.cpp's layout, written of random models of transformers: its logits, and those of its own reader."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from interp_jax import models  # noqa: E402
from interp_jax.models import gguf_tokenizer  # noqa: E402
from tests.models import llama_cpp  # noqa: E402

pytestmark = pytest.mark.parity

SIZES = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
CAPPED = {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 5}
SIX = {"num_hidden_layers": 6}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"rope_theta": 500.0}),
    "llama biases tied": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama wide heads": ("Llama", {"head_dim": 10}),
    "llama 3": ("Llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, **LLAMA3}}),
    "llama linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 128}),
    "gemma": ("Gemma", {"head_dim": 10}),
    "gemma2": ("Gemma2", CAPPED),
    "gemma3": ("Gemma3", CAPPED | SIX),
    "gemma3 scaled": (
        "Gemma3",
        CAPPED
        | SIX
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 900.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 90.0},
            }
        },
    ),
    "phi3": ("Phi3", {}),
    "phi3 partial, window": (
        "Phi3",
        {
            "sliding_window": 5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
        },
    ),
    "gpt2": ("GPT2", {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": 61, "n_positions": 1024}),
    "olmo2": ("Olmo2", {}),
}
# What transformers' reader leaves to its defaults, or does not read at all: the original model is the judge alone.
NOT_READ = {"llama 3", "llama linear", "mistral", "gemma", "gemma3 scaled", "olmo2"}
NOT_READ |= {"llama wide heads", "llama biases tied", "phi3 partial, window"}


def peer_of(kind: str) -> Any:
    name, options = KINDS[kind]
    config_name = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    head = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    torch.manual_seed(0)
    sizes = options if name == "GPT2" else SIZES | options
    peer = getattr(transformers, head)(getattr(transformers, config_name)(**sizes, attn_implementation="eager"))
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return peer.eval()


def logits_of(peer: Any, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return peer(torch.tensor(tokens)).logits.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind: str, tmp_path: Path) -> None:
    peer = peer_of(kind)
    tensors = {name: value.numpy() for name, value in peer.state_dict().items()}
    words = {"ggml.model": "gpt2", "ggml.pre": "gpt-2", "ggml.tokens": [f"w{i}" for i in range(61)]}
    words |= {"ggml.merges": ["w 0"], "ggml.padding_token_id": 0}
    llama_cpp.write(tmp_path / "a.gguf", peer.config.to_dict(), tensors, tokenizer={"ggml.model": "none"})
    tokens = np.random.default_rng(1).integers(0, 61, (3, 40))
    want = logits_of(peer, tokens)
    for scan_layers in (False, True):
        model, _ = models.load(tmp_path / "a.gguf", scan_layers=scan_layers)
        np.testing.assert_allclose(model(tokens), want, atol=1e-4)
    if kind not in NOT_READ:
        llama_cpp.write(tmp_path / "b.gguf", peer.config.to_dict(), tensors, tokenizer=words)
        read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="b.gguf", dtype=torch.float32)
        np.testing.assert_allclose(logits_of(read.eval(), tokens), want, atol=1e-4)


def test_expressions_that_split_text_are_those_of_transformers() -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS as theirs

    shared = set(theirs) & set(gguf_tokenizer.SPLITS)
    assert len(shared) >= 15 and {"llama-bpe", "qwen2", "tekken", "gpt-4o", "dbrx"} <= shared
    assert {name: gguf_tokenizer.SPLITS[name] for name in shared} == {name: theirs[name] for name in shared}
