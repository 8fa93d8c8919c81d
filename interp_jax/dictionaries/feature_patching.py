"""Patching features one after the other: how few of them carry what makes a model answer another sentence's answer.

    x' = x + sum_{j in F} (c'_j - c_j) f_j    at all positions;  c', c: features of the clean and the corrupted prompt
    F grows greedily: by the feature that lowers the metric most, among those with the steepest gradient

Cunningham et al. 2023, https://arxiv.org/abs/2309.08600, section 4: D_KL(patched || clean) at the answer; they call the
clean sentence the target, and the corrupted one, which is patched, the base.
Caveat: greedy is not optimal, and features that do something only together are found late; nor is what a dictionary
does not reconstruct ever patched, so that the metric may stay above the clean one however many features are taken.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float

from interp_jax.core import capture, intervene, transform
from interp_jax.dictionaries.kinds.arrays import Parameter
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.splicing import splice
from interp_jax.runs import check_pair, per_example


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


class _Options(NamedTuple):
    where: str
    n_features: int
    n_candidates: int
    shared: bool


def patch_features(
    f: Callable[..., Any],
    metric: Callable[[Any], Float[Array, " batch"]],
    where: str,
    dictionary: Dictionary,
    *,
    n_features: int,
    n_candidates: int | None = 16,
    shared: bool = False,
) -> Callable[..., FeaturePatch]:
    """Moves features of a corrupted prompt to their values on the clean one, greedily.

    Args:
      f: `(model, tokens [batch position]) -> output`.
      metric: output -> one number per pair, the lower the nearer to the clean run, such as
        `lambda patched: metrics.kl(patched)(clean_logits)`.
      where: address of the one site the dictionary belongs to, such as `"blocks.2.resid_post"`.
      dictionary: takes the site's values `[batch position d_in]`; another of the same sizes is no other compilation.
      n_features: how many to patch.
      n_candidates: how many to try at each step, those along which the metric falls steepest; None tries all.
      shared: one set of features for all pairs, by the mean of the metric; by default each pair has its own.

    Returns:
      `g(model, clean, corrupted) -> FeaturePatch`, for int tokens `[batch position]`, aligned position by position.

    Raises:
      ValueError: n_features or n_candidates is not between 1 and d_sae; (when called) the tokens are not two batches of
        one shape, the metric is not one number per pair, the site has not one vector of the dictionary's width for
        each token.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries
      >>> W = jax.random.normal(jax.random.key(0), (10, 8))
      >>> f = lambda W, tokens: ij.site(W[tokens], "resid", axes=("batch", "position", "d_model")).sum(1)
      >>> clean, corrupted = jnp.array([[1, 5], [3, 6]]), jnp.array([[1, 2], [3, 4]])
      >>> to_clean = lambda out: jnp.linalg.norm(out - f(W, clean), axis=-1)
      >>> neurons = dictionaries.NeuronBasis.create(jax.random.key(1), d_in=8)
      >>> found = dictionaries.patch_features(f, to_clean, "resid", neurons, n_features=8)(W, clean, corrupted)
      >>> found.order.shape, bool((found.scores[1:] < found.scores[:-1]).all()), bool((found.complete < 1e-5).all())
      ((8, 2), True, True)
    """
    n_tried = dictionary.d_sae if n_candidates is None else min(n_candidates, dictionary.d_sae)
    for name, n in (("n_features", n_features), ("n_candidates", n_tried)):
        if not 1 <= n <= dictionary.d_sae:
            raise ValueError(f"patch_features: {name}={n} of {dictionary.d_sae} features; it must be from 1 to that")
    return transform(_patch_features, _Options(where, n_features, n_tried, shared), (f, metric, dictionary))


def _patch_features(options: _Options, arrays: Any, *args: Any, **kwargs: Any) -> FeaturePatch:
    (f, metric, dictionary), (*before, clean, corrupted), where = arrays, args, options.where
    check_pair("patch_features", clean, corrupted)
    values = dictionary.encode(capture(f, where, output=False)(*before, clean, **kwargs)[where])
    if jnp.ndim(clean) != 2 or values.shape[:-1] != jnp.shape(clean):
        raise ValueError(
            f"patch_features: {where!r} gives features {list(values.shape)} for tokens {list(jnp.shape(clean))}: name "
            "one layer of a site that is one vector for each token, and give tokens [batch position]"
        )
    pairs = jnp.arange(len(clean))

    def score(chosen: Array) -> Array:
        edit = splice(dictionary, edit=lambda c: c + chosen[:, None] * (values - c))
        return per_example(metric(intervene(f, {where: edit})(*before, corrupted, **kwargs)), pairs.shape)

    def judged(scores: Array) -> Array:
        return jnp.broadcast_to(scores.mean(0, keepdims=True), scores.shape) if options.shared else scores

    def step(chosen: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        def tried(features: Array) -> Array:  # one for each pair
            scores = judged(score(chosen.at[pairs, features].set(1)))
            return jnp.where(chosen[pairs, features] > 0, jnp.inf, scores)

        slope = judged(jax.grad(lambda chosen: score(chosen).sum())(chosen))
        candidates = lax.top_k(jnp.where(chosen > 0, -jnp.inf, -slope), options.n_candidates)[1].T
        best = candidates[lax.map(tried, candidates).argmin(0), pairs]
        chosen = chosen.at[pairs, best].set(1)
        return chosen, (best, score(chosen))

    none = jnp.zeros((len(pairs), dictionary.d_sae), values.dtype)
    _, (order, scores) = lax.scan(step, none, length=options.n_features)
    return FeaturePatch(order, jnp.concatenate([score(none)[None], scores]), score(jnp.ones_like(none)))
