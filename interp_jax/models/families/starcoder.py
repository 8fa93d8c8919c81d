"""StarCoder 2."""

from typing import Any

from interp_jax.models.config import Config
from interp_jax.models.families.formats import Family, linear
from interp_jax.models.families.llama import ATTENTION, ENDS, FIELDS, IGNORED, PRE_NORMS, UNREAD
from interp_jax.models.families.options import Options
from interp_jax.models.families.positions import read_rope, windowed, write_rope

_OWN: dict[str, tuple[str, Any]] = {
    "hidden_act": ("act", "gelu_pytorch_tanh"),
    "norm_epsilon": ("norm_eps", 1e-5),
    "use_bias": ("attn_bias", True),
    "tie_word_embeddings": ("tie_embeddings", True),
}


def _read(option: Options, fields: dict[str, Any]) -> dict[str, Any]:
    everywhere = windowed(fields, option("sliding_window", None, int))
    return read_rope(option, fields) | {"mlp_bias": fields["attn_bias"]} | everywhere


def _write(config: Config) -> dict[str, Any]:
    return write_rope(config) | {"sliding_window": config.window or None}


STARCODER2 = Family(
    architecture="Starcoder2ForCausalLM",
    base="Starcoder2Model",
    fields={name: ours for name, ours in FIELDS.items() if name != "rms_norm_eps"} | _OWN,
    constant={"positions": "rotary"},
    unread=UNREAD - {"sliding_window"},
    read=_read,
    write=_write,
    prefix="model.",
    names=(
        *ENDS,
        *PRE_NORMS,
        *ATTENTION,
        *linear("layers.{}.mlp.c_fc", "blocks.{}.mlp.in"),
        *linear("layers.{}.mlp.c_proj", "blocks.{}.mlp.out"),
    ),
    ignored=IGNORED,
)
