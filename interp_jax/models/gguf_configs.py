"""The metadata of llama.cpp's files as Hugging Face configs, one function for each architecture.

What llama.cpp's files leave out is what llama.cpp computes: the scale of Gemma's scores and the pattern of its local
layers. https://github.com/ggml-org/llama.cpp, src/models.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from interp_jax.io.gguf_files import Rows
from interp_jax.models.families.options import Options

HF = dict[str, Any]
# Keys that repeat what the tensors show, or tell of training, sampling or llama.cpp's own work.
_UNREAD = frozenset(
    "vocab_size tensor_data_layout rope.scaling.finetuned rope.scaling.original_context_length pooling_type "
    "attention.max_alibi_bias use_parallel_residual expert_used_count".split()
)
N_CTX = 8192  # the original context of every Llama 3
_PER_LAYER = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")


def hf_config(architecture: str, where: str, metadata: Mapping[str, Any], tensors: Mapping[str, Rows]) -> HF:
    """The config of a file.

    Args:
      architecture: one of `ARCHITECTURES`.
      where: the file, for errors.
      metadata, tensors: as `gguf_files.read` returns them.

    Raises:
      ValueError: a key is missing, of a wrong kind, or asks for what the models do not have.
    """
    prefix = f"{architecture}."
    ours = {key.removeprefix(prefix): _value(value) for key, value in metadata.items() if key.startswith(prefix)}
    for key in _PER_LAYER:  # one number for each layer, of which the models have one for all
        if isinstance(ours.get(key), list) and len(set(ours[key])) == 1:
            ours[key] = ours[key][0]
    option = Options(where, ours, _UNREAD)
    _check_depth(option, tensors)
    if "token_embd.weight" not in tensors:
        raise ValueError(f"{where}: the file has no token_embd.weight; it holds no language model, or a part of one")
    option.only("expert_count", 0)
    hf = ARCHITECTURES[architecture](option, tensors)
    option.done()
    return hf | {"tie_word_embeddings": "output.weight" not in tensors}


def _value(value: Any) -> Any:
    """A number as it was before it was rounded to float32, such as 1e-5."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _check_depth(option: Options, tensors: Mapping[str, Rows]) -> None:
    layers = {int(name.split(".")[1]) for name in tensors if name.startswith("blk.")}
    n_layers, there = option.size("block_count"), max(layers, default=-1) + 1
    if n_layers != there:
        raise ValueError(
            f"{option}: 'block_count' is {n_layers}, the weights are of {there} layers; is the file whole?"
        )


