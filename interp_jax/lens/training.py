"""Training of a tuned lens: Adam, or any of optax's, on the divergence of each layer by itself.

    loss = sum over layers of mean KL(model || lens_l)

Belrose et al. 2023, "Eliciting latent predictions from transformers with the tuned lens", arXiv:2303.08112.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float
import numpy as np
import optax

from interp_jax.core import capture
from interp_jax.lens.reading import Mask
from interp_jax.lens.tuned import TunedLens
from interp_jax.weights import CAP, Weights


@partial(jax.tree_util.register_dataclass, data_fields=["lens", "opt_state", "step"], meta_fields=["optimizer"])
@dataclass(frozen=True)
class LensState:
    """What one step of training hands to the next: the lens, the optimizer's state, and int32 `[]`, the steps taken."""

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
    """Takes one step of training. It is a pure function.

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
    lens.check(resid, logits, mask)

    def of_layer(layer: Any) -> Any:
        parameters, x = layer

        def loss(parameters: Any) -> Array:
            one = replace(lens, **jax.tree.map(lambda p: p[None], parameters))
            return one.divergence(weights, x[None], logits, mask)[0]

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
    read = capture(f, (site,) if logits is None else (site, logits))
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
    """The last losses `[1 layer]` of steps from `first` on. Raises FloatingPointError where one is not finite."""
    values = np.array([np.asarray(loss) for loss in losses])
    for step, layer in np.argwhere(~np.isfinite(values))[:1]:
        raise FloatingPointError(
            f"step {first + step}: the loss of layer {layer} is not finite; the residual stream has NaN or inf, or the "
            "learning rate is too high"
        )
    return values[-1:]


def _parameters(lens: TunedLens) -> dict[str, Any]:
    return {"W": lens.W, "b": lens.b}
