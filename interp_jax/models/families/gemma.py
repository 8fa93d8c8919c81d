"""Gemma 1, 2 and 3 (text): norms of 1 + w, scaled embeddings; then soft caps, post-norms and local layers."""

from typing import Any

from interp_jax.models.config import Config
from interp_jax.models.families.formats import Family, Options, norm
from interp_jax.models.families.llama import (
    ATTENTION,
    CONSTANT,
    ENDS,
    FIELDS,
    IGNORED,
    MLP,
    NAMES,
    QK_NORMS,
)
from interp_jax.models.families.positions import read_layers, read_rope, read_scaling, write_layers, write_rope

_FIELDS: dict[str, tuple[str, Any]] = FIELDS | {
    "head_dim": ("d_head", 256),
    "attention_bias": ("attn_bias", False),
    "tie_word_embeddings": ("tie_embeddings", True),
}
_CONSTANT = CONSTANT | {"norm_offset": 1.0, "embed_scale": True}
_CAPPED = _FIELDS | {"hidden_activation": ("act", "gelu_pytorch_tanh")}
_NORMS = {
    "input_layernorm": "ln1",
    "post_attention_layernorm": "ln1_post",
    "pre_feedforward_layernorm": "ln2",
    "post_feedforward_layernorm": "ln2_post",
}
_FOUR_NORMS = tuple(r for hf, ours in _NORMS.items() for r in norm(f"layers.{{}}.{hf}", f"blocks.{{}}.{ours}"))


def _read_gemma(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    # The first releases say gelu and mean its tanh approximation.
    option.only("hidden_act", "gelu_pytorch_tanh", "gelu")
    option.only("hidden_activation", "gelu_pytorch_tanh")
    return {"act": "gelu_new", **read_rope(option, fields)}


GEMMA = Family(
    architecture="GemmaForCausalLM",
    fields=_FIELDS,
    constant=_CONSTANT,
    fixed={"use_bidirectional_attention": (False,)},
    read=_read_gemma,
    write=lambda config: {"hidden_act": "gelu_pytorch_tanh", **write_rope(config)},
    prefix="model.",
    names=NAMES,
    ignored=IGNORED,
)


def _read_caps(option: Options, attn: float, logits: float) -> dict[str, Any]:
    """The fields of soft caps and of the scale of the scores; an explicit null turns a cap off."""
    return {
        "attn_softcap": option.nullable("attn_logit_softcapping", attn) or 0.0,
        "logit_softcap": option.nullable("final_logit_softcapping", logits) or 0.0,
        "attn_scale": option("query_pre_attn_scalar", 256) ** -0.5,
    }


def _write_caps(config: Config) -> dict[str, Any]:
    scalar = config.score_scale**-2
    return {
        "attn_logit_softcapping": config.attn_softcap or None,
        "final_logit_softcapping": config.logit_softcap or None,
        "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
    }


def _read_gemma2(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    local = [i % 2 == 0 for i in range(fields["n_layers"])]
    layers = read_layers(option, local, option("sliding_window", 4096))
    return _read_caps(option, 50.0, 30.0) | layers | read_rope(option, fields)


GEMMA2 = Family(
    architecture="Gemma2ForCausalLM",
    fields=_CAPPED,
    constant=_CONSTANT | {"norms": "both"},
    fixed={"use_bidirectional_attention": (False,)},
    harmless=frozenset({"hidden_act"}),  # in early configs, beside hidden_activation, which is what is read
    read=_read_gemma2,
    write=lambda config: _write_caps(config) | write_layers(config) | write_rope(config),
    prefix="model.",
    names=(*ENDS, *_FOUR_NORMS, *ATTENTION, *MLP),
    ignored=IGNORED,
)


def _read_gemma3(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    """Local layers have rotary angles of their own, which are not stretched."""
    pattern = option("sliding_window_pattern", option("_sliding_window_pattern", 6))
    local = [(i + 1) % pattern != 0 for i in range(fields["n_layers"])]
    ropes = option("rope_parameters", {})
    everywhere = {**(option("rope_scaling", None) or {}), **(ropes.get("full_attention") or {})}
    nearby = dict(ropes.get("sliding_attention") or {})
    theta, local_theta = option("rope_theta", 1e6), option("rope_local_base_freq", 1e4)
    rotary = {
        "rope_theta": everywhere.pop("rope_theta", theta),
        "rope_local_theta": nearby.pop("rope_theta", local_theta),
        **read_scaling(option, everywhere, fields["n_ctx"]),
    }
    if read_scaling(option, nearby, fields["n_ctx"]):
        raise option.unsupported(f"rope_parameters of sliding_attention {nearby}")
    layers = read_layers(option, local, option("sliding_window", 4096))
    return _read_caps(option, 0.0, 0.0) | layers | rotary


GEMMA3 = Family(
    architecture="Gemma3ForCausalLM",
    fields=_CAPPED,
    constant=_CONSTANT | {"norms": "both", "qk_norm": "head"},
    fixed={"use_bidirectional_attention": (False,)},
    read=_read_gemma3,
    write=lambda config: (
        _write_caps(config)
        | write_layers(config)
        | write_rope(config)
        | {"rope_local_base_freq": config.rope_local_theta}
    ),
    prefix="model.",
    names=(*ENDS, *_FOUR_NORMS, *ATTENTION, *QK_NORMS, *MLP),
    ignored=IGNORED,
)
