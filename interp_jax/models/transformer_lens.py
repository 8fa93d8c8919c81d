"""TransformerLens's state dicts: `HookedTransformer.state_dict()` and the `cfg` that it was made of.

Weights stand as TransformerLens has them, processed or not: where norms were folded (LNPre, RMSPre), they are norms of
gain 1. https://github.com/TransformerLensOrg/TransformerLens
"""

from collections.abc import Mapping
import re
from typing import Any

import numpy as np

from interp_jax.models.checkpoint import Checkpoint, abstract_parameters
from interp_jax.models.config import Config
from interp_jax.models.families.options import Options
from interp_jax.models.tensors import Held

_NORMS = {"LN": "layernorm", "LNPre": "layernorm", "RMS": "rmsnorm", "RMSPre": "rmsnorm", None: "none"}
_SCALING = {  # Llama 3's, under the names that TransformerLens has for it
    "NTK_by_parts_factor": "rope_factor",
    "NTK_by_parts_low_freq_factor": "rope_low_freq_factor",
    "NTK_by_parts_high_freq_factor": "rope_high_freq_factor",
    "NTK_original_ctx_len": "rope_original_n_ctx",
}
_OFF = (  # what changes the forward pass and the decoder does not have
    "post_embedding_ln use_logn_attn use_dynamic_ntk_rope scale_attn_by_inverse_layer_idx rotary_adjacent_pairs "
    "use_yarn_rope use_attention_sinks num_experts clip_qkv load_in_4bit"
).split()
_UNREAD = frozenset(
    "model_name use_hook_mlp_in use_attn_in use_attn_result use_split_qkv_input train_seq_length from_checkpoint "
    "ungroup_grouped_query_attention original_architecture checkpoint_index checkpoint_label_type checkpoint_value "
    "tokenizer_name init_mode n_devices seed init_weights n_params use_hook_tokens tokenizer_prepends_bos device "
    "default_prepend_bos trust_remote_code quantization_method experts_per_token relative_attention_max_distance "
    "relative_attention_num_buckets decoder_start_token_id tie_word_embeddings uses_rms_norm layer_norm_folding "
    "yarn_factor yarn_attention_factor yarn_beta_fast yarn_beta_slow yarn_original_max_position_embeddings "
    "yarn_truncate yarn_global_attn_only norm_topk_prob window_size attn_types use_NTK_by_parts_rope".split()
) | set(_SCALING)
_POST_NORM = ("Olmo2ForCausalLM", "Olmo3ForCausalLM")
_BUFFERS = re.compile(r".*\.attn\.(mask|IGNORE|rotary_sin|rotary_cos)")


def is_one(state: Mapping[str, Any]) -> bool:
    """Whether a state dict has TransformerLens's names."""
    return "embed.W_E" in state


def read(where: str, state: Mapping[str, np.ndarray], cfg: Mapping[str, Any] | Config) -> Checkpoint:
    """A state dict; `cfg`: its config as a dict, or ours.

    Raises:
      ValueError: an option that the decoder does not have, a weight that is missing, left over or of another shape.
    """
    config = cfg if isinstance(cfg, Config) else _config(where, state, cfg)
    wanted, left = abstract_parameters(config), set(state)
    parameters, missing = {}, []
    for path, leaf in wanted.items():
        name = _name(path)
        name = next((other for other in (name, name.replace(".attn.", ".attn._")) if other in state), name)
        left.discard(name)
        if name in state:
            array = np.moveaxis(state[name], 0, 1) if path.endswith((".w_q", ".w_k", ".w_v")) else state[name]
        elif (
            re.search(r"(ln\d(_post)?|ln_final)\.[wb]$", path) or 0 in leaf.shape
        ):  # folded, or no MLP to normalize for
            array = np.broadcast_to(np.float32(path.endswith(".w")), leaf.shape)
        else:
            missing.append(name)
            continue
        if array.shape != leaf.shape:
            raise ValueError(
                f"{where}: {name} has shape {state[name].shape}, which does not fit the config: {leaf.shape}"
            )
        parameters[path] = Held(array)
    if missing:
        raise ValueError(f"{where}: {len(missing)} weights are missing, such as {', '.join(missing[:3])}")
    spare = {"unembed.W_U"} if config.tie_embeddings else set()
    spare |= set() if config.unembed_bias else {"unembed.b_U"}
    extra = sorted(name for name in left - spare if not _BUFFERS.fullmatch(name))
    if extra:
        raise ValueError(f"{where}: {len(extra)} weights have no place in the decoder, such as {', '.join(extra[:3])}")
    return Checkpoint(config, parameters)


