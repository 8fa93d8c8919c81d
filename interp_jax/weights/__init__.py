"""Weights alone, without a run: what heads read, write and pass on, and weights rewritten to be read."""

from interp_jax.weights.heads import composition_scores, ov_circuits, qk_circuits, top_tokens_read, top_tokens_written
from interp_jax.weights.processing import centre_unembed, centre_writing_weights, fold_norms, fold_value_biases
from interp_jax.weights.views import CAP, Weights, check_decoder, unembedding

__all__ = [
    "CAP",
    "Weights",
    "centre_unembed",
    "centre_writing_weights",
    "check_decoder",
    "composition_scores",
    "fold_norms",
    "fold_value_biases",
    "ov_circuits",
    "qk_circuits",
    "top_tokens_read",
    "top_tokens_written",
    "unembedding",
]
