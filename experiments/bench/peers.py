"""Random models of every family, as transformers makes them: what the parity table and the parity tests hold us to."""

from typing import Any

import torch
import transformers

COMMON = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 61,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
GROUPED = COMMON | {"num_key_value_heads": 2}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LOCAL = ["sliding_attention", "full_attention", "sliding_attention"]
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {  # the name of the classes in transformers, and sizes
    "gpt2": ("GPT2", {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": 61, "n_positions": 40}),
    "gpt_neox": ("GPTNeoX", COMMON),
    "llama": ("Llama", COMMON),
    "mistral": ("Mistral", GROUPED),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", GROUPED | {"head_dim": 10}),
    "gemma": ("Gemma", GROUPED | {"head_dim": 10}),
    "gemma2": ("Gemma2", GROUPED | {"head_dim": 10, "query_pre_attn_scalar": 9, "sliding_window": 5}),
    "gemma3": ("Gemma3", GROUPED | {"head_dim": 10, "query_pre_attn_scalar": 9, "sliding_window": 5}),
    "olmo2": ("Olmo2", GROUPED),
    "phi3": ("Phi3", GROUPED),
    "bert": ("Bert", COMMON),
    "starcoder2": ("Starcoder2", GROUPED),
}
KINDS: dict[str, dict[str, Any]] = {  # of decoders
    "gpt2": {},
    "gpt2 relu untied": {"activation_function": "relu", "n_inner": 40, "tie_word_embeddings": False},
    "gpt_neox": {},
    "gpt_neox sequential, half rotary": {
        "use_parallel_residual": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.5},
    },
    "llama": {},
    "llama gqa": {"num_key_value_heads": 2, "head_dim": 10, "rope_theta": 500.0},
    "llama mqa biases tied": {
        "num_key_value_heads": 1,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
        "hidden_act": "gelu",
    },
    "llama 3 scaling": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, **LLAMA3}},
    "llama linear scaling": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    "mistral window": {"sliding_window": 5, "head_dim": 10},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen2 late windows": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    "qwen3": {},
    "qwen3 tied": {"tie_word_embeddings": True, "attention_bias": True},
    "gemma": {},
    "gemma2": {},
    "gemma2 no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None, "layer_types": LOCAL[::-1]},
    "gemma3 pattern": {"layer_types": LOCAL},
    "gemma3 scaled": {
        "layer_types": LOCAL,
        "final_logit_softcapping": 20.0,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 900.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 90.0},
        },
    },
    "olmo2": {},
    "starcoder2": {},
    "starcoder2 window": {"sliding_window": 5, "use_bias": False},
    "phi3 window": {"sliding_window": 5},
    "phi3 partial": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
}


def peer_of(kind: str, seed: int = 0) -> Any:
    """A random model, every bias and norm perturbed so that a swapped weight shows."""
    name, sizes = FAMILIES[kind.split()[0]]
    config_name = "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config"
    head = {"GPT2": "GPT2LMHeadModel", "Bert": "BertForMaskedLM"}.get(name, f"{name}ForCausalLM")
    torch.manual_seed(seed)
    config = getattr(transformers, config_name)(**sizes | KINDS.get(kind, {}), attn_implementation="eager")
    peer = getattr(transformers, head)(config)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return peer.eval()
