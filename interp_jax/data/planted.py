"""Planted features: sparse sums of known directions, on which a dictionary can be checked against the truth.

    x = c D + noise,    c >= 0 sparse with mean l0 active,    D: unit rows, more of them than dimensions

Four kinds of coefficients c: independent; correlated (a Gaussian copula makes the features of a group fire together);
hierarchical (the first of a group is the parent, without which its children never fire); heavy-tailed (rates fall as
1 / rank, magnitudes are log-normal). The others' magnitudes are uniform on [0.5, 1.5].
References: Sharkey et al. 2022, Taking features out of superposition; Chanin et al. 2024, https://arxiv.org/abs/2409.14507
(hierarchies); Elhage et al. 2022, Toy models of superposition.
"""

import jax
from jax import Array
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Float, PRNGKeyArray

KINDS = ("independent", "correlated", "hierarchical", "heavy_tailed")
GROUP = 4  # features that fire together, or a parent and its children
CORRELATION = 0.6  # of the normal variables behind the features of one group
CHILD = 0.3  # probability of a child, given its parent
COMMONEST = 0.5  # bound on a feature's rate


def directions(key: PRNGKeyArray, n_features: int, d: int) -> Float[Array, "n_features d"]:
    """Random directions of features, `[n_features d]`: rows of unit norm, in superposition where n_features > d.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> bool(jnp.allclose(jnp.linalg.norm(directions(jax.random.key(0), 20, 8), axis=-1), 1.0, atol=1e-6))
      True
    """
    rows = jax.random.normal(key, (n_features, d))
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def rates(kind: str, n_features: int, l0: float | int) -> Float[Array, " n_features"]:
    """How often each feature is active.

    Args:
      kind: one of `KINDS`.
      n_features: how many features, a multiple of `GROUP`.
      l0: mean number of active features of an input, above 0 and at most n_features / 10.

    Returns:
      `[n_features]`, probabilities, which add up to `l0`.

    Raises:
      ValueError: there is no such kind, n_features is no multiple of the size of a group, or l0 is out of reach.

    Example:
      >>> [round(float(rates(kind, 40, 3.0).sum()), 4) for kind in KINDS]
      [3.0, 3.0, 3.0, 3.0]
    """
    if kind not in KINDS:
        raise ValueError(f"planted: no kind {kind!r}; there are {', '.join(KINDS)}")
    if n_features < 1 or n_features % GROUP or not 0 < l0 <= n_features / 10:
        raise ValueError(
            f"planted: n_features={n_features} must be a multiple of {GROUP}, "
            f"and l0={l0} above 0 and at most a tenth of it"
        )
    rank = jnp.arange(n_features, dtype=jnp.float32)
    if kind == "hierarchical":
        shares = jnp.where(rank % GROUP == 0, 1.0, CHILD)
    elif kind == "heavy_tailed":
        shares = 1.0 / (1.0 + rank)
        for _ in range(20):  # what the bound takes from the commonest goes to the others
            shares = jnp.minimum(shares * l0 / shares.sum(), COMMONEST)
    else:
        shares = jnp.ones(n_features)
    return shares * l0 / shares.sum()


def coefficients(
    key: PRNGKeyArray, kind: str, n: int, n_features: int, l0: float | int
) -> Float[Array, "n n_features"]:
    """Draws the coefficients of n inputs: most of them 0, the others positive, with mean 1.

    Args:
      key: a jax PRNG key.
      kind: one of `KINDS`.
      n: how many inputs.
      n_features: how many features, a multiple of `GROUP`.
      l0: mean number of active features of an input.

    Returns:
      `[n n_features]`, float32.

    Raises:
      ValueError: there is no such kind, or the sizes do not fit, see `rates`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> c = coefficients(jax.random.key(0), "hierarchical", 1000, 40, 3.0)
      >>> parents, children = c[:, ::4] > 0, c[:, 1::4] > 0
      >>> c.shape, bool((parents | ~children).all())
      ((1000, 40), True)
    """
    rate = rates(kind, n_features, l0)
    which, how_much, shared = jax.random.split(key, 3)
    if kind == "correlated":
        own = jax.random.normal(which, (n, n_features))
        common = jnp.repeat(jax.random.normal(shared, (n, n_features // GROUP)), GROUP, axis=1)
        active = CORRELATION**0.5 * common + (1 - CORRELATION) ** 0.5 * own > norm.isf(rate)
    elif kind == "hierarchical":
        parent = jax.random.uniform(shared, (n, n_features // GROUP)) < rate[::GROUP]
        chosen = jax.random.uniform(which, (n, n_features)) < jnp.where(jnp.arange(n_features) % GROUP == 0, 1.0, CHILD)
        active = jnp.repeat(parent, GROUP, axis=1) & chosen
    else:
        active = jax.random.uniform(which, (n, n_features)) < rate
    if kind == "heavy_tailed":
        magnitude = jnp.exp(jax.random.normal(how_much, (n, n_features)) - 0.5)  # of mean 1
    else:
        magnitude = jax.random.uniform(how_much, (n, n_features), minval=0.5, maxval=1.5)
    return jnp.where(active, magnitude, 0.0)


def sample(
    key: PRNGKeyArray,
    kind: str,
    n: int,
    rows: Float[Array, "*site n_features d"],
    *,
    l0: float | int,
    noise: float = 0.0,
) -> tuple[Float[Array, "n n_features"], Float[Array, "*site n d"]]:
    """Draws coefficients, and the inputs that they make, which are centred: the expected input is 0.

    Args:
      key: a jax PRNG key.
      kind: one of `KINDS`.
      n: how many inputs.
      rows: the directions, or those of several sites, whose inputs then have the same coefficients.
      l0: mean number of active features of an input.
      noise: standard deviation of normal noise in each dimension.

    Returns:
      The coefficients `[n n_features]`, and the inputs, `[n d]` or `[site n d]`, both float32.

    Raises:
      ValueError: there is no such kind, or the sizes do not fit, see `rates`.

    Example:
      >>> import jax
      >>> rows = directions(jax.random.key(0), 20, 8)
      >>> c, x = sample(jax.random.key(1), "correlated", 100, rows, l0=2.0, noise=0.1)
      >>> c.shape, x.shape
      ((100, 20), (100, 8))
    """
    c = coefficients(key, kind, n, rows.shape[-2], l0)
    centred = c - rates(kind, rows.shape[-2], l0)  # the magnitudes of every kind have mean 1
    inputs = jnp.einsum("nf,...fd->...nd", centred, rows)
    return c, inputs + noise * jax.random.normal(jax.random.fold_in(key, 1), inputs.shape)
