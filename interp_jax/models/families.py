"""The families: how a Hugging Face config and its weight names map to ours. No forward code.

A family reads every option of the config that it knows. An option that would change the forward pass and that the
decoder does not have is refused by name, and so is one that nobody here has heard of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interp_jax.models.config import Config


@dataclass(frozen=True)
class Rename:
    """One tensor of a checkpoint, `{}` the layer. Several of ours stand side by side on its output axis.

    Hugging Face's linear layers hold `[out in]` and are transposed, GPT-2's hold `[in out]`.
    """

    hf: str
    ours: tuple[str, ...]
    transpose: bool = False


@dataclass(frozen=True)
class Family:
    """A checkpoint format.

    Attributes:
      architecture: the class name that transformers writes in config.json.
      config: HF config dict -> `Config`.
      hf_config: `Config` -> HF config dict.
      prefix: stands before every name but lm_head's, in all but the oldest checkpoints.
      names: the renaming table.
      buffers: ends of the names of constants that old checkpoints hold and that are no weights.
    """

    architecture: str
    config: Callable[[dict[str, Any]], Config]
    hf_config: Callable[[Config], dict[str, Any]]
    prefix: str
    names: tuple[Rename, ...]
    buffers: tuple[str, ...] = ()


# Options of any HF config that do not touch the forward pass of a trained model.
_HARMLESS = set(
    "_name_or_path _attn_implementation_autoset architectures auto_map bos_token_id decoder_start_token_id dtype "
    "eos_token_id finetuning_task gradient_checkpointing id2label initializer_range label2id model_type n_ctx "
    "output_attentions output_hidden_states pad_token_id problem_type return_dict task_specific_params torch_dtype "
    "torchscript transformers_version unk_token_id use_cache".split()
)
_NOTHING = (None, False, 0, 0.0, "", [], {})


class _Options:
    """Reads a config dict and remembers what was read, so that the rest can be refused."""

    def __init__(self, hf: dict[str, Any], family: str, harmless: set[str]):
        self.hf, self.family, self.left = hf, family, set(hf) - _HARMLESS - harmless

    def __call__(self, key: str, default: Any = ...) -> Any:
        self.left.discard(key)
        value = self.hf.get(key)
        if value is not None:
            return value
        if default is ...:
            raise ValueError(f"config.json of family {self.family}: {key!r} is missing")
        return default

    def only(self, key: str, *supported: Any) -> None:
        """An option of which the decoder has only some values, the first one being the default."""
        value = self(key, supported[0])
        if value not in supported:
            raise ValueError(
                f"config.json of family {self.family}: {key}={value!r} is not supported, only "
                + " or ".join(repr(s) for s in supported)
            )

    def done(self) -> None:
        unknown = sorted(key for key in self.left if self.hf[key] not in _NOTHING)
        if unknown:
            raise ValueError(
                f"config.json of family {self.family}: option {unknown[0]}={self.hf[unknown[0]]!r} is not supported; "
                "if it does not change the forward pass, remove it from config.json"
            )


_ACTS = {
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def _act(options: _Options, key: str, default: str) -> Any:
    options.only(key, default, *_ACTS)
    return _ACTS[options(key, default)]


def _gpt2(hf: dict[str, Any]) -> Config:
    # reorder_and_upcast_attn is the same equation in more precision; our softmax is in float32 anyway.
    option = _Options(hf, "gpt2", {"reorder_and_upcast_attn", "attn_pdrop", "embd_pdrop", "resid_pdrop"})
    for key in [key for key in option.left if key.startswith("summary_")]:  # a classification head
        option.left.discard(key)
    option.only("scale_attn_weights", True)
    option.only("scale_attn_by_inverse_layer_idx", False)
    option.only("add_cross_attention", False)
    d_model = option("n_embd")
    config = Config(
        family="gpt2",
        n_layers=option("n_layer"),
        n_heads=option("n_head"),
        d_model=d_model,
        d_mlp=option("n_inner", 4 * d_model),
        d_vocab=option("vocab_size"),
        n_ctx=option("n_positions"),
        act=_act(option, "activation_function", "gelu_new"),
        norm_eps=option("layer_norm_epsilon", 1e-5),
        tie_embeddings=option("tie_word_embeddings", True),
    )
    option.done()
    return config


def _gpt2_hf(config: Config) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_embd": config.d_model,
        "n_inner": config.d_mlp,
        "vocab_size": config.d_vocab,
        "n_positions": config.n_ctx,
        "activation_function": config.act,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _llama(hf: dict[str, Any]) -> Config:
    option = _Options(hf, "llama", {"attention_dropout"})
    rope = {**(option("rope_scaling", None) or {}), **(option("rope_parameters", None) or {})}
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    theta = rope.pop("rope_theta", None) or option("rope_theta", 10000.0)
    if kind != "default" or any(value not in (None, 1, 1.0) for value in rope.values()):
        raise ValueError(f"config.json of family llama: rope_scaling of type {kind!r} {rope} is not supported")
    option.only("partial_rotary_factor", 1.0)
    option.only("pretraining_tp", 1)
    n_heads, d_model = option("num_attention_heads"), option("hidden_size")
    config = Config(
        family="llama",
        n_layers=option("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=option("num_key_value_heads", n_heads),
        d_model=d_model,
        d_head=option("head_dim", d_model // n_heads),
        d_mlp=option("intermediate_size"),
        d_vocab=option("vocab_size"),
        n_ctx=option("max_position_embeddings"),
        act=_act(option, "hidden_act", "silu"),
        gated=True,
        norm="rmsnorm",
        norm_eps=option("rms_norm_eps", 1e-6),
        positions="rotary",
        rope_theta=theta,
        attn_bias=option("attention_bias", False),
        mlp_bias=option("mlp_bias", False),
        tie_embeddings=option("tie_word_embeddings", False),
    )
    option("rope_theta", None)
    option.done()
    return config


def _llama_hf(config: Config) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "hidden_size": config.d_model,
        "head_dim": config.d_head,
        "intermediate_size": config.d_mlp,
        "vocab_size": config.d_vocab,
        "max_position_embeddings": config.n_ctx,
        "hidden_act": config.act,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "attention_bias": config.attn_bias,
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _linear(hf: str, *ours: str, transpose: bool = True) -> tuple[Rename, Rename]:
    """The weight and the bias of a linear layer; `ours` without the leading `w_`."""
    parts = [name.rsplit(".", 1) for name in ours]
    return (
        Rename(f"{hf}.weight", tuple(f"{at}.w_{kind}" for at, kind in parts), transpose),
        Rename(f"{hf}.bias", tuple(f"{at}.b_{kind}" for at, kind in parts)),
    )


def _norm(hf: str, ours: str) -> tuple[Rename, Rename]:
    return Rename(f"{hf}.weight", (f"{ours}.w",)), Rename(f"{hf}.bias", (f"{ours}.b",))


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        architecture="GPT2LMHeadModel",
        config=_gpt2,
        hf_config=_gpt2_hf,
        prefix="transformer.",
        names=(
            Rename("wte.weight", ("w_e",)),
            Rename("wpe.weight", ("w_pos",)),
            *_norm("h.{}.ln_1", "blocks.{}.ln1"),
            *_linear("h.{}.attn.c_attn", *(f"blocks.{{}}.attn.{x}" for x in "qkv"), transpose=False),
            *_linear("h.{}.attn.c_proj", "blocks.{}.attn.o", transpose=False),
            *_norm("h.{}.ln_2", "blocks.{}.ln2"),
            *_linear("h.{}.mlp.c_fc", "blocks.{}.mlp.in", transpose=False),
            *_linear("h.{}.mlp.c_proj", "blocks.{}.mlp.out", transpose=False),
            *_norm("ln_f", "ln_final"),
            Rename("lm_head.weight", ("w_u",), transpose=True),
        ),
        buffers=(".attn.bias", ".attn.masked_bias"),
    ),
    "llama": Family(
        architecture="LlamaForCausalLM",
        config=_llama,
        hf_config=_llama_hf,
        prefix="model.",
        names=(
            Rename("embed_tokens.weight", ("w_e",)),
            *_norm("layers.{}.input_layernorm", "blocks.{}.ln1"),
            *(r for x in "qkvo" for r in _linear(f"layers.{{}}.self_attn.{x}_proj", f"blocks.{{}}.attn.{x}")),
            *_norm("layers.{}.post_attention_layernorm", "blocks.{}.ln2"),
            *_linear("layers.{}.mlp.gate_proj", "blocks.{}.mlp.gate"),
            *_linear("layers.{}.mlp.up_proj", "blocks.{}.mlp.in"),
            *_linear("layers.{}.mlp.down_proj", "blocks.{}.mlp.out"),
            *_norm("norm", "ln_final"),
            Rename("lm_head.weight", ("w_u",), transpose=True),
        ),
        buffers=(".rotary_emb.inv_freq",),
    ),
}


def read_config(hf: dict[str, Any]) -> Config:
    """HF config dict -> `Config`. Raises ValueError at an architecture or an option that is not supported."""
    architectures = hf.get("architectures") or []
    for name, family in FAMILIES.items():
        if family.architecture in architectures or (not architectures and hf.get("model_type") == name):
            return family.config(hf)
    supported = ", ".join(f"{family.architecture} ({name})" for name, family in FAMILIES.items())
    found = ", ".join(architectures) or hf.get("model_type") or "none named"
    raise ValueError(f"config.json: unsupported architecture {found}; supported: {supported}")
