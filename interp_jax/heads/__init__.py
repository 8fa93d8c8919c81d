"""Heads by where they look: scores of their attention patterns on texts made for the purpose."""

from interp_jax.heads.scores import duplicate_token_scores, induction_scores, previous_token_scores

__all__ = [
    "duplicate_token_scores",
    "induction_scores",
    "previous_token_scores",
]
