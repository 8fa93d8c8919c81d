"""Comparing dictionaries by their rows: with a known one, between seeds, between widths; and models by their features.

    stability = max over one-to-one pairings of the mean cosine of the paired rows
    universality_i = max_j corr(f_i of model A, f_j of model B) over the same tokens

Sharkey et al. 2022, Taking features out of superposition (mean max cosine); Fel et al. 2025,
https://arxiv.org/abs/2502.12892 (stability); Bricken et al. 2023, Towards Monosemanticity (splitting, universality).
Caveat: rows are compared with their signs; a row and its negative have cosine -1.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, Int
import numpy as np

from interp_jax.dictionaries.kinds.arrays import Parameter, Values, unit_rows
from interp_jax.dictionaries.kinds.base import Dictionary

_CHUNK = 512  # rows compared at once: memory is this times the other side's number of rows


def _rows(dictionary: Any, what: str) -> Float[Array, "d_sae d_in"]:
    rows = jnp.asarray(dictionary.W_dec if isinstance(dictionary, Dictionary) else dictionary)
    if rows.ndim != 2:
        raise ValueError(f"{what}: rows of shape {tuple(rows.shape)}; give a dictionary of one site or [d_sae d_in]")
    return rows.astype(jnp.float32)


def _pair(a: Any, b: Any, what: str) -> tuple[Array, Array]:
    a, b = _rows(a, what), _rows(b, what)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"{what}: rows of widths {a.shape[-1]} and {b.shape[-1]}; both must be of one site")
    return a, b


@partial(jax.jit, static_argnames="itself")
def nearest(
    rows: Float[Values, "n d_in"], among: Float[Values, "m d_in"], *, itself: bool = True
) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """The largest cosine of each row with another matrix's rows, and which row that is.

    Args:
      rows: `[n d_in]`.
      among: `[m d_in]`.
      itself: False leaves out the row of the same index, for a matrix compared with itself.

    Returns:
      Cosines `[n]` float32 and indices `[n]` int32. A row of zeros has cosine 0 with everything.

    Example:
      >>> import jax.numpy as jnp
      >>> cosines, index = nearest(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0], [3.0, 4.0]]))
      >>> round(float(cosines[0]), 2), int(index[0])
      (0.6, 1)
    """
    units = unit_rows(jnp.asarray(among, jnp.float32))

    def best(indexed: tuple[Array, Array]) -> tuple[Array, Array]:
        index, row = indexed
        cosines = units @ row
        if not itself:
            cosines = jnp.where(jnp.arange(len(units)) == index, -jnp.inf, cosines)
        chosen = jnp.argmax(cosines)
        return cosines[chosen], chosen

    return lax.map(best, (jnp.arange(len(rows)), unit_rows(jnp.asarray(rows, jnp.float32))), batch_size=_CHUNK)


def mean_max_cosine(dictionary: Any, known: Any) -> Float[Array, ""]:
    """How well known directions are found: the largest cosine of each with a row, averaged.

    Args:
      dictionary: a dictionary or rows `[d_sae d_in]`.
      known: the directions `[n d_in]`, of any norm, or the dictionary that has them.

    Returns:
      float32 `[]`, at most 1.

    Raises:
      ValueError: an input is not a matrix, or the widths differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import dictionaries
      >>> round(float(dictionaries.mean_max_cosine(jnp.eye(3), jnp.array([[2.0, 0.0, 0.0], [3.0, 4.0, 0.0]]))), 2)
      0.9
    """
    rows, directions = _pair(dictionary, known, "mean_max_cosine")
    return nearest(directions, rows)[0].mean()


@dataclass(frozen=True, eq=False)
class Matching:
    """A one-to-one pairing of rows; arrays of the length of the smaller side.

    Attributes:
      a: `[n]` int, row of the first, rising.
      b: `[n]` int, the row of the second that it is paired with.
      cosine: `[n]` float32, of the two.
    """

    a: np.ndarray
    b: np.ndarray
    cosine: np.ndarray


def match(a: Any, b: Any) -> Matching:
    """The one-to-one pairing of rows with the largest sum of cosines (the Hungarian method, on the host).

    Args:
      a: a dictionary or rows `[d_a d_in]`.
      b: a dictionary or rows `[d_b d_in]`; where the sizes differ, the larger side's rest stays alone.

    Returns:
      A `Matching`. Time grows with the cube of the size.

    Raises:
      ValueError: an input is not a matrix, or the widths differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import dictionaries
      >>> dictionaries.match(jnp.eye(3), jnp.eye(3)[jnp.array([2, 0, 1])]).b.tolist()
      [1, 2, 0]
    """
    from scipy.optimize import linear_sum_assignment

    rows_a, rows_b = _pair(a, b, "match")
    cosines = np.asarray(unit_rows(rows_a) @ unit_rows(rows_b).T)
    of_a, of_b = linear_sum_assignment(cosines, maximize=True)
    return Matching(of_a, of_b, cosines[of_a, of_b])


def stability(a: Any, b: Any) -> float:
    """How alike two seeds' dictionaries are: the mean cosine of their rows after optimal matching.

    Args:
      a: a dictionary or rows `[d_a d_in]`.
      b: a dictionary or rows `[d_b d_in]`.

    Returns:
      At most 1, which is the same rows in any order. Over the smaller side where the sizes differ.

    Raises:
      ValueError: an input is not a matrix, or the widths differ.

    Example:
      >>> import jax
      >>> from interp_jax import dictionaries
      >>> a, b = (dictionaries.TopK.create(jax.random.key(seed), 8, 32, 4) for seed in (0, 1))
      >>> round(dictionaries.stability(a, a), 4), dictionaries.stability(a, b) < 0.9
      (1.0, True)
    """
    return float(match(a, b).cosine.mean())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Splitting:
    """Which features of a wide dictionary are parts of which of a narrow one.

    Attributes:
      nearest: `[d_large]` int32, the row of the narrow one with the largest cosine.
      cosine: `[d_large]`, that cosine.
      correlation: `[d_large]`, Pearson correlation of the two features over the inputs, NaN where one never varies;
        None if no inputs were given.
      child: `[d_large]` bool, whether the cosine reaches the threshold; the others are new.
      children: `[d_small]` int32, how many children each feature of the narrow one has: 1 where it stays, more where
        it is split, 0 where it is gone.
    """

    nearest: Parameter
    cosine: Parameter
    correlation: Parameter | None
    child: Parameter
    children: Parameter


def splitting(small: Any, large: Any, x: Any = None, *, threshold: float = 0.7) -> Splitting:
    """Feature splitting between two dictionaries of one site: each feature of the larger under its nearest row.

    Args:
      small: a dictionary or rows `[d_small d_in]`.
      large: a dictionary or rows `[d_large d_in]`.
      x: inputs `[n d_in]` on which the pairs' activations are correlated; both must then be dictionaries.
      threshold: cosine from which a feature counts as a child rather than as new; a convention, so vary it.

    Returns:
      A `Splitting`.

    Raises:
      ValueError: an input is not a matrix, the widths differ, or `x` is given with rows alone.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import dictionaries
      >>> large = jnp.array([[1.0, 0.2, 0.0], [1.0, -0.2, 0.0], [0.0, 0.0, 1.0]])
      >>> dictionaries.splitting(jnp.eye(3)[:2], large).children.tolist()
      [2, 0]
    """
    rows, wide_rows = _pair(small, large, "splitting")
    cosine, index = nearest(wide_rows, rows)
    correlation = None
    if x is not None:
        if not (isinstance(small, Dictionary) and isinstance(large, Dictionary)):
            raise ValueError("splitting: rows alone have no activations; with x= give both dictionaries")
        narrow, wide = _standard(small.encode(x)), _standard(large.encode(x))
        correlation = jnp.sum(narrow[:, index] * wide, axis=0)
    child = cosine >= threshold
    children = jnp.zeros(len(rows), jnp.int32).at[index].add(child.astype(jnp.int32))
    return Splitting(index, cosine, correlation, child, children)


def _standard(features: Array) -> Array:
    """Columns less their means and of unit norm, so that a product of two is a correlation; NaN where constant."""
    features = features.astype(jnp.float32)
    constant = jnp.all(features == features[:1], axis=0)
    centred = features - features.mean(axis=0)
    return centred / jnp.where(constant, jnp.nan, jnp.linalg.norm(centred, axis=0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Universality:
    """How well each feature of one model is found in another.

    Attributes:
      correlation: `[d_a]`, the largest Pearson correlation with a feature of the other model; NaN for a dead feature.
      partner: `[d_a]` int32, that feature; -1 for a dead one.
      mean, median: `[]`, over the features that are not dead; NaN if all are.
    """

    correlation: Parameter
    partner: Parameter
    mean: Parameter
    median: Parameter


@jax.jit
def universality(features_a: Any, features_b: Any) -> Universality:
    """For each feature of model A the feature of model B that goes with it best over the same tokens.

    Features that never vary on these tokens, which the dead ones do not, are left out on both sides.

    Args:
      features_a: `[token d_a]`, of the first model's dictionary.
      features_b: `[token d_b]`, of the second's on the same tokens; the models' widths need not agree.

    Returns:
      A `Universality`.

    Raises:
      ValueError: they are not of the same tokens.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import dictionaries
      >>> a = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
      >>> found = dictionaries.universality(a, jnp.array([[0.0, 2.0], [1.0, 4.0], [5.0, 0.0]]))
      >>> found.partner.tolist(), round(float(found.mean), 2)
      ([1, -1], 1.0)
    """
    features_a, features_b = jnp.asarray(features_a), jnp.asarray(features_b)
    if features_a.ndim != 2 or features_b.ndim != 2 or len(features_a) != len(features_b):
        raise ValueError(
            f"universality: features of shapes {tuple(features_a.shape)} and {tuple(features_b.shape)}; "
            "give both as [token d_sae] over the same tokens"
        )
    correlations = _standard(features_a).T @ _standard(features_b)
    dead = jnp.all(jnp.isnan(correlations), axis=1)
    known = jnp.where(jnp.isnan(correlations), -jnp.inf, correlations)
    largest = jnp.where(dead, jnp.nan, known.max(axis=1))
    partner = jnp.where(dead, -1, known.argmax(axis=1))
    return Universality(largest, partner, jnp.nanmean(largest), jnp.nanmedian(largest))
