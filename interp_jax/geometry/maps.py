"""From the space of one model to that of another: the linear map that fits the words they share, and what it carries.

    W = argmin over W of sum over shared words |a_i W - b_i|^2;   a steering vector v of the one is v W in the other

Lee et al. 2025, "Shared global and local geometry of language model embeddings", arXiv:2503.21073, who fit W on
unembeddings and steer the residual stream of the other model with v W.
Caveat: with fewer words than dimensions the fit is perfect and says nothing: score it on words that were left out. The
lengths of two residual streams differ: scale what is carried to the stream that it is added to.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float
import numpy as np


def shared_words(words: Sequence[str], other: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that two vocabularies share, by their text.

    Args:
      words: the text of each token of one model, as `tokenizer.to_str_tokens(range(tokenizer.d_vocab))` gives.
      other: the same of the other model.

    Returns:
      `(ids, other_ids)`, int32 `[shared]` each, in the order of `words`: the same word in both. A text that several
      tokens have, such as a part of a character, is no word.

    Raises:
      ValueError: they share none.

    Example:
      >>> from interp_jax import geometry
      >>> [ids.tolist() for ids in geometry.shared_words(["<bos>", " a", " cat"], [" cat", " dog", " a"])]
      [[1, 2], [2, 0]]
    """
    ids, other_ids = _once(words), _once(other)
    pairs = [(i, other_ids[word]) for word, i in ids.items() if word in other_ids]
    if not pairs:
        raise ValueError(
            f"shared_words: vocabularies of {len(words)} and {len(other)} tokens share no word; choose models whose "
            "tokenizers have words in common, and write spaces alike (to_str_tokens does)"
        )
    return tuple(np.array(pairs, np.int32).T)


def _once(words: Sequence[str]) -> dict[str, int]:
    """The ids of the texts that one token alone has."""
    counts = Counter(words)
    return {word: i for i, word in enumerate(words) if counts[word] == 1}


@partial(jax.tree_util.register_dataclass, data_fields=["W"], meta_fields=[])
@dataclass(frozen=True)
class LinearMap:
    """A linear map from the space of one model to that of another. It is a pytree.

    Attributes:
      W: float32 `[d_source d_target]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> geometry.LinearMap(jnp.array([[1.0, 0.0, 1.0]]))(jnp.array([2.0])).tolist()
      [2.0, 0.0, 2.0]
    """

    W: Any

    def __call__(self, vectors: Float[Typed, "*axes d_source"]) -> Float[Typed, "*axes d_target"]:
        """Carries vectors over, in float32: `vectors @ W`.

        Raises:
          ValueError: vectors of another width than the model that the map leads from.
        """
        d_source, d_target = self.W.shape
        if vectors.shape[-1] != d_source:
            raise ValueError(
                f"LinearMap: vectors of width {vectors.shape[-1]} for a map from {d_source} to {d_target}; give "
                "vectors of the model that it leads from"
            )
        return vectors.astype(jnp.float32) @ self.W

    def score(
        self, source: Float[Typed, "token d_source"], target: Float[Typed, "token_too d_target"]
    ) -> Float[Typed, ""]:
        """The share of the variance of `target` that the map explains, best on words that it was not fitted on.

        Raises:
          ValueError: as a call; other numbers of tokens, or another width of `target`.
        """
        carried, wanted = self(source), target.astype(jnp.float32)
        if carried.shape != wanted.shape:
            raise ValueError(
                f"LinearMap.score: what is carried is {list(carried.shape)}, the target {list(wanted.shape)}; give the "
                "same tokens of both models"
            )
        return 1 - jnp.sum((wanted - carried) ** 2) / jnp.sum((wanted - wanted.mean(0)) ** 2)


def least_squares_map(source: Float[Typed, "token d_source"], target: Float[Typed, "token_too d_target"]) -> LinearMap:
    """The linear map that carries the embeddings of one model nearest to those of another.

    There is no constant: a steering vector is a difference, and a constant would fall out of it. Where there are fewer
    tokens than dimensions it is the smallest of the maps that fit.

    Args:
      source: `[token d_source]`, such as columns of `W_U` as rows, of the words that both models have.
      target: `[token d_target]`, row i of the same word.

    Raises:
      ValueError: other numbers of tokens in the two, or none.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
      >>> found = geometry.least_squares_map(x, x @ jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
      >>> found.W.round().astype(int).tolist()
      [[1, 2, 3], [4, 5, 6]]
    """
    if len(source) != len(target) or not len(source):
        raise ValueError(
            f"least_squares_map: a source of {len(source)} tokens and a target of {len(target)}; give the same tokens "
            "of both models (shared_words finds them)"
        )
    return LinearMap(_fitted(source, target))


@jax.jit
def _fitted(source: Array, target: Array) -> Array:
    return jnp.linalg.lstsq(source.astype(jnp.float32), target.astype(jnp.float32))[0]
