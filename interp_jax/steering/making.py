"""How steering vectors are made from activations of positive and of negative examples, and what to compare them with.

    difference of means:  mean(x+) - mean(x-)
    PCA of differences:   first principal component of x+_i - x-_i over pairs i
    LAT:                  first principal component of (x_i - x_j) / |x_i - x_j| over random pairs of all examples

Rimsky et al. 2024, arXiv:2312.06681 (contrastive activation addition); Zou et al. 2023, "Representation engineering",
arXiv:2310.01405 (PCA of differences, LAT), the differences of LAT at unit norm as in AxBench, arXiv:2501.17148.
Caveat: a principal component is of unit norm, and centring takes away what all pairs have in common: where every
difference is nearly the same, what is left to find is noise. Compare with `random` and `shuffled`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float, Key

Activations = Float[Typed, "*layer example d_model"]
Others = Float[Typed, "*layer other d_model"]
Vectors = Float[Typed, "*layer d_model"]
Maker = Callable[..., Any]


def difference_of_means(positive: Activations, negative: Others) -> Vectors:
    """The mean of the positive activations less that of the negative ones.

    Args:
      positive, negative: `[*layer example d_model]` of any float dtype; as many examples of each as there are.

    Returns:
      float32 `[*layer d_model]`, with the scale of the data: added once, it moves one mean to the other.

    Raises:
      ValueError: no example on one side, or sides of other layers or widths.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import steering
      >>> steering.difference_of_means(jnp.array([[1.0, 4.0], [3.0, 4.0]]), jnp.array([[0.0, 1.0]])).tolist()
      [2.0, 3.0]
    """
    positive, negative = _sides("difference_of_means", positive, negative)
    return positive.mean(-2) - negative.mean(-2)


def pca_of_differences(positive: Activations, negative: Others) -> Vectors:
    """The first principal component of the differences in pairs, pointing to the positive side.

    Args:
      positive, negative: `[*layer example d_model]`, two of each pair in the same place.

    Returns:
      float32 `[*layer d_model]` of unit norm.

    Raises:
      ValueError: as `difference_of_means`; sides of different numbers of examples, or a single pair.
    """
    positive, negative = _sides("pca_of_differences", positive, negative)
    if positive.shape != negative.shape:
        raise ValueError(
            f"steering.pca_of_differences: {positive.shape[-2]} positive and {negative.shape[-2]} negative examples: "
            "give pairs, or use difference_of_means or lat"
        )
    return _component("pca_of_differences", positive - negative, positive, negative)


def lat(key: Key[Typed, ""], positive: Activations, negative: Others) -> Vectors:
    """The first principal component of differences between random pairs of examples (linear artificial tomography).

    Each example stands in one pair, the same at each layer; which side it is of is used for the sign alone.
    AxBench draws its pairs from the positive examples only.

    Args:
      key: a `jax.random.key`, for the pairs.
      positive, negative: as in `difference_of_means`, four examples or more together.

    Returns:
      float32 `[*layer d_model]` of unit norm.

    Raises:
      ValueError: as `difference_of_means`; fewer than four examples.
    """
    positive, negative = _sides("lat", positive, negative)
    x = jnp.concatenate([positive, negative], axis=-2)
    order = jax.random.permutation(key, x.shape[-2])
    n_pairs = x.shape[-2] // 2
    differences = x[..., order[:n_pairs], :] - x[..., order[n_pairs : 2 * n_pairs], :]
    norms = jnp.linalg.norm(differences, axis=-1, keepdims=True)
    differences = differences / jnp.where(norms == 0, 1, norms)
    return _component("lat", differences, positive, negative)


def random(key: Key[Typed, ""], like: Vectors) -> Vectors:
    """Directions drawn at random, with the norms of other vectors: what any push of that size does.

    Args:
      key: a `jax.random.key`.
      like: `[*layer d_model]`.

    Returns:
      float32, the shape of `like`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import steering
      >>> jnp.linalg.norm(steering.random(jax.random.key(0), 3 * jnp.eye(2, 8)), axis=-1).round(4).tolist()
      [3.0, 3.0]
    """
    drawn = jax.random.normal(key, like.shape, jnp.float32)
    norms = [jnp.linalg.norm(x.astype(jnp.float32), axis=-1, keepdims=True) for x in (like, drawn)]
    return drawn * norms[0] / norms[1]


def shuffled(key: Key[Typed, ""], maker: Maker, positive: Activations, negative: Others) -> Vectors:
    """What a maker finds where the labels are shuffled: the same examples, each put on a side at random.

    Args:
      key: a `jax.random.key`.
      maker: `difference_of_means`, `pca_of_differences`, `partial(lat, key)`, or another `(positive, negative) ->
        vectors`. Pairs are torn apart.
      positive, negative: as in `difference_of_means`; the sides keep their sizes.

    Returns:
      what the maker returns.

    Raises:
      ValueError: as the maker.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import steering
      >>> x = jax.random.normal(jax.random.key(0), (2, 100, 8))
      >>> null = steering.shuffled(jax.random.key(1), steering.difference_of_means, x[0] + 5, x[1])
      >>> bool(jnp.linalg.norm(null) < jnp.linalg.norm(steering.difference_of_means(x[0] + 5, x[1])))
      True
    """
    positive, negative = _sides("shuffled", positive, negative)
    x = jnp.concatenate([positive, negative], axis=-2)
    x = jnp.take(x, jax.random.permutation(key, x.shape[-2]), axis=-2)
    n = positive.shape[-2]
    return maker(x[..., :n, :], x[..., n:, :])


def name_of(maker: Maker) -> str:
    """The name of a maker, of a partial one too."""
    return name_of(maker.func) if isinstance(maker, partial) else getattr(maker, "__name__", type(maker).__name__)


def _sides(name: str, positive: Array, negative: Array) -> tuple[Array, Array]:
    """Both sides in float32. Raises ValueError where one is empty, or where they are not of the same places."""
    for side, x in (("positive", positive), ("negative", negative)):
        if not x.shape[-2]:
            raise ValueError(f"steering.{name}: no {side} examples: a direction needs examples of both sides")
    if (*positive.shape[:-2], positive.shape[-1]) != (*negative.shape[:-2], negative.shape[-1]):
        raise ValueError(
            f"steering.{name}: positive is {list(positive.shape)}, negative {list(negative.shape)}: give activations "
            "[layer example d_model] of the same site"
        )
    return positive.astype(jnp.float32), negative.astype(jnp.float32)


def _component(name: str, differences: Array, positive: Array, negative: Array) -> Array:
    """The first principal component of differences, along which the mean of the positive side is the larger."""
    if differences.shape[-2] < 2:
        raise ValueError(f"steering.{name}: {differences.shape[-2]} pair of examples: components need two or more")
    centred = differences - differences.mean(-2, keepdims=True)
    component = jnp.linalg.svd(centred, full_matrices=False)[2][..., 0, :]
    along = ((positive.mean(-2) - negative.mean(-2)) * component).sum(-1, keepdims=True)
    return jnp.where(along < 0, -component, component)