def _common(option: Options, tensors: Mapping[str, Rows], *, partial: bool = False) -> HF:
    """What all but GPT-2 share."""
    d_model, n_heads = option.size("embedding_length"), option.size("attention.head_count")
    d_head = option.size("attention.key_length", d_model // n_heads)
    n_rotary, theta = option.size("rope.dimension_count", d_head), option.positive("rope.freq_base", 10000.0)
    option.only("attention.value_length", d_head)
    if n_rotary != d_head and not partial:
        raise option.unsupported(f"rope.dimension_count={n_rotary}", (d_head,))
    share = {} if n_rotary == d_head else {"partial_rotary_factor": (n_rotary + 0.5) / d_head}  # safe from rounding
    return share | {
        "num_hidden_layers": option.size("block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": option.size("attention.head_count_kv", n_heads),
        "hidden_size": d_model,
        "intermediate_size": option.size("feed_forward_length"),
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "max_position_embeddings": option.size("context_length"),
        "rms_norm_eps": option.positive("attention.layer_norm_rms_epsilon"),
        "head_dim": d_head,
        "is_causal": option("attention.causal", True, bool),
        "rope_theta": theta,
        "rope_scaling": _scaling(option, tensors, theta, n_rotary),
    }


def _scaling(option: Options, tensors: Mapping[str, Rows], theta: float, n_rotary: int) -> HF | None:
    """How the rotary angles are stretched. A type of scaling without a factor does not stretch them."""
    kind, factor = option("rope.scaling.type", "linear", str), option("rope.scaling.factor", 0.0, float)
    factor = factor or option("rope.scale_linear", 0.0, float) or 1.0
    if kind not in ("none", "linear") or "rope_factors_long.weight" in tensors:
        kind = "longrope" if kind in ("none", "linear") else kind
        raise option.unsupported(f"rope.scaling.type={kind!r}", ("none", "linear", "that of Llama 3"))
    option.only("rope.scaling.attn_factor", 1.0)
    stretched = kind == "linear" and factor != 1.0
    if "rope_freqs.weight" in tensors:
        if stretched:
            raise option.unsupported("rope.scaling.type='linear' beside rope_freqs.weight")
        return llama3_scaling(str(option), tensors["rope_freqs.weight"].read(0, 1)[0], theta, n_rotary)
    return {"rope_type": "linear", "factor": factor} if stretched else None


def llama3_scaling(where: str, factors: np.ndarray, theta: float, n_rotary: int) -> HF | None:
    """The scaling of Llama 3 whose divisors of the frequencies are `factors`, float32 `[n_rotary / 2]`.

    Slow frequencies are divided by the factor, fast ones by 1; between, the inverse divisor rises linearly with the
    turns that a frequency makes in the original context. Only where it rises shows: the usual numbers are taken if they
    fit, else a line through what is seen.

    Raises:
      ValueError: no such numbers give these divisors.
    """
    if len(factors) != n_rotary // 2 or not (factors > 0).all():
        raise ValueError(f"{where}: rope_freqs.weight must hold {n_rotary // 2} numbers above 0, not {factors.shape}")
    if (factors == 1).all():
        return None
    factor = float(factors.max())
    turns = theta ** (-np.arange(0, n_rotary, 2) / n_rotary) / (2 * np.pi)  # in a context of one token
    kept = (1 / factors.astype(np.float64) - 1 / factor) / (1 - 1 / factor)
    if not kept.any():
        return {"rope_type": "linear", "factor": factor}
    for low, high in ((1.0, 4.0), _line(N_CTX * turns, kept)):
        found = np.clip((N_CTX * turns - low) / (high - low), 0, 1)
        if np.allclose(1 / (found + (1 - found) / factor), factors, rtol=1e-5, atol=0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": N_CTX,
            }
    raise ValueError(f"{where}: rope_freqs.weight is not the scaling of Llama 3, and no other is supported")


def _line(turns: np.ndarray, kept: np.ndarray) -> tuple[float, float]:
    """Where a line through what rises is 0 and where it is 1. Of fewer than two points the flattest line that fits."""
    rising = (kept > 1e-4) & (kept < 1 - 1e-4)
    if rising.sum() >= 2:
        slope, start = np.polyfit(turns[rising], kept[rising], 1)
        return float(-start / slope), float((1 - start) / slope)
    below, above = turns[kept <= 1e-4].max(initial=0.0), turns[kept >= 1 - 1e-4].min(initial=turns.max() * 2)
    if not rising.any():
        return float(below + (above - below) / 3), float(above - (above - below) / 3)
    at, height = turns[rising][0], kept[rising][0]
    slope = max(height / (at - below), (1 - height) / (above - at))
    return float(at - height / slope), float(at + (1 - height) / slope)


def _llama(option: Options, tensors: Mapping[str, Rows]) -> HF:
    biases = {"attention_bias": "blk.0.attn_q.bias" in tensors, "mlp_bias": "blk.0.ffn_up.bias" in tensors}
    return {"architectures": ["LlamaForCausalLM"], **_common(option, tensors), **biases}


def _qwen2(option: Options, tensors: Mapping[str, Rows]) -> HF:
    return {"architectures": ["Qwen2ForCausalLM"], **_common(option, tensors)}


def _biased(architecture: str) -> Callable[[Options, Mapping[str, Rows]], HF]:
    """An architecture with nothing of its own but, maybe, biases of attention."""

    def config(option: Options, tensors: Mapping[str, Rows]) -> HF:
        bias = {"attention_bias": "blk.0.attn_q.bias" in tensors}
        return {"architectures": [architecture], **_common(option, tensors), **bias}

    return config


def _phi3(option: Options, tensors: Mapping[str, Rows]) -> HF:
    window = {"sliding_window": option("attention.sliding_window", None, int)}
    return {"architectures": ["Phi3ForCausalLM"], **_common(option, tensors, partial=True), **window}


def _caps(option: Options, hf: HF, deepest: int) -> HF:
    """Soft caps, and the scale of the scores: 1 / sqrt(d_head), but in the 27B models, which are the deepest."""
    per_head = hf["hidden_size"] // hf["num_attention_heads"]
    return {
        "attn_logit_softcapping": option("attn_logit_softcapping", None, float),
        "final_logit_softcapping": option("final_logit_softcapping", None, float),
        "query_pre_attn_scalar": per_head if hf["num_hidden_layers"] == deepest else hf["head_dim"],
    }


def _gemma2(option: Options, tensors: Mapping[str, Rows]) -> HF:
    hf = _common(option, tensors)
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    caps |= {key: value for key, value in _caps(option, hf, 46).items() if value is not None}
    window = {"sliding_window": option.size("attention.sliding_window", 4096)}
    return {"architectures": ["Gemma2ForCausalLM"], **hf, **caps, **window}


def _gemma3(option: Options, tensors: Mapping[str, Rows]) -> HF:
    hf = _common(option, tensors)
    window, pattern = option("attention.sliding_window", None, int), option("attention.sliding_window_pattern", 6)
    if isinstance(pattern, list):
        layers: HF = {"layer_types": ["sliding_attention" if local else "full_attention" for local in pattern]}
    else:
        layers = {"sliding_window_pattern": pattern}
    if not window:  # and so no layer is local
        window, layers = 1, {"layer_types": ["full_attention"] * hf["num_hidden_layers"]}
    local = {"rope_local_base_freq": option.positive("rope.freq_base_swa", 10000.0), "sliding_window": window}
    return {"architectures": ["Gemma3ForCausalLM"], **hf, **_caps(option, hf, 62), **local, **layers}


def _gpt2(option: Options, tensors: Mapping[str, Rows]) -> HF:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": option.size("block_count"),
        "n_head": option.size("attention.head_count"),
        "n_embd": option.size("embedding_length"),
        "n_inner": option.size("feed_forward_length"),
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "n_positions": option.size("context_length"),
        "layer_norm_epsilon": option.positive("attention.layer_norm_epsilon"),
        "is_causal": option("attention.causal", True, bool),
    }


ARCHITECTURES: dict[str, Callable[[Options, Mapping[str, Rows]], HF]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _biased("Qwen3ForCausalLM"),
    "gemma": _biased("GemmaForCausalLM"),
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "gpt2": _gpt2,
    "olmo2": _biased("Olmo2ForCausalLM"),
}
