"""One decoder for every family: the parameters, as nnx modules used as plain pytrees.

Names and meanings of the parameters are TransformerLens's in lower case. The layout is the one that multiplies
`x @ w` without a transpose: the axes that are summed over come first.
"""

from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from interp_jax.models.config import Config

Array = jax.Array


class Norm(nnx.Module):
    """`w`, `b` of shape `[d_model]`; no `b` in an RMSNorm."""

    def __init__(self, config: Config, param: Any):
        self.w = nnx.data(param((config.d_model,), fill=1.0))
        self.b = nnx.data(param((config.d_model,), fill=0.0) if config.norm == "layernorm" else None)


class Attention(nnx.Module):
    """`w_q [d_model head d_head]`, `w_k` and `w_v` the same over the key-value heads, `w_o [head d_head d_model]`."""

    def __init__(self, config: Config, param: Any):
        heads, kv_heads = (config.n_heads, config.d_head), (config.n_kv_heads, config.d_head)
        self.w_q = nnx.data(param((config.d_model, *heads)))
        self.w_k = nnx.data(param((config.d_model, *kv_heads)))
        self.w_v = nnx.data(param((config.d_model, *kv_heads)))
        self.w_o = nnx.data(param((*heads, config.d_model), residual=True))
        bias = config.attn_bias
        self.b_q = nnx.data(param(heads, fill=0.0) if bias else None)
        self.b_k = nnx.data(param(kv_heads, fill=0.0) if bias else None)
        self.b_v = nnx.data(param(kv_heads, fill=0.0) if bias else None)
        self.b_o = nnx.data(param((config.d_model,), fill=0.0) if bias else None)


class MLP(nnx.Module):
    """`w_in [d_model d_mlp]`, `w_out [d_mlp d_model]`; a gated one applies the activation to `x @ w_gate`."""

    def __init__(self, config: Config, param: Any):
        d_model, d_mlp, bias = config.d_model, config.d_mlp, config.mlp_bias
        self.w_in = nnx.data(param((d_model, d_mlp)))
        self.w_gate = nnx.data(param((d_model, d_mlp)) if config.gated else None)
        self.w_out = nnx.data(param((d_mlp, d_model), residual=True))
        self.b_in = nnx.data(param((d_mlp,), fill=0.0) if bias else None)
        self.b_gate = nnx.data(param((d_mlp,), fill=0.0) if bias and config.gated else None)
        self.b_out = nnx.data(param((d_model,), fill=0.0) if bias else None)


class Block(nnx.Module):
    """One layer: `x + attn(ln1(x))`, then `x + mlp(ln2(x))`."""

    def __init__(self, config: Config, param: Any):
        self.ln1 = nnx.data(Norm(config, param))
        self.attn = nnx.data(Attention(config, param))
        self.ln2 = nnx.data(Norm(config, param))
        self.mlp = nnx.data(MLP(config, param))


class Decoder(nnx.Module):
    """A decoder-only transformer: a pytree of arrays and a static `config`. `model(tokens)` is `forward(model, tokens)`.

    Attributes:
      w_e: `[d_vocab d_model]` token embedding.
      w_pos: `[n_ctx d_model]` position embedding, None under rotary positions.
      blocks: list of `Block`, one a layer.
      ln_final: the last `Norm`.
      w_u: `[d_model d_vocab]` unembedding, None when it is tied to `w_e`.
      config: the `Config`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax.models import Config, Decoder
      >>> config = Config(n_layers=2, n_heads=4, d_model=32, d_mlp=64, d_vocab=100, n_ctx=16)
      >>> model = Decoder.create(jax.random.key(0), config)
      >>> model(jnp.array([[1, 2, 3]])).shape
      (1, 3, 100)
    """

    def __init__(self, config: Config, param: Any):
        self.config = config
        self.w_e = nnx.data(param((config.d_vocab, config.d_model)))
        learned = config.positions == "learned"
        self.w_pos = nnx.data(param((config.n_ctx, config.d_model)) if learned else None)
        self.blocks = nnx.data([Block(config, param) for _ in range(config.n_layers)])
        self.ln_final = nnx.data(Norm(config, param))
        self.w_u = nnx.data(None if config.tie_embeddings else param((config.d_model, config.d_vocab)))

    @classmethod
    def create(cls, key: Array, config: Config, *, dtype: Any = jnp.float32) -> "Decoder":
        """A model with random weights: normal of deviation 0.02, the writers to the residual stream scaled down
        by `sqrt(2 n_layers)` (GPT-2's scheme)."""
        keys = iter(jax.random.split(key, 3 + 7 * config.n_layers))

        def param(shape: tuple[int, ...], *, fill: float | None = None, residual: bool = False) -> Array:
            if fill is not None:
                return jnp.full(shape, fill, dtype)
            deviation = 0.02 / (2 * config.n_layers) ** 0.5 if residual else 0.02
            return (deviation * jax.random.normal(next(keys), shape)).astype(dtype)

        return cls(config, param)

    @classmethod
    def abstract(cls, config: Config, *, dtype: Any = jnp.float32) -> "Decoder":
        """The same pytree with a `jax.ShapeDtypeStruct` in the place of each array: what a checkpoint must hold."""
        return cls(config, lambda shape, **_: jax.ShapeDtypeStruct(shape, dtype))

    @property
    def dtype(self) -> Any:
        return self.w_e.dtype

    def __call__(self, tokens: Any, **kwargs: Any) -> Array:
        from interp_jax.models.forward import forward

        return forward(self, tokens, **kwargs)


def dot(x: Array, w: Array, n: int = 1) -> Array:
    """The last `n` axes of `x` against the first `n` of `w`."""
    return lax.dot_general(x, w, ((tuple(range(x.ndim - n, x.ndim)), tuple(range(n))), ((), ())))
