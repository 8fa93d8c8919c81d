"""Lenses: reading residual streams, heads and weights. They take `models.weights(model)` and captures, not models."""

from interp_jax.lens.circuits import (
    composition_scores,
    ov_circuits,
    qk_circuits,
    top_tokens_read,
    top_tokens_written,
)
from interp_jax.lens.fourier import (
    clock_logits,
    correct_logits,
    distance_irrelevance,
    fourier_power,
    gradient_symmetry,
    keep_frequencies,
    key_frequencies,
    pair_power,
    pizza_logits,
)
from interp_jax.lens.heads import duplicate_token_scores, induction_scores, previous_token_scores
from interp_jax.lens.processing import centre_unembed, centre_writing_weights, fold_norms, fold_value_biases
from interp_jax.lens.residual import (
    COMPONENTS,
    components,
    direct_attribution,
    logit_biases,
    logit_directions,
    logit_lens,
    total,
)
from interp_jax.lens.tuned import LensState, TunedLens, lens_step, train_lens

__all__ = [
    "COMPONENTS",
    "LensState",
    "TunedLens",
    "centre_unembed",
    "centre_writing_weights",
    "clock_logits",
    "components",
    "composition_scores",
    "correct_logits",
    "direct_attribution",
    "distance_irrelevance",
    "duplicate_token_scores",
    "fold_norms",
    "fold_value_biases",
    "fourier_power",
    "gradient_symmetry",
    "induction_scores",
    "keep_frequencies",
    "key_frequencies",
    "lens_step",
    "logit_biases",
    "logit_directions",
    "logit_lens",
    "ov_circuits",
    "pair_power",
    "pizza_logits",
    "previous_token_scores",
    "qk_circuits",
    "top_tokens_read",
    "top_tokens_written",
    "total",
    "train_lens",
]
