"""What a model is made of, as plain data."""

from dataclasses import dataclass, fields
import math
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class Config:
    """The shape and the kind of a model. Hashable: it is the static part of a model's pytree.

    `family` names the checkpoint format (`interp_jax.models.families`) and changes nothing in the forward pass.

    Raises:
      ValueError: a value that is of another type or not one of those listed, or sizes that do not fit each other.

    Example:
      >>> from interp_jax.models import Config
      >>> Config(n_layers=2, n_heads=4, d_model=32, d_mlp=64, d_vocab=100, n_ctx=16).d_head
      8
    """

    n_layers: int
    n_heads: int
    d_model: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    family: str = "gpt2"
    n_kv_heads: int = 0  # 0: as many as n_heads
    d_head: int = 0  # 0: d_model / n_heads
    act: Literal["gelu_new", "gelu", "relu", "silu"] = "gelu_new"
    gated: bool = False
    attn_bias: bool = True
    out_bias: bool | None = None  # of attention's output; None: as attn_bias
    mlp_bias: bool = True
    tie_embeddings: bool = True
    embed_scale: bool = False  # embeddings are multiplied by sqrt(d_model)
    unembed_bias: bool = False
    headless: bool = False  # no unembedding, and so no logits
    causal: bool = True  # whether a token of a decoder sees only those before it
    n_types: int = 0  # of tokens, in an encoder

    norm: Literal["layernorm", "rmsnorm", "none"] = "layernorm"
    norm_eps: float = 1e-5
    norm_offset: float = 0.0  # a norm multiplies by norm_offset + w
    norms: Literal["pre", "post", "both", "residual"] = "pre"  # of what a part reads, writes, both; of their sum
    qk_norm: Literal["none", "head", "all"] = "none"  # queries and keys: each head by itself, or all together
    parallel: bool = False  # attention and MLP read the same residual stream

    positions: Literal["learned", "rotary"] = "learned"
    rope_theta: float = 10000.0
    rotary_dim: int = 0  # of each head, the leading ones; 0: d_head
    rope_scaling: Literal["none", "linear", "llama3"] = "none"
    rope_factor: float = 1.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_n_ctx: int = 0
    window: int = 0  # how many tokens a local layer sees, itself included
    local_layers: tuple[int, ...] = ()
    rope_local_theta: float = 0.0  # of local layers, which are not scaled then; 0: as the others

    attn_scale: float = 0.0  # 0: 1 / sqrt(d_head)
    attn_softcap: float = 0.0  # scores become cap * tanh(scores / cap); 0: they do not
    logit_softcap: float = 0.0

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            check_value(f"Config: {field.name}", getattr(self, field.name), hints[field.name])
        for name in ("n_layers", "n_heads", "d_model", "d_vocab", "n_ctx"):
            if getattr(self, name) < 1:
                raise ValueError(f"Config: {name} must be at least 1, not {getattr(self, name)}")
        if not self.n_kv_heads:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if not self.d_head:
            if self.d_model % self.n_heads:
                raise ValueError(
                    f"Config: d_model {self.d_model} is not divisible by n_heads {self.n_heads}; give d_head"
                )
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"Config: n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if self.positions == "rotary" and (self.n_rotary % 2 or self.n_rotary > self.d_head):
            raise ValueError(
                f"Config: rotary positions need an even number of dimensions, at most d_head {self.d_head}, "
                f"not {self.n_rotary}"
            )
        if self.norm == "none" and self.norms == "residual":
            raise ValueError("Config: norms='residual' are norms of the stream: norm must be 'layernorm' or 'rmsnorm'")
        encoder = self.norms == "residual"
        if self.n_types and not encoder:
            raise ValueError("Config: n_types are of an encoder, whose norms are 'residual'")
        lacking = {"positions": "learned", "embed_scale": False, "parallel": False, "window": 0, "logit_softcap": 0.0}
        lacking |= {"tie_embeddings": True, "unembed_bias": False}
        for name, only in lacking.items() if encoder else ():
            if getattr(self, name) != only:
                raise ValueError(
                    f"Config: norms='residual' are those of an encoder, which has {name}={only!r} and no other"
                )
        if self.headless and self.unembed_bias:
            raise ValueError("Config: a headless model has no unembedding, and so no bias of it")
        in_model = all(i in range(self.n_layers) for i in self.local_layers)
        if bool(self.window) != bool(self.local_layers) or not in_model:
            raise ValueError(
                f"Config: window {self.window} and local_layers {self.local_layers} of {self.n_layers} do not fit"
            )

    @property
    def n_rotary(self) -> int:
        """How many dimensions of each head are rotated."""
        return self.rotary_dim or self.d_head

    @property
    def score_scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return self.attn_scale or self.d_head**-0.5


def check_value(what: str, value: Any, kind: Any) -> None:
    """Raises ValueError where a value is not of a type, an int standing for a float, or not one of a Literal's."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{what} must be {' or '.join(map(repr, get_args(kind)))}, not {value!r}")
        return
    kinds = get_args(kind) if get_origin(kind) not in (None, tuple) else (kind,)
    if kinds[0] is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{what} must be a whole number, not {value!r}")
    if kinds[0] is float and (isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value)):
        raise ValueError(f"{what} must be a number, not {value!r}")
    if bool in kinds and not isinstance(value, kinds):
        raise ValueError(f"{what} must be True or False, not {value!r}")
    if kinds[0] is str and not isinstance(value, str):
        raise ValueError(f"{what} must be a string, not {value!r}")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        raise ValueError(f"{what} must not be negative, not {value!r}")
