"""Lenses: reading residual streams, heads and weights. They take `models.weights(model)` and captures, not models."""

from interp_jax.lens.residual import (
    COMPONENTS,
    components,
    direct_attribution,
    logit_biases,
    logit_directions,
    logit_lens,
    total,
)
from interp_jax.lens.training import LensState, lens_step, train_lens
from interp_jax.lens.tuned import TunedLens, load, save

__all__ = [
    "COMPONENTS",
    "LensState",
    "TunedLens",
    "components",
    "direct_attribution",
    "lens_step",
    "load",
    "logit_biases",
    "logit_directions",
    "logit_lens",
    "save",
    "total",
    "train_lens",
]
