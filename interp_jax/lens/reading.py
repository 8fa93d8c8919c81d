"""What the lenses that have a map for each layer share: the translated stream is read as the logit lens reads it.

    lens_l(h) = unembed(norm(translate_l(h)))

A lens is a pytree whose class says how it translates; norm and unembedding are the model's own. For models that cap
their logits, logits are those before the cap, at `unembed.out`, unless the lens is made with `capped=True`.
"""

from abc import ABC, abstractmethod

import chex
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Bool, Float

from interp_jax.lens.residual import logit_lens
from interp_jax.metrics import kl
from interp_jax.weights import Weights

Mask = Bool[Typed, "*tokens"]


class Lens(ABC):
    """Base of the lenses with a map for each layer: frozen dataclasses that are pytrees.

    Attributes:
      eps, centred: of the model's final norm, as in `logit_lens`.
      capped: whether logits are those after the model's cap, if it has one, as in `logit_lens`.
    """

    eps: float
    centred: bool | None
    capped: bool

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Its numbers of layers and of d_model."""

    @abstractmethod
    def translate(self, resid: Float[Typed, "layer *axes d_model"]) -> Float[Typed, "layer *axes d_model"]:
        """The residual stream of each layer in the language of the last, in float32.

        Raises:
          ValueError: `resid` is not `[layer ... d_model]` of this lens, such as a capture of one layer.
        """

    def __call__(
        self, weights: Weights, resid: Float[Typed, "layer *axes d_model"]
    ) -> Float[Typed, "layer *axes d_vocab"]:
        """The logits that each layer would give, in float32.

        Args:
          weights: `models.weights(model)`.
          resid: captures of `blocks.resid_pre` or `blocks.resid_post`, the one that the lens was made for.

        Raises:
          ValueError: as `translate`.
        """
        return self._read(weights, self.translate(resid))

    def divergence(
        self,
        weights: Weights,
        resid: Float[Typed, "layer *axes d_model"],
        logits: Float[Typed, "*tokens d_vocab"],
        mask: Mask | None = None,
    ) -> Float[Typed, "layer"]:
        """Mean KL(model || lens) of each layer over the real tokens, in nats; one layer's logits are held at a time.

        Args:
          weights, resid: as in a call, `[layer batch position d_model]`.
          logits: the model's, `[batch position d_vocab]`.
          mask: `[batch position]`, False at tokens that do not count.

        Raises:
          ValueError: as `translate`; `logits` or `mask` of other tokens than `resid`.
        """
        self.check(resid, logits, mask)
        return lax.map(lambda x: self._of_layer(weights, x, logits, mask), self.translate(resid))

    def check(self, resid: Array, logits: Array | None = None, mask: Array | None = None) -> None:
        """Raises ValueError where a residual stream, or the logits and the mask beside it, do not fit this lens."""
        name, (n_layers, d_model) = type(self).__name__, self.sizes
        if resid.ndim < 2 or (len(resid), resid.shape[-1]) != (n_layers, d_model):
            raise ValueError(
                f"{name}: a residual stream of shape {list(resid.shape)}, wanted [{n_layers}, ..., {d_model}]: "
                "capture it at every layer, as in blocks.resid_pre"
            )
        if logits is not None and resid.shape[1:-1] != logits.shape[:-1]:
            raise ValueError(
                f"{name}: logits of shape {list(logits.shape)} for a residual stream {list(resid.shape)}: give both "
                "at every position"
            )

        if logits is not None and mask is not None:
            chex.assert_shape(
                mask,
                logits.shape[:-1],
                custom_message=f"{name}: a mask has one entry for each token",
                exception_type=ValueError,
            )

    def _read(self, weights: Weights, x: Array) -> Array:
        return logit_lens(weights, x, eps=self.eps, centred=self.centred, capped=self.capped)

    def _of_layer(self, weights: Weights, x: Array, logits: Array, mask: Array | None) -> Array:
        read = self._read(weights, x)
        counted = jnp.ones(logits.shape[:-1], bool) if mask is None else mask
        each = jnp.where(counted, kl(logits)(read), 0)
        return each.sum() / jnp.maximum(counted.sum(), 1).astype(jnp.float32)


def check_sizes(name: str, d_model: int, n_layers: int) -> None:
    """Raises ValueError where a size is below 1."""
    if d_model < 1 or n_layers < 1:
        raise ValueError(f"{name}.create: d_model={d_model} and n_layers={n_layers} must be at least 1")
