"""Lenses: reading residual streams, heads and weights. They take `models.weights(model)` and captures, not models."""

from interp_jax.lens.circuits import (
    composition_scores,
    ov_circuits,
    qk_circuits,
    top_tokens_read,
    top_tokens_written,
)
from interp_jax.lens.heads import duplicate_token_scores, induction_scores, previous_token_scores
from interp_jax.lens.processing import centre_unembed, centre_writing_weights, fold_norms
from interp_jax.lens.residual import COMPONENTS, components, direct_attribution, logit_directions, logit_lens, total
from interp_jax.lens.tuned import LensState, TunedLens, lens_step, train_lens

__all__ = [
    "COMPONENTS",
    "LensState",
    "TunedLens",
    "centre_unembed",
    "centre_writing_weights",
    "components",
    "composition_scores",
    "direct_attribution",
    "duplicate_token_scores",
    "fold_norms",
    "induction_scores",
    "lens_step",
    "logit_directions",
    "logit_lens",
    "ov_circuits",
    "previous_token_scores",
    "qk_circuits",
    "top_tokens_read",
    "top_tokens_written",
    "total",
    "train_lens",
]
