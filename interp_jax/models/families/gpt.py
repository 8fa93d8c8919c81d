"""GPT-2 and GPT-NeoX (Pythia)."""

from dataclasses import replace
from typing import Any

from interp_jax.models.config import Config
from interp_jax.models.families.formats import Family, Rename, linear, norm
from interp_jax.models.families.options import REQUIRED, Options
from interp_jax.models.families.positions import read_rope, write_rope


def _read_gpt2(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    return {"d_mlp": option.size("n_inner", 4 * fields["d_model"])}


GPT2 = Family(
    architecture="GPT2LMHeadModel",
    base="GPT2Model",
    fields={
        "n_layer": ("n_layers", REQUIRED),
        "n_head": ("n_heads", REQUIRED),
        "n_embd": ("d_model", REQUIRED),
        "vocab_size": ("d_vocab", REQUIRED),
        "n_positions": ("n_ctx", REQUIRED),
        "activation_function": ("act", "gelu_new"),
        "layer_norm_epsilon": ("norm_eps", 1e-5),
        "tie_word_embeddings": ("tie_embeddings", True),
        "is_causal": ("causal", True),
    },
    aliases={
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
    },
    fixed={
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    # reorder_and_upcast_attn is the same equation in more precision; our softmax is in float32 anyway.
    unread=frozenset(
        "reorder_and_upcast_attn attn_pdrop embd_pdrop resid_pdrop n_ctx n_special predict_special_tokens is_decoder "
        "summary_activation summary_first_dropout summary_last_dropout summary_proj_to_labels summary_type "
        "summary_use_proj classifier_dropout hidden_dropout".split()
    ),
    read=_read_gpt2,
    write=lambda config: {"n_inner": config.d_mlp},
    prefix="transformer.",
    names=(
        Rename("wte.weight", ("w_e",)),
        Rename("wpe.weight", ("w_pos",)),
        *norm("h.{}.ln_1", "blocks.{}.ln1"),
        *linear("h.{}.attn.c_attn", *(f"blocks.{{}}.attn.{x}" for x in "qkv"), transpose=False),
        *linear("h.{}.attn.c_proj", "blocks.{}.attn.o", transpose=False),
        *norm("h.{}.ln_2", "blocks.{}.ln2"),
        *linear("h.{}.mlp.c_fc", "blocks.{}.mlp.in", transpose=False),
        *linear("h.{}.mlp.c_proj", "blocks.{}.mlp.out", transpose=False),
        *norm("ln_f", "ln_final"),
    ),
    ignored=(".attn.bias", ".attn.masked_bias"),
)


def _read_neox(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    return read_rope(option, fields, theta=("rotary_emb_base", 10000.0), share=("rotary_pct", 0.25))


def _write_neox(config: Config) -> dict[str, Any]:
    # The share is always written: it is a quarter where it is absent.
    return {"rotary_pct": 1.0, **write_rope(config, theta="rotary_emb_base", share="rotary_pct")}


NEOX = Family(
    architecture="GPTNeoXForCausalLM",
    base="GPTNeoXModel",
    fields={
        "num_hidden_layers": ("n_layers", REQUIRED),
        "num_attention_heads": ("n_heads", REQUIRED),
        "hidden_size": ("d_model", REQUIRED),
        "intermediate_size": ("d_mlp", REQUIRED),
        "vocab_size": ("d_vocab", REQUIRED),
        "max_position_embeddings": ("n_ctx", REQUIRED),
        "hidden_act": ("act", "gelu"),
        "layer_norm_eps": ("norm_eps", 1e-5),
        "use_parallel_residual": ("parallel", True),
        "attention_bias": ("attn_bias", True),
        "tie_word_embeddings": ("tie_embeddings", False),
        "is_causal": ("causal", True),
    },
    constant={"positions": "rotary"},
    unread=frozenset({"hidden_dropout", "classifier_dropout", "is_decoder"}),
    read=_read_neox,
    write=_write_neox,
    prefix="gpt_neox.",
    names=(
        Rename("embed_in.weight", ("w_e",)),
        *norm("layers.{}.input_layernorm", "blocks.{}.ln1"),
        *linear("layers.{}.attention.query_key_value", *(f"blocks.{{}}.attn.{x}" for x in "qkv"), interleaved=True),
        *linear("layers.{}.attention.dense", "blocks.{}.attn.o"),
        *norm("layers.{}.post_attention_layernorm", "blocks.{}.ln2"),
        *linear("layers.{}.mlp.dense_h_to_4h", "blocks.{}.mlp.in"),
        *linear("layers.{}.mlp.dense_4h_to_h", "blocks.{}.mlp.out"),
        *norm("final_layer_norm", "ln_final"),
    ),
    head=(Rename("embed_out.weight", ("w_u",), transpose=True),),
    spellings={"lm_head.weight": "embed_out.weight"},  # of transformers since 5.14
    ignored=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
)

# The same with linear layers that hold [out in], as files of llama.cpp and of nanoGPT do.
GPT2_LINEAR = replace(GPT2, names=tuple(replace(r, transpose="{}" in r.hf and not r.vector) for r in GPT2.names))
