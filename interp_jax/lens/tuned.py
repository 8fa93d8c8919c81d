"""The tuned lens: a logit lens whose every layer has a learned affine map into the unembedding's language.

    lens_l(h) = unembed(norm(h + h W_l + b_l));   loss = sum over layers of mean KL(model || lens_l)

Belrose et al. 2023, "Eliciting latent predictions from transformers with the tuned lens", arXiv:2303.08112: maps start
as the identity (W = 0, b = 0), norm and unembedding are the model's own and stay fixed, each layer learns by itself.
Caveat: a translator may find what the model itself does not use at that layer. For models that cap their logits, logits
are those before the cap, at `unembed.out`, unless the lens is made with `capped=True`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float

from interp_jax.lens.reading import Lens, check_sizes


@partial(jax.tree_util.register_dataclass, data_fields=["W", "b"], meta_fields=["eps", "centred", "capped"])
@dataclass(frozen=True)
class TunedLens(Lens):
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
        check_sizes("TunedLens", d_model, n_layers)
        return cls(jnp.zeros((n_layers, d_model, d_model)), jnp.zeros((n_layers, d_model)), eps, centred, capped)

    @property
    def sizes(self) -> tuple[int, int]:
        """Its numbers of layers and of d_model."""
        n_layers, d_model = self.b.shape
        return n_layers, d_model

    def translate(self, resid: Float[Typed, "layer *axes d_model"]) -> Float[Typed, "layer *axes d_model"]:
        """Translates the residual stream of each layer, in float32: `resid + resid W + b`.

        Raises:
          ValueError: `resid` is not `[layer ... d_model]` of this lens, such as a capture of one layer.
        """
        self.check(resid)
        x = resid.astype(jnp.float32)
        return x + jnp.einsum("l...m,lmn->l...n", x, self.W) + jnp.expand_dims(self.b, tuple(range(1, x.ndim - 1)))
