"""The tuned lens: a logit lens whose every layer has a learned affine map into the unembedding's language.

    lens_l(h) = unembed(norm(h + h W_l + b_l));   loss = sum over layers of mean KL(model || lens_l)

Belrose et al. 2023, "Eliciting latent predictions from transformers with the tuned lens", arXiv:2303.08112: maps start
as the identity (W = 0, b = 0), norm and unembedding are the model's own and stay fixed, each layer learns by itself.
Caveat: a translator may find what the model itself does not use at that layer. For models that cap their logits, logits
are those before the cap, at `unembed.out`, unless the lens is made with `capped=True`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Bool, Float
import numpy as np
import optax

from interp_jax import io
from interp_jax.core import capture
from interp_jax.lens.residual import logit_lens
from interp_jax.metrics import kl
from interp_jax.weights import CAP, Weights

Mask = Bool[Typed, "*tokens"]


@partial(jax.tree_util.register_dataclass, data_fields=["W", "b"], meta_fields=["eps", "centred", "capped"])
@dataclass(frozen=True)
class TunedLens:
    """Translators of residual streams, one a layer. A pytree.

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
        """The identity at every layer: the logit lens.

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
        """`resid + resid W + b`, layer by layer, in float32.

        Raises:
          ValueError: `resid` is not `[layer ... d_model]` of this lens, such as a capture of one layer.
        """
        self._check(resid)
        x = resid.astype(jnp.float32)
        return x + jnp.einsum("l...m,lmn->l...n", x, self.W) + jnp.expand_dims(self.b, tuple(range(1, x.ndim - 1)))

    def __call__(
        self, weights: Weights, resid: Float[Typed, "layer *axes d_model"]
    ) -> Float[Typed, "layer *axes d_vocab"]:
        """The logits that each layer would give, float32.

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
          ValueError: as `translate`; `logits` of other tokens than `resid`.
        """
        self._check(resid, logits)
        return lax.map(lambda x: self._of_layer(weights, x, logits, mask), self.translate(resid))

    def _check(self, resid: Array, logits: Array | None = None) -> None:
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

    def _read(self, weights: Weights, x: Array) -> Array:
        return logit_lens(weights, x, eps=self.eps, centred=self.centred, capped=self.capped)

    def _of_layer(self, weights: Weights, x: Array, logits: Array, mask: Array | None) -> Array:
        read = self._read(weights, x)
        counted = jnp.ones(logits.shape[:-1], bool) if mask is None else mask
        each = jnp.where(counted, kl(logits)(read), 0)
        return each.sum() / jnp.maximum(counted.sum(), 1).astype(jnp.float32)

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Writes the lens to a folder, whole or not at all, with what else to remember, such as `site=`, `model=`.

        Raises:
          FileExistsError: `path` is there and is not a checkpoint of this library.
          TypeError: JSON cannot hold the metadata.
        """
        options = {"eps": self.eps, "centred": self.centred, "capped": self.capped}
        about = {"lens": "tuned", **options, "about": metadata}
        io.orbax.save(path, {"W": self.W, "b": self.b}, about)

    @classmethod
    def load(cls, path: str | Path) -> "TunedLens":
        """The lens in a folder that `save` wrote.

        Raises:
          FileNotFoundError: there is no such folder.
          ValueError: it holds something else, or is torn.
        """
        arrays, metadata = io.orbax.load(path)
        if metadata.get("lens") != "tuned" or set(arrays) != {"W", "b"}:
            raise ValueError(f"{path}: not a tuned lens; it holds {', '.join(sorted(arrays))}")
        return cls(**arrays, **{name: metadata[name] for name in ("eps", "centred", "capped") if name in metadata})


@partial(jax.tree_util.register_dataclass, data_fields=["lens", "opt_state", "step"], meta_fields=["optimizer"])
@dataclass(frozen=True)
class LensState:
    """What one step of training hands to the next: the lens, the optimizer's state, int32 `[]` steps taken."""

    lens: Any
    opt_state: Any
    step: Any
    optimizer: optax.GradientTransformation

    @classmethod
    def create(cls, lens: TunedLens, optimizer: optax.GradientTransformation | None = None) -> "LensState":
        """The state before the first step; the optimizer is any of optax's, by default `adam(1e-3)`."""
        optimizer = optax.adam(1e-3) if optimizer is None else optimizer
        return cls(lens, optimizer.init(_parameters(lens)), jnp.zeros((), jnp.int32), optimizer)


