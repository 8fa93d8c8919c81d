"""The parameters of a block, as nnx modules used as plain pytrees.

Names and meanings are TransformerLens's in lower case. The layout is the one that multiplies `x @ w` without a
transpose: the axes that are summed over come first. `param(shape, fill=, residual=)` makes each of them. What a
model does not have is None.
"""

from typing import Any

from flax import nnx
import jax

from interp_jax.models.config import Config


def norm_of(config: Config, param: Any, shape: tuple[int, ...] | None = None) -> "Norm | None":
    """A norm, of a model that has norms."""
    return None if config.norm == "none" else Norm(config, param, shape)


class Norm(nnx.Module):
    """`w`, `b` of shape `[d_model]`; no `b` in an RMSNorm. Norms of queries and keys: `[d_head]` or `[head d_head]`."""

    def __init__(self, config: Config, param: Any, shape: tuple[int, ...] | None = None):
        shape = shape or (config.d_model,)
        self.w = nnx.data(param(shape, fill=1.0 - config.norm_offset))
        self.b = nnx.data(param(shape, fill=0.0) if config.norm == "layernorm" else None)


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
        out_bias = bias if config.out_bias is None else config.out_bias
        self.b_o = nnx.data(param((config.d_model,), fill=0.0) if out_bias else None)
        shapes = {"none": (None, None), "head": (heads[1:], heads[1:]), "all": (heads, kv_heads)}[config.qk_norm]
        self.q_norm, self.k_norm = (nnx.data(shape and norm_of(config, param, shape)) for shape in shapes)


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
    """One layer, whose norms stand where `config.norms` says. In a scanned model: all, with a leading layer axis."""

    def __init__(self, config: Config, param: Any):
        before, after = config.norms != "post", config.norms in ("post", "both")
        self.ln1 = nnx.data(norm_of(config, param) if before else None)
        self.attn = nnx.data(Attention(config, param))
        self.ln1_post = nnx.data(norm_of(config, param) if after else None)
        self.ln2 = nnx.data(norm_of(config, param) if before else None)
        self.mlp = nnx.data(MLP(config, param))
        self.ln2_post = nnx.data(norm_of(config, param) if after else None)


def paths(model: Any) -> dict[str, Any]:
    """`blocks.0.attn.w_q` -> parameter, in the order of the pytree's leaves."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(model)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
