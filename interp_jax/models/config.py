"""What a decoder is made of, as plain data."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Config:
    """The shape and the kind of a decoder. Hashable: it is the static part of a model's pytree.

    `family` names the checkpoint format (`interp_jax.models.families`) and changes nothing in the forward pass.

    Raises:
      ValueError: sizes that do not fit each other.

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
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    norm_eps: float = 1e-5
    positions: Literal["learned", "rotary"] = "learned"
    rope_theta: float = 10000.0
    attn_bias: bool = True
    mlp_bias: bool = True
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
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
        if self.positions == "rotary" and self.d_head % 2:
            raise ValueError(f"Config: rotary positions need an even d_head, not {self.d_head}")