@jax.jit
def lens_step(
    state: LensState,
    weights: Weights,
    resid: Float[Typed, "layer *axes d_model"],
    logits: Float[Typed, "*tokens d_vocab"],
    mask: Mask | None = None,
) -> tuple[LensState, Float[Typed, "layer"]]:
    """One step of training. Pure.

    Args:
      state: from `LensState.create` or the step before.
      weights, resid, logits, mask: as in `TunedLens.divergence`, float32 or bfloat16; parameters stay float32.

    Returns:
      `(state, losses)`: losses `[layer]`, the KL before the step; where one is not finite, the state is the one given.

    Raises:
      ValueError: as `TunedLens.divergence`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import lens
      >>> state = lens.LensState.create(lens.TunedLens.create(2, 1))
      >>> weights, resid = {"W_U": jnp.eye(2)}, jnp.array([[[[1.0, 0.0]]]])
      >>> state, losses = lens.lens_step(state, weights, resid, jnp.array([[[0.0, 3.0]]]))
      >>> int(state.step), losses.shape
      (1, (1,))
    """
    lens = state.lens
    lens._check(resid, logits)

    def of_layer(layer: Any) -> Any:
        parameters, x = layer

        def loss(parameters: Any) -> Array:
            one = replace(lens, **jax.tree.map(lambda p: p[None], parameters))
            return one._of_layer(weights, one.translate(x[None])[0], logits, mask)

        return jax.value_and_grad(loss)(parameters)

    parameters = _parameters(lens)
    losses, gradient = lax.map(of_layer, (parameters, resid))  # a layer at a time: logits are large
    with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
        updates, opt_state = state.optimizer.update(gradient, state.opt_state, parameters)
        moved: Any = optax.apply_updates(parameters, updates)
    after = LensState(replace(lens, **moved), opt_state, state.step + 1, state.optimizer)
    finite = jnp.isfinite(losses).all()
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, state), losses


def train_lens(
    state: LensState,
    f: Callable[..., Array],
    model: Any,
    weights: Weights,
    batches: Iterable[Any],
    *,
    site: str = "blocks.resid_pre",
    logits: str | None = None,
    report: Callable[[LensState, np.ndarray], None] | None = None,
    every: int = 20,
) -> LensState:
    """Takes one step for each batch of texts, until there are no more.

    Args:
      state: from `LensState.create`.
      f: `(model, tokens) -> logits [batch position d_vocab]`, with sites.
      model: a pytree, scanned or not, which stays as it is.
      weights: `models.weights(model)`.
      batches: int32 tokens `[batch position]`, or pairs of them and a mask, False at what does not count, such as
        padding on the right; of one shape.
      site: residual stream that the lens reads; after the last layer there is nothing to learn.
      logits: site of the model's logits where they are not what `f` gives; a lens that is not `capped` of a model that
        caps its logits reads those before the cap, `"unembed.out"`.
      report: called with the state and the losses `[layer]` of every `every`-th step.
      every: how often to look; in between nothing waits for the device.

    Returns:
      The last state.

    Raises:
      ValueError: no batch; an address that names no site; logits after a cap for a lens that reads those before; as
        `lens_step`.
      FloatingPointError: the loss of a layer is not finite; names the step and the layer.

    Example:
      >>> import jax
      >>> from interp_jax import lens, models
      >>> model, _ = models.load("microworld")
      >>> state = lens.LensState.create(lens.TunedLens.create(128, 4))
      >>> texts = jax.random.randint(jax.random.key(0), (2, 8, 12), 0, 641)
      >>> int(lens.train_lens(state, models.forward, model, models.weights(model), texts).step)
      2
    """
    if logits is None and CAP in weights and not state.lens.capped:
        raise ValueError(
            "train_lens: this model caps its logits: give logits='unembed.out', or a TunedLens with capped=True"
        )
    read = jax.jit(capture(f, (site,) if logits is None else (site, logits)))
    first, seen = int(state.step), 0
    unseen: list[Array] = []
    for tokens in batches:
        tokens, mask = tokens if isinstance(tokens, tuple) else (tokens, None)
        out, acts = read(model, tokens)
        state, losses = lens_step(state, weights, acts[site], out if logits is None else acts[logits], mask)
        unseen.append(losses)
        if len(unseen) == every:
            (last,) = _check_finite(unseen, first + seen)
            seen, unseen = seen + every, []
            if report is not None:
                report(state, last)
    if not seen and not unseen:
        raise ValueError("train_lens: there is no batch; give tokens")
    _check_finite(unseen, first + seen)
    return state


def _check_finite(losses: list[Array], first: int) -> np.ndarray:
    """The last of the losses of steps `first`, ..., `[1 layer]`; raises FloatingPointError where one is not finite."""
    values = np.array([np.asarray(loss) for loss in losses])
    for step, layer in np.argwhere(~np.isfinite(values))[:1]:
        raise FloatingPointError(
            f"step {first + step}: the loss of layer {layer} is not finite; the residual stream has NaN or inf, or the "
            "learning rate is too high"
        )
    return values[-1:]


def _parameters(lens: TunedLens) -> dict[str, Any]:
    return {"W": lens.W, "b": lens.b}
