"""A stretch of text with the activations of one unit, a feature or a neuron, on its tokens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Excerpt:
    """A stretch of text: its tokens, the unit's activation on each, and which one it was chosen for.

    Attributes:
      tokens: the texts of its tokens.
      values: the unit's activation on each, as many as there are tokens; 0 where it does not fire.
      focus: the index of the token that the excerpt was chosen for.
    """

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    focus: int
