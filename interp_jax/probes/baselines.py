"""Linear probes that need no search: least squares, class means, and a regression on principal components.

    ridge:      min sum_i (t_i - w x_i - b)^2 + l2 |w|^2,  t = 1 for the class, -1 for the others
    mass mean:  W_k = S^-1 mean_k,  b_k = -mean_k S^-1 mean_k / 2;  S = 1, or the covariance within classes
    PCA:        a logistic regression on the first principal components

Marks and Tegmark 2023, arXiv:2310.06824 (mass mean); Zou et al. 2023, arXiv:2310.01405 (PCA of representations).
Caveat: the logits of ridge and of plain class means have no calibrated scale; accuracy and AUC are what to compare.
"""

from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.probes.examples import each_place, examples
from interp_jax.probes.factors import eigenvectors, least_squares, solved
from interp_jax.probes.linear import Activations, LinearProbe, against_first, centre
from interp_jax.probes.regression import fit_logistic


def ridge(
    x: Activations,
    y: Any,
    *,
    l2: Any = 1.0,
    weights: Any = None,
    n_classes: int | None = None,
    chunk: int | None = None,
) -> LinearProbe:
    """Fits a ridge regression of +1 for the class and -1 for the others, as scikit-learn's `RidgeClassifier`.

    Args:
      x, y, weights, n_classes, chunk: as in `logistic`.
      l2: the penalty `l2 |w|^2`, which is scikit-learn's `alpha`.

    Raises:
      ValueError: as `logistic`.

    Example:
      >>> import jax
      >>> from interp_jax import probes
      >>> x = jax.random.normal(jax.random.key(0), (3, 80, 5))  # three layers
      >>> probes.ridge(x, x[0, :, 2] > 0).direction.shape
      (3, 5)
    """
    return each_place(_ridge, examples("probes.ridge", x, y, weights, n_classes), l2, chunk=chunk)


def _ridge(x: Array, y: Array, weights: Array, l2: Array, *, n_classes: int) -> LinearProbe:
    mean, centred = centre(x, weights)
    targets = 2 * jax.nn.one_hot(y, n_classes) - 1
    middle = weights @ targets / weights.sum()
    # A factorisation of the data itself: that of the Gram matrix would lose half of float32's digits.
    root = jnp.sqrt(weights)[:, None]
    rows = jnp.concatenate([root * centred, jnp.sqrt(l2) * jnp.eye(x.shape[-1])])
    wanted = jnp.concatenate([root * (targets - middle), jnp.zeros((x.shape[-1], n_classes))])
    W = least_squares(rows, wanted).T
    b = middle - W @ mean
    return LinearProbe(W, b) if n_classes > 2 else against_first(W[1], b[1])


def mass_mean(
    x: Activations,
    y: Any,
    *,
    shrinkage: Any = None,
    weights: Any = None,
    n_classes: int | None = None,
    chunk: int | None = None,
) -> LinearProbe:
    """Separates classes halfway between their means: the difference of means, or the linear discriminant.

    Args:
      x, y, weights, n_classes, chunk: as in `logistic`.
      shrinkage: None takes distances as they are, as scikit-learn's `NearestCentroid`. A number from 0 to 1 takes them
        by the covariance within classes, which is drawn that far to a multiple of the identity, as scikit-learn's
        `LinearDiscriminantAnalysis` with equal priors; 0 needs more examples than dimensions.

    Raises:
      ValueError: as `logistic`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import probes
      >>> x = jnp.array([[0.0, 1.0], [0.0, 3.0], [4.0, 1.0], [4.0, 3.0]])
      >>> probes.mass_mean(x, jnp.array([0, 0, 1, 1])).direction.tolist()
      [1.0, 0.0]
    """
    here = examples("probes.mass_mean", x, y, weights, n_classes)
    further = () if shrinkage is None else (shrinkage,)
    return each_place(_mass_mean, here, *further, chunk=chunk)


def _mass_mean(x: Array, y: Array, weights: Array, *shrinkage: Array, n_classes: int) -> LinearProbe:
    member = jax.nn.one_hot(y, n_classes) * weights[:, None]
    sizes = member.sum(0)
    means = member.T @ x / jnp.maximum(sizes, 1e-30)[:, None]
    rows = means
    if shrinkage:
        (share,) = shrinkage
        left = jnp.sqrt(weights)[:, None] * (x - means[y])
        covariance = left.T @ left / weights.sum()
        size = jnp.trace(covariance) / x.shape[-1]
        covariance = (1 - share) * covariance + share * size * jnp.eye(x.shape[-1])
        rows = solved(covariance, means.T).T
    bias = -(rows * means).sum(-1) / 2
    return LinearProbe(rows, jnp.where(sizes > 0, bias, -jnp.inf))


def pca(
    x: Activations,
    y: Any,
    *,
    n_components: int = 1,
    l2: Any = 1.0,
    weights: Any = None,
    n_classes: int | None = None,
    chunk: int | None = None,
) -> LinearProbe:
    """Fits a logistic regression to the first principal components; with one, only sign and threshold see labels.

    Args:
      x, y, l2, weights, n_classes, chunk: as in `logistic`. `l2` penalises weights on components.
      n_components: how many, by the variance of all examples that count.

    Raises:
      ValueError: as `logistic`; `n_components` is not between 1 and the smaller of examples and dimensions.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import probes
      >>> x = jax.random.normal(jax.random.key(0), (80, 5)).at[:, 3].multiply(9.0)
      >>> round(float(abs(probes.pca(x, x[:, 3] > 0).direction[3])), 1)
      1.0
    """
    here = examples("probes.pca", x, y, weights, n_classes)
    if not 1 <= n_components <= min(here.x.shape[1:]):
        raise ValueError(
            f"probes.pca: n_components={n_components} of {here.x.shape[1]} examples in {here.x.shape[2]} dimensions; "
            "give at least 1 and at most the smaller"
        )
    return each_place(_pca, here, l2, chunk=chunk, options=(n_components,))


def _pca(x: Array, y: Array, weights: Array, l2: Array, n_components: int, *, n_classes: int) -> LinearProbe:
    mean, centred = centre(x, weights)
    scaled = jnp.sqrt(weights)[:, None] * centred
    if x.shape[0] < x.shape[1]:  # the smaller of the two Gram matrices has the same spectrum
        values, vectors = eigenvectors(scaled @ scaled.T)
        axes = scaled.T @ vectors[:, -n_components:] / jnp.sqrt(jnp.maximum(values[-n_components:], 1e-30))
    else:
        axes = eigenvectors(scaled.T @ scaled)[1][:, -n_components:]
    inside = fit_logistic(centred @ axes, y, weights, l2, n_classes=n_classes)
    W = inside.W @ axes.T
    return LinearProbe(W, inside.b - W @ mean)
