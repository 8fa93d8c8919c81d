"""The tuned lens: a logit lens whose every layer has a learned affine map into the unembedding's language.

    lens_l(h) = unembed(norm(h + h W_l + b_l));   loss = sum over layers of mean KL(model || lens_l)

Belrose et al. 2023, "Eliciting latent predictions from transformers with the tuned lens", arXiv:2303.08112: maps start
as the identity (W = 0, b = 0), norm and unembedding are the model's own and stay fixed, each layer learns by itself.
Caveat: a translator may find what the model itself does not use at that layer. For models that cap their logits, logits
are those before the cap, at `unembed.out`, unless the lens is made with `capped=True`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Bool, Float

from interp_jax import io
from interp_jax.lens.residual import logit_lens
from interp_jax.metrics import kl
from interp_jax.weights import Weights

Mask = Bool[Typed, "*tokens"]


@partial(jax.tree_util.register_dataclass, data_fields=["W", "b"], meta_fields=["eps", "centred", "capped"])
@dataclass(frozen=True)
class TunedLens:
    """A tuned lens: one translator of the residual stream for each layer. It is a pytree.

    Attributes:
      W: float32 `[layer d_model d_model]`, what is added to the identity.
      b: float32 `[layer d_model]`.
      eps, centred: of the model's final norm, as in `logit_lens`.
      capped: whether logits are those after the model's cap, if it has one, as in `logit_lens`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import lens, models
      >>> model, _ = models.load("microworld")
      >>> tuned = lens.TunedLens.create(model.config.d_model, model.config.n_layers, eps=model.config.norm_eps)
      >>> logits, acts = ij.capture(models.forward, "blocks.resid_pre")(model, jnp.array([[1, 5, 9]]))
      >>> weights, resid = models.weights(model), acts["blocks.resid_pre"]
      >>> tuned(weights, resid).shape, tuned.divergence(weights, resid, logits).shape
      ((4, 1, 3, 641), (4,))
    """

    W: Any
    b: Any
    eps: float
    centred: bool | None
    capped: bool = False

    @classmethod
    def create(
        cls, d_model: int, n_layers: int, *, eps: float = 1e-5, centred: bool | None = None, capped: bool = False
    ) -> "TunedLens":
        """The lens that is the identity at every layer, which is the logit lens.

        Args:
          d_model, n_layers: sizes of the model.
          eps: of its final norm, `model.config.norm_eps`.
          centred: whether that norm subtracts the mean; None: if it has a bias.
          capped: take logits after the model's cap, if it has one, as the model gives them.

        Raises:
          ValueError: a size below 1.
        """
        if d_model < 1 or n_layers < 1:
            raise ValueError(f"TunedLens.create: d_model={d_model} and n_layers={n_layers} must be at least 1")
        return cls(jnp.zeros((n_layers, d_model, d_model)), jnp.zeros((n_layers, d_model)), eps, centred, capped)

    def translate(self, resid: Float[Typed, "layer *axes d_model"]) -> Float[Typed, "layer *axes d_model"]:
        """Translates the residual stream of each layer, in float32: `resid + resid W + b`.

        Raises:
          ValueError: `resid` is not `[layer ... d_model]` of this lens, such as a capture of one layer.
        """
        self.check(resid)
        x = resid.astype(jnp.float32)
        return x + jnp.einsum("l...m,lmn->l...n", x, self.W) + jnp.expand_dims(self.b, tuple(range(1, x.ndim - 1)))

    def __call__(
        self, weights: Weights, resid: Float[Typed, "layer *axes d_model"]
    ) -> Float[Typed, "layer *axes d_vocab"]:
        """The logits that each layer would give, in float32.

        Args:
          weights: `models.weights(model)`.
          resid: captures of `blocks.resid_pre` or `blocks.resid_post`, the one that the lens was trained on.

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
        n_layers, d_model = self.b.shape
        if resid.ndim < 2 or (len(resid), resid.shape[-1]) != (n_layers, d_model):
            raise ValueError(
                f"TunedLens: a residual stream of shape {list(resid.shape)}, wanted [{n_layers}, ..., {d_model}]: "
                "capture it at every layer, as in blocks.resid_pre"
            )
        if logits is not None and resid.shape[1:-1] != logits.shape[:-1]:
            raise ValueError(
                f"TunedLens: logits of shape {list(logits.shape)} for a residual stream {list(resid.shape)}: give both "
                "at every position"
            )

        if logits is not None and mask is not None:
            chex.assert_shape(
                mask,
                logits.shape[:-1],
                custom_message="TunedLens: a mask has one entry for each token",
                exception_type=ValueError,
            )

    def _read(self, weights: Weights, x: Array) -> Array:
        return logit_lens(weights, x, eps=self.eps, centred=self.centred, capped=self.capped)

    def _of_layer(self, weights: Weights, x: Array, logits: Array, mask: Array | None) -> Array:
        read = self._read(weights, x)
        counted = jnp.ones(logits.shape[:-1], bool) if mask is None else mask
        each = jnp.where(counted, kl(logits)(read), 0)
        return each.sum() / jnp.maximum(counted.sum(), 1).astype(jnp.float32)


def save(path: str | Path, lens: TunedLens, **metadata: Any) -> None:
    """Writes a tuned lens to a folder, whole or not at all.

    Args:
      path: the folder; a checkpoint already there is replaced.
      lens: the lens.
      **metadata: what else to remember, such as `site=` and `model=`.

    Raises:
      FileExistsError: `path` is there and is not a checkpoint of this library.
      TypeError: JSON cannot hold the metadata.

    Example:
      >>> import tempfile
      >>> from interp_jax import lens
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     lens.save(f"{folder}/mine", lens.TunedLens.create(2, 3), site="blocks.resid_pre")
      ...     lens.load(f"{folder}/mine").W.shape
      (3, 2, 2)
    """
    about = {"lens": "tuned", "eps": lens.eps, "centred": lens.centred, "capped": lens.capped, "about": metadata}
    io.orbax.save(path, {"W": lens.W, "b": lens.b}, about)


def load(path: str | Path) -> TunedLens:
    """The tuned lens in a folder that `save` wrote.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it holds something else, or is torn.
    """
    arrays, metadata = io.orbax.load(path)
    if metadata.get("lens") != "tuned" or set(arrays) != {"W", "b"}:
        raise ValueError(f"{path}: not a tuned lens; it holds {', '.join(sorted(arrays))}")
    return TunedLens(**arrays, **{name: metadata[name] for name in ("eps", "centred", "capped") if name in metadata})
