"""One decoder for every family: whole sequences, or a cached step, to what the unembedding reads, and the logits."""

from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from interp_jax.models import ops
from interp_jax.models.blocks import normalize, run_block
from interp_jax.models.config import Config
from interp_jax.models.frame import Frame, Places, alias
from interp_jax.models.params import norm_of
from interp_jax.models.transformer import Transformer, make_blocks

Array = jax.Array
Cache = Any  # a list of (keys, values), one a layer; of a scanned model, one pair with a leading layer axis


class Decoder(Transformer):
    """A decoder: a pytree of arrays and a static `config`. `model(tokens)` is `models.forward(model, tokens)`.

    Attributes:
      w_e: `[d_vocab d_model]` token embedding.
      w_pos: `[n_ctx d_model]` position embedding, None under rotary positions.
      blocks: list of `Block`, one a layer; scanned, one `Block` whose leaves have a leading layer axis.
      ln_final: the last `Norm`, None in a model without norms.
      w_u, b_u: `[d_model d_vocab]` unembedding, None when it is tied to `w_e` or there is none; `[d_vocab]`, its bias.
      config: the `Config`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax.models import Config, Decoder
      >>> config = Config(n_layers=2, n_heads=4, d_model=32, d_mlp=64, d_vocab=100, n_ctx=16)
      >>> model = Decoder.create(jax.random.key(0), config)
      >>> model(jnp.array([[1, 2, 3]])).shape
      (1, 3, 100)
    """

    def __init__(self, config: Config, param: Any, *, scan_layers: bool = False):
        if config.norms == "residual":
            raise ValueError("Decoder: norms='residual' are those of an Encoder; create that, or give other norms")
        self.config = config
        self.w_e = nnx.data(param((config.d_vocab, config.d_model)))
        learned = config.positions == "learned"
        self.w_pos = nnx.data(param((config.n_ctx, config.d_model)) if learned else None)
        self.blocks = nnx.data(make_blocks(config, param, scan_layers=scan_layers))
        self.ln_final = nnx.data(norm_of(config, param))
        own = not config.tie_embeddings and not config.headless
        self.w_u = nnx.data(param((config.d_model, config.d_vocab)) if own else None)
        self.b_u = nnx.data(param((config.d_vocab,), fill=0.0) if config.unembed_bias else None)

    @property
    def causal(self) -> bool:
        return self.config.causal

    def hidden(self, tokens: Array, token_types: Array | None, frame: Frame) -> Array:
        return decode(self, tokens, frame)[0]

    def unembed(self, x: Array, axes: tuple[str, ...], places: Places) -> Array:
        x = places.site(x, "unembed.in", (*axes, "d_model"))
        if self.w_u is not None:
            x = ops.affine(x, self.w_u, self.b_u)
        else:
            x = lax.dot_general(x, self.w_e, (((x.ndim - 1,), (1,)), ((), ())))
            x = x if self.b_u is None else x + self.b_u
        x = alias(x, "unembed.out", (*axes, "d_vocab"), places)
        if self.config.logit_softcap:
            x = ops.softcap(x, self.config.logit_softcap)
        return places.site(x, "logits", (*axes, "d_vocab"))

    def empty_cache(self, batch: tuple[int, ...], n_slots: int) -> Cache:
        """Zeros `[*batch slot kv_head d_head]` for the (rotated) keys and for the values of each layer."""
        config = self.config
        shape = (*batch, n_slots, config.n_kv_heads, config.d_head)
        if self.scanned:
            empty = jnp.zeros((config.n_layers, *shape), self.dtype)
            return empty, empty
        empty = jnp.zeros(shape, self.dtype)
        return [(empty, empty)] * config.n_layers


def decode(model: Decoder, tokens: Array, frame: Frame, cache: Cache = None) -> tuple[Array, Cache]:
    """int32 `[*batch position]` -> what the unembedding reads, `[*batch position d_model]`, and the new cache."""
    x = ops.look_up(model.w_e, tokens, "fill")
    if model.config.embed_scale:
        x = x * jnp.asarray(model.config.d_model**0.5, x.dtype)
    x = frame.site(x, "embed", "position", "d_model")
    if model.w_pos is not None:
        where = ops.look_up(model.w_pos, frame.positions, "clip")
        x = x + frame.site(where, "pos_embed", "position", "d_model")
    x, cache = (_scan if model.scanned else _loop)(model, x, frame, cache)
    return normalize(model.ln_final, x, frame, "ln_final", None), cache


def _loop(model: Decoder, x: Array, frame: Frame, cache: Cache) -> tuple[Array, Cache]:
    nearby, kept = frame.nearby() if model.config.window else frame, []
    for layer, block in enumerate(model.blocks):
        here = nearby if layer in model.config.local_layers else frame
        x, own = run_block(block, x, here, layer, None if cache is None else (*cache[layer], None))
        kept.append(own)
    return x, None if cache is None else [own[:2] for own in kept]


def _scan(model: Decoder, x: Array, frame: Frame, cache: Cache) -> tuple[Array, Cache]:
    config = model.config
    local = jnp.array([layer in config.local_layers for layer in range(config.n_layers)])

    def body(carry: Any, scanned: Any) -> tuple[Any, None]:
        (x, cache), (block, is_local, layer) = carry, scanned
        here = frame.choose(is_local) if config.window else frame
        x, own = run_block(block, x, here, None, None if cache is None else (*cache, layer))
        return (x, None if own is None else own[:2]), None

    # The cache is carried, so that a step writes its own keys and values there and nothing is copied.
    layers = jnp.arange(config.n_layers, dtype=jnp.int32)
    return lax.scan(body, (x, cache), (model.blocks, local, layers))[0]