def _name(path: str) -> str:
    """`blocks.0.attn.w_q` -> `blocks.0.attn.W_Q`."""
    ends = {"w_e": "embed.W_E", "w_pos": "pos_embed.W_pos", "w_u": "unembed.W_U", "b_u": "unembed.b_U"}
    if path in ends:
        return ends[path]
    room, _, kind = path.rpartition(".")
    letter, _, what = kind.partition("_")
    if not what:  # of a norm
        return path
    return f"{room}.{letter.upper() if letter == 'w' else letter}_{what.upper() if len(what) == 1 else what}"


def _config(where: str, state: Mapping[str, np.ndarray], cfg: Mapping[str, Any]) -> Config:
    option = Options(f"{where}: cfg", cfg, _UNREAD)
    option.only("positional_embedding_type", "standard", "rotary")
    for key in _OFF:
        if option(key, None):
            raise option.unsupported(f"{key}={cfg[key]!r}")
    if cfg.get("original_architecture") in _POST_NORM:
        raise option.unsupported(f"original_architecture={cfg['original_architecture']!r}")
    fields = _sizes(option, state) | _norms(option) | _positions(option, cfg)
    option.done()
    try:
        return Config(**fields)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _sizes(option: Options, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    d_vocab, d_head = option.size("d_vocab"), option.size("d_head")
    words = option("d_vocab_out", d_vocab, int)
    if words not in (d_vocab, -1):
        raise option.unsupported(f"d_vocab_out={words} beside d_vocab={d_vocab}")
    only = option("attn_only", False, bool)
    tied = np.array_equal(state["embed.W_E"].T, state.get("unembed.W_U", np.empty(0)))
    scaled, divisor = option("use_attn_scale", True, bool), option("attn_scale", -1.0)
    option("dtype", None)
    return {
        "n_layers": option.size("n_layers"),
        "n_heads": option.size("n_heads", 0) or option.size("d_model") // d_head,
        "n_kv_heads": option.size("n_key_value_heads", 0),
        "d_model": option.size("d_model"),
        "d_head": d_head,
        "d_mlp": 0 if only else option.size("d_mlp"),
        "d_vocab": d_vocab,
        "n_ctx": option.size("n_ctx"),
        "act": "relu" if only else option.act("act_fn", "relu"),
        "gated": False if only else option("gated_mlp", False, bool),
        "mlp_bias": "blocks.0.mlp.b_out" in state,
        "tie_embeddings": tied,
        "unembed_bias": bool(np.any(state.get("unembed.b_U", 0))),
        "attn_scale": (0.0 if divisor == -1 else 1 / divisor) if scaled else 1.0,
        "attn_softcap": max(option("attn_scores_soft_cap", -1.0), 0.0),
        "logit_softcap": max(option("output_logits_soft_cap", -1.0), 0.0),
        "parallel": option("parallel_attn_mlp", False, bool),
        "qk_norm": "head" if option("use_qk_norm", False, bool) else "none",
        "causal": _is_causal(option),
    }


def _is_causal(option: Options) -> bool:
    option.only("attention_dir", "causal", "bidirectional")
    return option("attention_dir", "causal") == "causal"


def _norms(option: Options) -> dict[str, Any]:
    kind = option.nullable("normalization_type", "LN", str)
    if kind not in _NORMS:
        raise option.unsupported(f"normalization_type={kind!r}", _NORMS)
    if option("final_rms", False, bool) and _NORMS[kind] == "layernorm":
        raise option.unsupported(f"final_rms=True beside normalization_type={kind!r}")
    both = option("use_normalization_before_and_after", False, bool)
    norms = "both" if both and kind is not None else "pre"
    return {"norm": _NORMS[kind], "norms": norms, "norm_eps": option("eps", 1e-5, float)}


def _positions(option: Options, cfg: Mapping[str, Any]) -> dict[str, Any]:
    local = {}
    if option("use_local_attn", False, bool):
        kinds = cfg.get("attn_types") or []
        layers = tuple(i for i, kind in enumerate(kinds) if kind == "local")
        local = {"window": cfg.get("window_size"), "local_layers": layers} if layers else {}
    if option("positional_embedding_type", "standard") == "standard":
        return local
    rope = {
        "positions": "rotary",
        "rope_theta": option.positive("rotary_base", 10000.0),
        "rope_local_theta": option("rotary_base_local", 0.0) if local else 0.0,
        "rotary_dim": option("rotary_dim", 0, int),
    }
    factor = option.positive("rotary_scaling_factor", 1.0)
    if cfg.get("use_NTK_by_parts_rope"):
        rope |= {"rope_scaling": "llama3", **{ours: option(key) for key, ours in _SCALING.items()}}
    elif factor != 1.0:
        rope |= {"rope_scaling": "linear", "rope_factor": factor}
    return local | rope
