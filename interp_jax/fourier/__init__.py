"""Functions of residues modulo p by frequency, and the measures that tell clocks and pizzas apart."""

from interp_jax.fourier.residues import (
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

__all__ = [
    "clock_logits",
    "correct_logits",
    "distance_irrelevance",
    "fourier_power",
    "gradient_symmetry",
    "keep_frequencies",
    "key_frequencies",
    "pair_power",
    "pizza_logits",
]
