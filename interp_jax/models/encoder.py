"""One encoder: BERT, with its head of masked language modelling (Devlin et al. 2019)."""

from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from interp_jax.models import ops
from interp_jax.models.blocks import RESIDUAL, normalize, project, run_attention, run_mlp
from interp_jax.models.config import Config
from interp_jax.models.frame import Frame, Places, alias
from interp_jax.models.params import Block, Norm
from interp_jax.models.transformer import Transformer, make_blocks

Array = jax.Array


class Encoder(Transformer):
    """An encoder: every token sees every other. `model(tokens)` is `models.forward(model, tokens)`.

    Attributes:
      w_e: `[d_vocab d_model]` token embedding, which also unembeds.
      w_pos: `[n_ctx d_model]` position embedding.
      w_type: `[n_types d_model]` token type embedding.
      ln_embed: the `Norm` of the sum of the three.
      blocks: list of `Block`, one a layer; scanned, one `Block` whose leaves have a leading layer axis.
      w_head, b_head, ln_final: the head: `[d_model d_model]`, `[d_model]` and its `Norm`; None without one.
      b_u: `[d_vocab]` bias of the logits; None without a head.
      config: the `Config`, with `norms="residual"`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax.models import Config, Encoder
      >>> config = Config(
      ...     n_layers=2, n_heads=4, d_model=32, d_mlp=64, d_vocab=100, n_ctx=16, n_types=2, norms="residual"
      ... )
      >>> model = Encoder.create(jax.random.key(0), config)
      >>> model(jnp.array([[1, 2, 3]]), token_types=jnp.array([[0, 0, 1]])).shape
      (1, 3, 100)
    """

    causal = False

    def __init__(self, config: Config, param: Any, *, scan_layers: bool = False):
        if config.norms != "residual":
            raise ValueError(f"Encoder: norms={config.norms!r} are those of a Decoder; give 'residual'")
        self.config = config
        self.w_e = nnx.data(param((config.d_vocab, config.d_model)))
        self.w_pos = nnx.data(param((config.n_ctx, config.d_model)))
        self.w_type = nnx.data(param((config.n_types, config.d_model)))
        self.ln_embed: Any = nnx.data(Norm(config, param))
        self.blocks = nnx.data(make_blocks(config, param, scan_layers=scan_layers))
        head = not config.headless
        self.w_head: Any = nnx.data(param((config.d_model, config.d_model)) if head else None)
        self.b_head: Any = nnx.data(param((config.d_model,), fill=0.0) if head else None)
        self.ln_final: Any = nnx.data(Norm(config, param) if head else None)
        self.b_u: Any = nnx.data(param((config.d_vocab,), fill=0.0) if head else None)

    def hidden(self, tokens: Array, token_types: Array | None, frame: Frame) -> Array:
        types = jnp.zeros_like(tokens) if token_types is None else token_types
        embedded = ops.look_up(self.w_e, tokens, "fill")
        where = ops.look_up(self.w_pos, frame.positions, "clip")
        kind = ops.look_up(self.w_type, types, "fill")
        x = (
            frame.site(embedded, "embed", *RESIDUAL)
            + frame.site(where, "pos_embed", *RESIDUAL)
            + frame.site(kind, "token_type_embed", *RESIDUAL)
        )
        x = normalize(self.ln_embed, x, frame, "ln_embed", None)
        if self.scanned:
            return lax.scan(lambda x, block: (run_block(block, x, frame, None), None), x, self.blocks)[0]
        for layer, block in enumerate(self.blocks):
            x = run_block(block, x, frame, layer)
        return x

    def unembed(self, x: Array, axes: tuple[str, ...], places: Places) -> Array:
        def named(x: Array, name: str, axis: str = "d_model") -> Array:
            return places.site(x, name, (*axes, axis))

        config = self.config
        x = named(ops.affine(x, self.w_head, self.b_head), "mlm_head.pre")
        x = named(ops.ACTIVATIONS[config.act](x), "mlm_head.post")
        centred, scale = ops.centre(x, config.norm, config.norm_eps)
        x = named(ops.divide(centred, named(scale, "ln_final.scale", "one"), x.dtype), "ln_final.normalized")
        x = named(ops.rescale(x, self.ln_final.w, self.ln_final.b, config.norm_offset), "unembed.in")
        x = lax.dot_general(x, self.w_e, (((x.ndim - 1,), (1,)), ((), ()))) + self.b_u
        return named(x, "logits", "d_vocab")


def run_block(block: Block, x: Array, frame: Frame, layer: int | None) -> Array:
    """One layer: each part adds to the residual stream, which is normalized afterwards."""
    x = frame.site(x, "blocks.resid_pre", *RESIDUAL, layer=layer)
    out, _ = run_attention(block.attn, *project(block, x, x, frame, layer), frame, layer, None)
    x = x + frame.site(out, "blocks.attn_out", *RESIDUAL, layer=layer)
    x = frame.site(x, "blocks.resid_mid", *RESIDUAL, layer=layer)
    mlp_in = alias(x, "blocks.mlp_in", (*frame.batch, *RESIDUAL), frame.places, layer=layer)
    x = normalize(block.ln1, mlp_in, frame, "blocks.ln1", layer)
    out = run_mlp(block.mlp, x, frame, layer)
    x = x + frame.site(out, "blocks.mlp_out", *RESIDUAL, layer=layer)
    x = frame.site(x, "blocks.resid_post", *RESIDUAL, layer=layer)
    x = normalize(block.ln2, x, frame, "blocks.ln2", layer)
    return frame.site(x, "blocks.normalized_resid_post", *RESIDUAL, layer=layer)
