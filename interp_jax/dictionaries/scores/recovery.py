"""Dictionaries against a known truth: what is recovered, plausibility and identifiability.

    plausibility = mean over the rows of W_dec of max_j cos(row, known_j)
    identifiability = mean over known factors y_j of max over features i and thresholds t of accuracy([f_i > t], y_j)

Fel et al. 2025, Archetypal SAE, https://arxiv.org/abs/2502.12892, who take a classifier's directions as the known ones
and collages of objects, one class each, for the factors. With planted features both are the truth itself.
Caveat: accuracies are balanced (the mean of those on inputs with and without the factor), since a planted feature is
absent from most inputs; the paper's collages have each factor in a third of them.
"""

from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Bool, Float
import numpy as np

from interp_jax.dictionaries.kinds.arrays import Values
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.scores.comparison import mean_max_cosine, nearest

LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)  # thresholds, as shares of a feature's largest magnitude


def plausibility(dictionary: Any, known: Any) -> Float[Array, ""]:
    """How near a dictionary's rows are to known directions: the largest cosine of each row with one, averaged.

    `mean_max_cosine` asks whether what is known was found, this whether what was found is known.

    Args:
      dictionary: a dictionary or rows `[d_sae d_in]`.
      known: directions `[n d_in]`, of any norm.

    Returns:
      float32 `[]`, at most 1.

    Raises:
      ValueError: an input is not a matrix, or the widths differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import dictionaries
      >>> round(float(dictionaries.plausibility(jnp.array([[2.0, 0.0], [3.0, 4.0]]), jnp.array([[1.0, 0.0]]))), 2)
      0.8
    """
    return mean_max_cosine(known, dictionary)


@jax.jit
def identifiability(
    features: Float[Values, "n d_sae"], factors: Bool[Array | np.ndarray, "m n_factors"]
) -> Float[Array, " n_factors"]:
    """How well single features tell whether each factor is in an input: the best balanced accuracy.

    Args:
      features: `[n d_sae]`; where they have a sign, their magnitudes count.
      factors: `[m n_factors]`, whether each is in each input; m is n.

    Returns:
      `[n_factors]`, from 0.5, which is chance, to 1; NaN for a factor that is in all inputs or in none.

    Raises:
      ValueError: the two are not of the same inputs.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import dictionaries
      >>> features = jnp.array([[0.0, 1.0], [2.0, 0.5], [0.1, 0.0], [3.0, 0.7]])
      >>> factors = jnp.array([[False, False], [True, False], [False, True], [True, True]])
      >>> dictionaries.identifiability(features, factors).tolist()
      [1.0, 0.75]
    """
    if features.ndim != 2 or factors.ndim != 2 or len(features) != len(factors):
        raise ValueError(
            f"identifiability: features {tuple(features.shape)} and factors {tuple(factors.shape)}; give [n d_sae] and "
            "[n n_factors] of the same inputs"
        )
    magnitudes, present = jnp.abs(jnp.asarray(features, jnp.float32)), jnp.asarray(factors, jnp.float32)
    highest = magnitudes.max(axis=0)

    def accuracy(level: Array) -> Array:
        fired = (magnitudes > level * highest).astype(jnp.float32)
        hits, alarms = (who.T @ fired / who.sum(0)[:, None] for who in (present, 1 - present))
        return (0.5 + 0.5 * (hits - alarms)).max(axis=1)

    return lax.map(accuracy, jnp.array(LEVELS)).max(axis=0)


def written_rows(dictionary: Dictionary) -> Float[Array, "d_sae d"]:
    """All that each feature writes, side by side: `W_dec` of one site, of a crosscoder's sites `[d_sae site*d_in]`.

    Of a cross-layer transcoder what the features of the first layer write to all layers.

    Example:
      >>> import jax
      >>> from interp_jax import dictionaries
      >>> crosscoder = dictionaries.Crosscoder.create(jax.random.key(0), d_in=8, d_sae=32, n_sites=3)
      >>> written_rows(crosscoder).shape
      (32, 24)
    """
    return dictionary.written_rows()


def recovery(
    dictionary: Dictionary, batch: Any, directions: Any, active: Bool[Array, "n n_features"]
) -> dict[str, float]:
    """How well a dictionary recovers planted features.

    Args:
      dictionary: any architecture. A skip transcoder is held to what its skip leaves of the planted directions; rows
        count with both signs where features have a sign.
      batch: inputs, or a pair of inputs and targets, as the architecture trains on, `[n *in]`.
      directions: the same for the planted directions in place of the inputs, `[n_features *in]`.
      active: whether each planted feature is in each input.

    Returns:
      `cosine`, the mean max cosine; `common` and `rare`, of the features that are active at least as often as 0.8 times
      the mean of all, and of the others (NaN where there are none); `missed`, the share of the inputs with a common
      feature on which its nearest row is silent: for a parent, absorption by rows of its children (Chanin et al. 2024,
      https://arxiv.org/abs/2409.14507); `plausible` and `identified`, see `plausibility` and `identifiability`; `l0`,
      `fvu` and `dead`, the share of features that never fire.

    Raises:
      ValueError: widths or lengths that do not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import dictionaries
      >>> truth = jax.random.normal(jax.random.key(0), (20, 8))
      >>> active = jax.random.uniform(jax.random.key(1), (500, 20)) < 0.1
      >>> dictionary = dictionaries.TopK.create(jax.random.key(2), 8, 32, 2)
      >>> sorted(dictionaries.recovery(dictionary, active.astype(float) @ truth, truth, active))
      ['common', 'cosine', 'dead', 'fvu', 'identified', 'l0', 'missed', 'plausible', 'rare']
    """
    (x, target), (read, known) = (pair if isinstance(pair, tuple) else (pair, pair) for pair in (batch, directions))
    known = known - dictionary.skip(read)
    features, error = dictionary.encode(x).reshape(len(x), -1), dictionary(x) - target
    found, known = written_rows(dictionary), known.reshape(len(known), -1)
    signs = (1.0, -1.0) if bool((features < 0).any()) else (1.0,)
    cosine, index = nearest(known, jnp.concatenate([sign * found for sign in signs]))
    silent = active & (features[:, index % len(found)] == 0)
    rate = jnp.mean(active, axis=0, dtype=jnp.float32)
    common = rate >= 0.8 * rate.mean()
    numbers = {
        "cosine": cosine.mean(),
        "common": cosine.mean(where=common),
        "rare": cosine.mean(where=~common),
        "missed": (silent.sum(0) / active.sum(0)).mean(where=common),
        "plausible": plausibility(found, jnp.concatenate([sign * known for sign in signs])),
        "identified": identifiability(features, active).mean(),
        "l0": jnp.sum(features != 0) / len(features),
        "fvu": jnp.sum(error**2) / jnp.sum((target - target.mean(0)) ** 2),
        "dead": jnp.mean((features == 0).all(0)),
    }
    return {name: float(number) for name, number in numbers.items()}
