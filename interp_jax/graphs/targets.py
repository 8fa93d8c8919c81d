"""What an attribution graph explains: logits, differences of logits, directions, features."""

from collections.abc import Sequence
from dataclasses import dataclass
import operator
from typing import Any

import numpy as np

MOST, MASS = 10, 0.95  # of the likeliest tokens that are explained where nothing is asked for


@dataclass(frozen=True)
class Target:
    """One thing that a graph explains.

    Attributes:
      name: as it is shown.
      weight: by which it counts.
      logits: of a logit or a difference of logits, token -> factor.
      direction: `[d_model]` in the space that the unembedding reads, else None.
      feature: (layer, position, feature), else None.
    """

    name: str
    weight: float = 1.0
    logits: tuple[tuple[int, float], ...] = ()
    direction: Any = None
    feature: tuple[int, int, int] | None = None


def difference(more: Any, less: Any, *, weight: float = 1.0) -> tuple[str, Any, Any, float]:
    """The difference of two logits as a target of `attribution_graph`.

    Args:
      more, less: tokens, by number or, with a tokenizer, as text.
      weight: by which it counts beside other targets.

    Example:
      >>> difference(" Paris", " Rome")
      ('difference', ' Paris', ' Rome', 1.0)
    """
    return "difference", more, less, weight


def feature(layer: int, position: int, index: int, *, weight: float = 1.0) -> tuple[str, int, int, int, float]:
    """The pre-activation of a feature as a target of `attribution_graph`.

    Example:
      >>> feature(3, 5, 170)
      ('feature', 3, 5, 170, 1.0)
    """
    return "feature", layer, position, index, weight


def chosen(targets: Any, logits: np.ndarray, tokenizer: Any, d_model: int) -> list[Target]:
    """The targets that are asked for.

    Args:
      targets: as `attribution_graph` takes them.
      logits: `[d_vocab]` of the explained position.
      tokenizer: gives the number of a token's text, or None.
      d_model: width of directions.

    Raises:
      TypeError: a target of no known form.
      ValueError: text that is not one token, or without a tokenizer; a token that is not there, a direction of another
        width.
    """
    if targets is None or isinstance(targets, int):
        return likeliest(logits, tokenizer, MOST if targets is None else targets)
    if isinstance(targets, str) or not isinstance(targets, Sequence):
        raise TypeError(f"targets: a sequence of tokens, texts and such, or how many logits, not {targets!r:.60}")
    if not targets:
        raise ValueError("targets: none is given; leave it out for the likeliest tokens")
    return [_target(one, logits, tokenizer, d_model) for one in targets]


def likeliest(logits: np.ndarray, tokenizer: Any, most: int) -> list[Target]:
    """The likeliest tokens, at most so many and until they have 95 % of the probability."""
    if most < 1:
        raise ValueError(f"targets={most}: give at least 1")
    chances = _chances(logits)
    order = np.argsort(-chances)[:most]
    n = int(np.searchsorted(chances[order].cumsum(), MASS)) + 1
    return [Target(_shown(int(token), tokenizer), float(chances[token]), ((int(token), 1.0),)) for token in order[:n]]


def _target(one: Any, logits: np.ndarray, tokenizer: Any, d_model: int) -> Target:
    if isinstance(one, str) or hasattr(one, "__index__"):
        token = _token(one, tokenizer, len(logits))
        return Target(_shown(token, tokenizer), float(_chances(logits)[token]), ((token, 1.0),))
    if isinstance(one, tuple) and len(one) == 4 and one[0] == "difference":
        more, less = (_token(part, tokenizer, len(logits)) for part in one[1:3])
        name = f"{_shown(more, tokenizer)} - {_shown(less, tokenizer)}"
        return Target(name, float(one[3]), ((more, 1.0), (less, -1.0)))
    if isinstance(one, tuple) and len(one) == 5 and one[0] == "feature":
        layer, position, index = map(operator.index, one[1:4])
        return Target(f"feature {layer}.{index} at {position}", float(one[4]), feature=(layer, position, index))
    if isinstance(one, tuple) and len(one) == 3 and isinstance(one[0], str):
        vector = np.asarray(one[2], np.float32)
        if vector.shape != (d_model,):
            raise ValueError(f"targets: direction {one[0]!r} has shape {list(vector.shape)}: give [{d_model}]")
        return Target(one[0], float(one[1]), direction=vector)
    raise TypeError(
        f"targets: {one!r:.60} is no token, text, (name, weight, direction), graphs.difference or graphs.feature"
    )


def _token(token: Any, tokenizer: Any, d_vocab: int) -> int:
    if not isinstance(token, str):
        token = operator.index(token)
        if not 0 <= token < d_vocab:
            raise ValueError(f"targets: no token {token}: the vocabulary has {d_vocab}")
        return token
    if tokenizer is None:
        raise ValueError(f"targets: the text {token!r} needs tokenizer=")
    return tokenizer.token_id(token)


def _shown(token: int, tokenizer: Any) -> str:
    return str(token) if tokenizer is None else tokenizer.decode([token])


def _chances(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return exponentials / exponentials.sum()
