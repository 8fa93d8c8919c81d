"""Gemma 1, 2 and 3 (text): norms of 1 + w, scaled embeddings; then soft caps, post-norms and local layers."""

from typing import Any

from interp_jax.models.config import Config
from interp_jax.models.families.formats import Family, norm
from interp_jax.models.families.llama import (
    ATTENTION,
    CONSTANT,
    ENDS,
    FIELDS,
    IGNORED,
    MLP,
    NAMES,
    QK_NORMS,
    UNREAD,
)
from interp_jax.models.families.options import Options
from interp_jax.models.families.positions import (
    read_layers,
    read_rope,
    read_scaling,
    take_theta,
    write_layers,
    write_rope,
)

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
    base="GemmaModel",
    fields=_FIELDS,
    constant=_CONSTANT,
    fixed={"use_bidirectional_attention": (False,)},
    unread=UNREAD,
    read=_read_gemma,
    write=lambda config: {"hidden_act": "gelu_pytorch_tanh", **write_rope(config)},
    prefix="model.",
    names=NAMES,
    ignored=IGNORED,
)


def _read_scores(option: Options, logits: float) -> dict[str, Any]:
    """The fields of the logits' soft cap and of the scale of attention's scores; an explicit null turns a cap off."""
    return {
        "logit_softcap": option.nullable("final_logit_softcapping", logits, float) or 0.0,
        "attn_scale": option.positive("query_pre_attn_scalar", 256) ** -0.5,
    }


def _write_scores(config: Config) -> dict[str, Any]:
    return {
        "final_logit_softcapping": config.logit_softcap or None,
        "query_pre_attn_scalar": round(config.score_scale**-2),  # of transformers' own type
    }


def _write_windows(config: Config) -> dict[str, Any]:
    """A width in any case: transformers makes the mask of local layers of a model that has none, too."""
    return write_layers(config) | {"sliding_window": config.window or config.n_ctx}


def _read_gemma2(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    window = option("sliding_window", 4096, int)
    layers = read_layers(option, lambda layer: layer % 2 == 0, fields["n_layers"], window)
    attn_softcap = option.nullable("attn_logit_softcapping", 50.0, float) or 0.0
    return {"attn_softcap": attn_softcap, **_read_scores(option, 30.0), **layers, **read_rope(option, fields)}


GEMMA2 = Family(
    architecture="Gemma2ForCausalLM",
    base="Gemma2Model",
    fields=_CAPPED,
    constant=_CONSTANT | {"norms": "both"},
    fixed={"use_bidirectional_attention": (False,)},
    unread=UNREAD | {"hidden_act", "cache_implementation"},  # early configs have hidden_act too, which is not read
    read=_read_gemma2,
    write=lambda config: (
        {"attn_logit_softcapping": config.attn_softcap or None}
        | _write_scores(config)
        | _write_windows(config)
        | write_rope(config)
    ),
    prefix="model.",
    names=(*ENDS, *_FOUR_NORMS, *ATTENTION, *MLP),
    ignored=IGNORED,
)


def _read_gemma3(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    """Local layers have rotary angles of their own, which are not stretched.

    There is no cap of attention's scores: transformers' model does not read `attn_logit_softcapping`.
    """
    pattern, ropes = option.size("sliding_window_pattern", 6), option.inside("rope_parameters")
    everywhere = {**ropes.inside("full_attention").hf, **option.inside("rope_scaling").hf}
    nearby = dict(ropes.inside("sliding_attention").hf)
    theta, local_theta = option.positive("rope_theta", 1e6), option.positive("rope_local_base_freq", 1e4)
    rotary = {
        "rope_theta": take_theta(option, everywhere, theta),
        "rope_local_theta": take_theta(option, nearby, local_theta),
        **read_scaling(option, everywhere, fields["n_ctx"]),
    }
    if read_scaling(option, nearby, fields["n_ctx"]):
        raise option.unsupported(f"rope_parameters of sliding_attention {nearby}")
    window = option("sliding_window", 4096, int)
    layers = read_layers(option, lambda layer: (layer + 1) % pattern != 0, fields["n_layers"], window)
    return _read_scores(option, 0.0) | layers | rotary


GEMMA3 = Family(
    architecture="Gemma3ForCausalLM",
    base="Gemma3TextModel",
    fields=_CAPPED,
    constant=_CONSTANT | {"norms": "both", "qk_norm": "head"},
    fixed={"use_bidirectional_attention": (False,)},
    unread=UNREAD,
    read=_read_gemma3,
    write=lambda config: (
        _write_scores(config)
        | _write_windows(config)
        | write_rope(config)
        | {"rope_local_base_freq": config.rope_local_theta}
    ),
    prefix="model.",
    names=(*ENDS, *_FOUR_NORMS, *ATTENTION, *QK_NORMS, *MLP),
    ignored=IGNORED,
)
