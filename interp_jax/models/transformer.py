"""What the decoder and the encoder share: how they are made, called, and laid out for a scan over their layers."""

import operator
from typing import Any, TypeVar

from flax import nnx
import jax
import jax.numpy as jnp

from interp_jax.models.config import Config
from interp_jax.models.forwarding import forward
from interp_jax.models.frame import Frame, Places
from interp_jax.models.params import Block, paths

Array = jax.Array
Model = TypeVar("Model", bound="Transformer")
DEEP = 16  # more layers than this are scanned: to compile them one by one takes longer than most scripts run


def scans(config: Config, scan_layers: bool | None) -> bool:
    """Whether a model is to scan its layers: what was asked for, or, where nothing was, whether there are many."""
    return config.n_layers > DEEP if scan_layers is None else scan_layers


def make_blocks(config: Config, param: Any, *, scan_layers: bool) -> Any:
    """A list of `Block`s, one a layer; or, to be scanned, one whose leaves have a leading layer axis."""
    if scan_layers:
        return Block(config, lambda shape, **kind: param((config.n_layers, *shape), **kind))
    return [Block(config, param) for _ in range(config.n_layers)]


class Transformer(nnx.Module):
    """What a decoder and an encoder share: `cls(config, param, scan_layers=)` makes one of them."""

    causal: bool  # whether a token sees only those before it
    config: Config
    w_e: Any
    blocks: Any

    def __init__(self, config: Config, param: Any, *, scan_layers: bool = False):
        raise NotImplementedError

    def hidden(self, tokens: Array, token_types: Array | None, frame: Frame) -> Array:
        """int32 `[*batch position]` -> what the unembedding reads, `[*batch position d_model]`."""
        raise NotImplementedError

    def unembed(self, x: Array, axes: tuple[str, ...], places: Places) -> Array:
        """`[*axes d_model]` -> logits `[*axes d_vocab]`."""
        raise NotImplementedError

    def __call__(self, tokens: Any, **kwargs: Any) -> Array:
        return forward(self, tokens, **kwargs)

    @classmethod
    def create(
        cls: type[Model], key: Array, config: Config, *, dtype: Any = jnp.float32, scan_layers: bool | None = None
    ) -> Model:
        """A model with random weights: normal of deviation 0.02, the writers to the residual stream scaled down
        by `sqrt(2 n_layers)` (GPT-2's scheme). `scan_layers` is as in `load`: it changes their layout and not the
        weights."""
        keys = iter(jax.random.split(key, 8 + 7 * config.n_layers))

        def param(shape: tuple[int, ...], *, fill: float | None = None, residual: bool = False) -> Array:
            if fill is not None:
                return jnp.full(shape, fill, dtype)
            deviation = 0.02 / (2 * config.n_layers) ** 0.5 if residual else 0.02
            return (deviation * jax.random.normal(next(keys), shape)).astype(dtype)

        model = cls(config, param)
        return stack_layers(model) if scans(config, scan_layers) else model

    @classmethod
    def abstract(cls: type[Model], config: Config, *, dtype: Any = jnp.float32, scan_layers: bool = False) -> Model:
        """The same pytree with a `jax.ShapeDtypeStruct` in the place of each array: what a checkpoint must hold."""
        return cls(config, lambda shape, **_: jax.ShapeDtypeStruct(shape, dtype), scan_layers=scan_layers)

    @property
    def dtype(self) -> Any:
        return self.w_e.dtype

    @property
    def scanned(self) -> bool:
        return isinstance(self.blocks, Block)


def stack_layers(model: Any) -> Any:
    """The same model with its blocks stacked, to be scanned: one block is compiled, whatever the depth.

    Example:
      >>> import jax
      >>> from interp_jax import models
      >>> config = models.Config(n_layers=3, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.stack_layers(models.Decoder.create(jax.random.key(0), config))
      >>> model.blocks.mlp.w_in.shape
      (3, 8, 16)
    """
    return model if model.scanned else _with_blocks(model, jax.tree.map(lambda *x: jnp.stack(x), *model.blocks))


def unstack_layers(model: Any) -> Any:
    """The same model with its blocks in a list. The inverse of `stack_layers`."""
    if not model.scanned:
        return model
    layers = range(model.config.n_layers)
    return _with_blocks(model, [jax.tree.map(operator.itemgetter(layer), model.blocks) for layer in layers])


def _with_blocks(model: Any, blocks: Any) -> Any:
    empty = type(model).abstract(model.config, scan_layers=not model.scanned)
    leaves = paths(model) | {f"blocks.{path}": leaf for path, leaf in paths(blocks).items()}
    return jax.tree.unflatten(jax.tree.structure(empty), [leaves[path] for path in paths(empty)])
