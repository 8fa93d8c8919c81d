"""Heads by where they look: scores on texts made for the purpose, a survey of a corpus; and what a head writes."""

from interp_jax.heads.scores import duplicate_token_scores, induction_scores, previous_token_scores
from interp_jax.heads.survey import Examples, Survey, survey
from interp_jax.heads.writing import head_output

__all__ = [
    "Examples",
    "Survey",
    "duplicate_token_scores",
    "head_output",
    "induction_scores",
    "previous_token_scores",
    "survey",
]
