"""One decoder for every family, and `forward`: whole sequences to logits."""

from typing import Any

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Float

from interp_jax.core import site
from interp_jax.models import ops
from interp_jax.models.blocks import normalize, run_block
from interp_jax.models.config import Config
from interp_jax.models.frame import Frame, alias, whole
from interp_jax.models.inputs import check_range, check_tokens
from interp_jax.models.params import Block, Norm

Array = jax.Array
Cache = list[tuple[Array, Array]]


class Decoder(nnx.Module):
    """A decoder: a pytree of arrays and a static `config`. `model(tokens)` is `forward(model, tokens)`.

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
        return forward(self, tokens, **kwargs)


def forward(
    model: Decoder, tokens: Any, *, attention_mask: Any = None, logits_at: Any = None
) -> Float[Array, "... d_vocab"]:
    """The logits of every token, or of one a sequence. Compiled once for each shape.

    Args:
      model: the decoder.
      tokens: int `[position]` or `[batch position]`.
      attention_mask: bool or int, the shape of `tokens`, 0 at padding, which may stand on either side. Each sequence
        gets what it gets alone: positions count its real tokens from 0.
      logits_at: int `[batch]` (`[]` for a single sequence): index along the position axis, padding included, of the
        only token to unembed; negative ones count from the end.

    Returns:
      `[batch position d_vocab]`, or `[batch d_vocab]` with `logits_at`; no batch axis for a single sequence.
      What stands at padding has no meaning.

    Raises:
      ValueError: tokens that are no integers, are outside the vocabulary or longer than n_ctx; a mask or `logits_at`
        of the wrong shape, a mask with a gap, a `logits_at` outside the sequence. Values are checked where they are
        concrete; under a transform a token outside the vocabulary gives NaN.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> tokens, mask = jnp.array([[0, 1, 2], [3, 4, 5]]), jnp.array([[0, 1, 1], [1, 1, 1]])
      >>> models.forward(model, tokens, attention_mask=mask, logits_at=jnp.array([2, 2])).shape
      (2, 20)
    """
    tokens, attention_mask = check_tokens(model.config, tokens, attention_mask)
    if logits_at is not None:
        logits_at = jnp.asarray(logits_at)
        if logits_at.shape != tokens.shape[:-1] or not jnp.issubdtype(logits_at.dtype, jnp.integer):
            raise ValueError(
                f"forward: logits_at must be integers of shape {tokens.shape[:-1]} for tokens {tokens.shape}, "
                f"not {logits_at.dtype} {logits_at.shape}"
            )
        check_range("logits_at", logits_at, -tokens.shape[-1], tokens.shape[-1], "index the position axis")
        logits_at = logits_at.astype(jnp.int32)
    return _forward(model, tokens, attention_mask, logits_at)


@jax.jit
def _forward(model: Decoder, tokens: Array, attention_mask: Array | None, logits_at: Array | None) -> Array:
    frame = whole(model.config, tokens, attention_mask)
    x, _ = decode(model, tokens, frame)
    if logits_at is None:
        return unembed(model, x, (*frame.batch, "position"), frame.offset)
    index = jnp.where(logits_at < 0, logits_at + tokens.shape[-1], logits_at)[..., None, None]
    x = jnp.take_along_axis(x, index, axis=-2, mode="fill")[..., 0, :]
    return unembed(model, x, frame.batch, None)


def decode(model: Decoder, tokens: Array, frame: Frame, cache: Cache | None = None) -> tuple[Array, Cache | None]:
    """int32 `[*batch position]` -> what the unembedding reads, `[*batch position d_model]`, and the new cache.

    The cache holds a layer's (rotated) keys and its values, `[*batch slot kv_head d_head]` each.
    """
    x = frame.site(jnp.take(model.w_e, tokens, axis=0, mode="fill"), "embed", "position", "d_model")
    rotary = None
    if model.w_pos is not None:
        where = jnp.take(model.w_pos, frame.positions, axis=0, mode="clip")
        x = x + frame.site(where, "pos_embed", "position", "d_model")
    else:
        rotary = ops.rotation(frame.positions, model.config.rope_theta, model.config.d_head)
    new_cache = []
    for layer, block in enumerate(model.blocks):
        x, kept = run_block(block, x, frame, rotary, layer, None if cache is None else cache[layer])
        new_cache.append(kept)
    return normalize(model.ln_final, x, frame, "ln_final", None), None if cache is None else new_cache


def unembed(model: Decoder, x: Array, axes: tuple[str, ...], offset: Array | None) -> Array:
    """`[*axes d_model]` -> `[*axes d_vocab]`."""
    x = site(x, "unembed.in", axes=(*axes, "d_model"), offset=offset)
    if model.w_u is not None:
        x = ops.affine(x, model.w_u, None)
    else:
        x = lax.dot_general(x, model.w_e, (((x.ndim - 1,), (1,)), ((), ())))
    x = alias(x, "unembed.out", (*axes, "d_vocab"), offset)
    return site(x, "logits", axes=(*axes, "d_vocab"), offset=offset)
