"""Patching features one after the other: how few of them carry what makes a model answer another sentence's answer.

    x' = x + sum_{j in F} (c'_j - c_j) f_j    at all positions;  c, c': features of the base and of the target sentence
    F grows greedily: by the feature that lowers the metric most, among those with the steepest gradient

Cunningham et al. 2023, https://arxiv.org/abs/2309.08600, section 4: D_KL(patched || target) at the answer.
Caveat: greedy is not optimal, and features that do something only together are found late; nor is what a dictionary
does not reconstruct ever patched, so that the metric may stay above the target's however many features are taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, Int
import numpy as np

from interp_jax.core import capture, intervene
from interp_jax.dictionaries.kinds.arrays import Parameter
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.splicing import splice


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FeaturePatch:
    """What `patch_features` found.

    Attributes:
      order: int32 `[n_features batch]`, the features in the order in which they were patched.
      scores: float32 `[n_features + 1 batch]`, the metric with none of them, the first, the first two and so on.
      complete: float32 `[batch]`, the metric with all features patched.
    """

    order: Parameter
    scores: Parameter
    complete: Parameter


def patch_features(
    f: Callable[[Any, Array], Any],
    metric: Callable[[Any], Float[Array, " batch"]],
    where: str,
    dictionary: Dictionary,
    model: Any,
    base: Int[Array | np.ndarray, "..."],
    target: Int[Array | np.ndarray, "..."],
    *,
    n_features: int,
    n_candidates: int | None = 16,
    shared: bool = False,
) -> FeaturePatch:
    """Moves features from their values on one sentence to those on another, greedily.

    Compile it once for many dictionaries: `jax.jit(partial(patch_features, f, metric, where, n_features=8))`.

    Args:
      f: `(model, tokens [batch position]) -> output`.
      metric: output -> one number per pair, the lower the nearer to the target, such as
        `lambda patched: metrics.kl(patched)(target_logits)`.
      where: address of the one site the dictionary belongs to, such as `"blocks.2.resid_post"`.
      dictionary: takes the site's values `[batch position d_in]`.
      model: a pytree.
      base, target: `[batch position]`, pairs aligned position by position.
      n_features: how many to patch.
      n_candidates: how many to try at each step, those along which the metric falls steepest; None tries all.
      shared: one set of features for all pairs, by the mean of the metric; by default each pair has its own.

    Returns:
      A `FeaturePatch`.

    Raises:
      ValueError: the tokens are not two batches of one shape, the site has not one vector of the dictionary's width
        for each token, or n_features or n_candidates is not between 1 and d_sae.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries
      >>> W = jax.random.normal(jax.random.key(0), (10, 8))
      >>> f = lambda W, tokens: ij.site(W[tokens], "resid", axes=("batch", "position", "d_model")).sum(1)
      >>> base, target = jnp.array([[1, 2], [3, 4]]), jnp.array([[1, 5], [3, 6]])
      >>> to_target = lambda out: jnp.linalg.norm(out - f(W, target), axis=-1)
      >>> neurons = dictionaries.NeuronBasis.create(jax.random.key(1), d_in=8)
      >>> found = patch_features(f, to_target, "resid", neurons, W, base, target, n_features=8)
      >>> found.order.shape, bool((found.scores[1:] < found.scores[:-1]).all()), bool((found.complete < 1e-5).all())
      ((8, 2), True, True)
    """
    if jnp.ndim(base) != 2 or jnp.shape(base) != jnp.shape(target):
        raise ValueError(
            f"patch_features: base {jnp.shape(base)} and target {jnp.shape(target)}; give pairs aligned position by "
            "position, both [batch position]"
        )
    n_tried = dictionary.d_sae if n_candidates is None else min(n_candidates, dictionary.d_sae)
    for name, n in (("n_features", n_features), ("n_candidates", n_tried)):
        if not 1 <= n <= dictionary.d_sae:
            raise ValueError(f"patch_features: {name}={n} of {dictionary.d_sae} features; it must be from 1 to that")
    values = dictionary.encode(capture(f, where, output=False)(model, target)[where])
    if values.shape[:-1] != jnp.shape(base):
        raise ValueError(f"patch_features: {where!r} is not one vector for each token; name one layer of such a site")
    pairs = jnp.arange(len(base))

    def score(chosen: Array) -> Array:
        edit = splice(dictionary, edit=lambda c: c + chosen[:, None] * (values - c))
        return metric(intervene(f, {where: edit})(model, base)).astype(jnp.float32)

    def judged(scores: Array) -> Array:
        return jnp.broadcast_to(scores.mean(0, keepdims=True), scores.shape) if shared else scores

    def step(chosen: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        def tried(features: Array) -> Array:  # one for each pair
            scores = judged(score(chosen.at[pairs, features].set(1)))
            return jnp.where(chosen[pairs, features] > 0, jnp.inf, scores)

        slope = judged(jax.grad(lambda chosen: score(chosen).sum())(chosen))
        candidates = lax.top_k(jnp.where(chosen > 0, -jnp.inf, -slope), n_tried)[1].T
        best = candidates[lax.map(tried, candidates).argmin(0), pairs]
        chosen = chosen.at[pairs, best].set(1)
        return chosen, (best, score(chosen))

    none = jnp.zeros((len(base), dictionary.d_sae), values.dtype)
    _, (order, scores) = lax.scan(step, none, length=n_features)
    return FeaturePatch(order, jnp.concatenate([score(none)[None], scores]), score(jnp.ones_like(none)))
