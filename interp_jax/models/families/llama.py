"""Llama and those that differ from it by a few options: Mistral, Qwen 2 and 3, OLMo 2, Phi 3."""

from typing import Any

from interp_jax.models.config import Config
from interp_jax.models.families.formats import Family, Rename, linear, norm
from interp_jax.models.families.options import REQUIRED, Options
from interp_jax.models.families.positions import read_layers, read_rope, windowed, write_layers, write_rope

FIELDS: dict[str, tuple[str, Any]] = {
    "num_hidden_layers": ("n_layers", REQUIRED),
    "num_attention_heads": ("n_heads", REQUIRED),
    "num_key_value_heads": ("n_kv_heads", 0),
    "hidden_size": ("d_model", REQUIRED),
    "intermediate_size": ("d_mlp", REQUIRED),
    "vocab_size": ("d_vocab", REQUIRED),
    "max_position_embeddings": ("n_ctx", REQUIRED),
    "rms_norm_eps": ("norm_eps", 1e-6),
    "tie_word_embeddings": ("tie_embeddings", False),
    "head_dim": ("d_head", 0),
    "is_causal": ("causal", True),
}
_ACT: dict[str, tuple[str, Any]] = {"hidden_act": ("act", "silu")}
_BIAS: dict[str, tuple[str, Any]] = {"attention_bias": ("attn_bias", False)}
CONSTANT: dict[str, Any] = {"gated": True, "norm": "rmsnorm", "positions": "rotary", "mlp_bias": False}
IGNORED = (".rotary_emb.inv_freq",)
# Of configs that were copied from one family to the next.
UNREAD = frozenset(
    "sliding_window use_sliding_window max_window_layers layer_types hidden_dropout resid_pdrop embd_pdrop "
    "rope_interleaved is_llama_config use_mrope original_max_position_embeddings hidden_activation".split()
)

ATTENTION = tuple(r for x in "qkvo" for r in linear(f"layers.{{}}.self_attn.{x}_proj", f"blocks.{{}}.attn.{x}"))
QK_NORMS = tuple(r for x in "qk" for r in norm(f"layers.{{}}.self_attn.{x}_norm", f"blocks.{{}}.attn.{x}_norm"))
MLP = (
    *linear("layers.{}.mlp.gate_proj", "blocks.{}.mlp.gate"),
    *linear("layers.{}.mlp.up_proj", "blocks.{}.mlp.in"),
    *linear("layers.{}.mlp.down_proj", "blocks.{}.mlp.out"),
)
ENDS = (Rename("embed_tokens.weight", ("w_e",)), *norm("norm", "ln_final"))
PRE_NORMS = (
    *norm("layers.{}.input_layernorm", "blocks.{}.ln1"),
    *norm("layers.{}.post_attention_layernorm", "blocks.{}.ln2"),
)
NAMES = (*ENDS, *PRE_NORMS, *ATTENTION, *MLP)

LLAMA = Family(
    architecture="LlamaForCausalLM",
    base="LlamaModel",
    fields=FIELDS | _ACT | _BIAS | {"mlp_bias": ("mlp_bias", False)},
    constant={name: value for name, value in CONSTANT.items() if name != "mlp_bias"},
    fixed={"pretraining_tp": (1,)},
    unread=UNREAD,
    read=read_rope,
    write=write_rope,
    prefix="model.",
    names=NAMES,
    ignored=IGNORED,
)


def _read_mistral(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    return read_rope(option, fields) | windowed(fields, option.nullable("sliding_window", 4096, int))


def _read_phi(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    rope = read_rope(option, fields, share=("partial_rotary_factor", 1.0))
    if "rope_scaling" in rope:  # of Phi 3 transformers has longrope and no other
        raise option.unsupported(f"rope_scaling of type {rope['rope_scaling']!r}")
    return rope | windowed(fields, option("sliding_window", None, int))


MISTRAL = Family(
    architecture="MistralForCausalLM",
    base="MistralModel",
    fields=FIELDS | _ACT,
    constant=CONSTANT | {"attn_bias": False},
    unread=UNREAD,
    read=_read_mistral,
    write=lambda config: write_rope(config) | {"sliding_window": config.window or None},
    prefix="model.",
    names=NAMES,
    ignored=IGNORED,
)


def _read_qwen(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    window, first = option("sliding_window", 4096, int), option("max_window_layers", 28, int)
    if not option("use_sliding_window", False, bool):
        window = None
    layers = read_layers(option, lambda layer: layer >= first, fields["n_layers"], window)
    return read_rope(option, fields) | layers


def _write_qwen(config: Config) -> dict[str, Any]:
    first = min(config.local_layers, default=config.n_layers)
    return (
        write_rope(config)
        | write_layers(config)
        | {"use_sliding_window": bool(config.window), "max_window_layers": first}
    )


QWEN2 = Family(
    architecture="Qwen2ForCausalLM",
    base="Qwen2Model",
    fields=FIELDS | _ACT,
    constant=CONSTANT | {"attn_bias": True, "out_bias": False},
    unread=UNREAD,
    read=_read_qwen,
    write=_write_qwen,
    prefix="model.",
    names=NAMES,
    ignored=IGNORED,
)

QWEN3 = Family(
    architecture="Qwen3ForCausalLM",
    base="Qwen3Model",
    fields=FIELDS | {"head_dim": ("d_head", 128)} | _ACT | _BIAS,
    constant=CONSTANT | {"qk_norm": "head"},
    unread=UNREAD,
    read=_read_qwen,
    write=_write_qwen,
    prefix="model.",
    names=(*NAMES, *QK_NORMS),
    ignored=IGNORED,
)

OLMO2 = Family(
    architecture="Olmo2ForCausalLM",
    base="Olmo2Model",
    fields=FIELDS | _ACT | _BIAS | {"rms_norm_eps": ("norm_eps", 1e-5)},
    constant=CONSTANT | {"qk_norm": "all", "norms": "post"},
    unread=UNREAD,
    read=read_rope,
    write=write_rope,
    prefix="model.",
    names=(
        *ENDS,
        *norm("layers.{}.post_attention_layernorm", "blocks.{}.ln1_post"),
        *norm("layers.{}.post_feedforward_layernorm", "blocks.{}.ln2_post"),
        *ATTENTION,
        *QK_NORMS,
        *MLP,
    ),
    ignored=IGNORED,
)

PHI3 = Family(
    architecture="Phi3ForCausalLM",
    base="Phi3Model",
    fields=FIELDS | _ACT | {"rms_norm_eps": ("norm_eps", 1e-5)},
    constant=CONSTANT | {"attn_bias": False},
    unread=UNREAD,
    read=_read_phi,
    write=lambda config: write_rope(config) | {"sliding_window": config.window or None},
    prefix="model.",
    names=(
        *ENDS,
        *PRE_NORMS,
        *linear("layers.{}.self_attn.qkv_proj", *(f"blocks.{{}}.attn.{x}" for x in "qkv")),
        *linear("layers.{}.self_attn.o_proj", "blocks.{}.attn.o"),
        *linear("layers.{}.mlp.gate_up_proj", "blocks.{}.mlp.gate", "blocks.{}.mlp.in"),
        *linear("layers.{}.mlp.down_proj", "blocks.{}.mlp.out"),
    ),
    ignored=IGNORED,
)
