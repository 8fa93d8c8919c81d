"""Lenses: reading residual streams, heads and weights. They take `models.weights(model)` and captures, not models."""

from interp_jax.lens.directions import directions, swap
from interp_jax.lens.jacobian import JacobianLens, fit_jacobian
from interp_jax.lens.reading import Lens
from interp_jax.lens.residual import (
    COMPONENTS,
    components,
    direct_attribution,
    logit_biases,
    logit_directions,
    logit_lens,
    total,
)
from interp_jax.lens.saving import load, save
from interp_jax.lens.training import LensState, lens_step, train_lens
from interp_jax.lens.tuned import TunedLens

__all__ = [
    "COMPONENTS",
    "JacobianLens",
    "Lens",
    "LensState",
    "TunedLens",
    "components",
    "direct_attribution",
    "directions",
    "fit_jacobian",
    "lens_step",
    "load",
    "logit_biases",
    "logit_directions",
    "logit_lens",
    "save",
    "swap",
    "total",
    "train_lens",
]
