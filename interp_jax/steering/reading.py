"""Steering vectors of a model from two sets of prompts, in one compiled call.

    vectors = maker(x of the positive prompts, x of the negative prompts),  x at the last token, or the mean over tokens

Caveat: prompts should differ in the wanted respect alone: what else tells the sides apart is in the vector too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.core import capture, find, transform
from interp_jax.steering.making import Maker, difference_of_means, name_of
from interp_jax.steering.vector import SteeringVector

POSITIONS = ("last", "mean")


class _Options(NamedTuple):
    where: str
    position: str
    model: str


def vectors(
    f: Callable[..., Any],
    where: str,
    maker: Maker = difference_of_means,
    *,
    position: str = "last",
    model: str = "",
) -> Callable[..., SteeringVector]:
    """Makes a steering vector of each layer from positive and from negative prompts.

    Args:
      f: `(model, tokens) -> output`; with masks, it also takes `attention_mask=`.
      where: address of a site whose values are `[batch position d]`, such as "blocks.resid_post", or of one layer.
      maker: `(positive, negative) -> vectors` of activations `[layer example d]`: `difference_of_means`,
        `pca_of_differences`, `partial(lat, key)`, `partial(shuffled, key, maker)`, or one's own.
      position: "last", the last real token of each prompt, or "mean", the mean over its real tokens.
      model: name of the model, which the vector keeps.

    Returns:
      `g(model, positive, negative, positive_mask=None, negative_mask=None) -> SteeringVector`: tokens `[batch
      position]`, as many and as long on each side as they are; masks 0 at padding, on either side. All prompts run at
      once, and only the wanted values are kept.

    Raises:
      ValueError: an unknown position, an address of several sites, and what the maker refuses.

    Example:
      >>> import jax, interp_jax as ij
      >>> from interp_jax import data, models, steering
      >>> model, tokenizer = models.load("microworld")
      >>> task = data.tasks.ioi(jax.random.key(0), tokenizer, n=4)
      >>> g = steering.vectors(models.forward, "blocks.resid_post", model="microworld")
      >>> vector = g(model, task.clean, task.corrupted, task.mask, task.mask)
      >>> vector.vectors.shape, vector.how
      ((4, 128), 'difference_of_means at the last token, 4 positive and 4 negative examples')
    """
    if position not in POSITIONS:
        raise ValueError(f"steering.vectors: position={position!r} is neither 'last' nor 'mean'")
    return transform(_vectors, _Options(where, position, model), (f, maker))


def _vectors(
    options: _Options,
    arrays: Any,
    model: Any,
    positive: Any,
    negative: Any,
    positive_mask: Any = None,
    negative_mask: Any = None,
) -> SteeringVector:
    f, maker = arrays
    found = find(f, options.where, model, positive, **_masked(positive_mask))
    if len(found) > 1:
        raise ValueError(f"steering.vectors: {options.where!r} names {len(found)} sites: {', '.join(found)}")
    sides = [
        _read(f, options, model, tokens, mask)
        for tokens, mask in ((positive, positive_mask), (negative, negative_mask))
    ]
    made, (info,) = maker(*sides), found.values()
    place = "the last token" if options.position == "last" else "the mean over tokens"
    n, m = (x.shape[-2] for x in sides)
    how = f"{name_of(maker)} at {place}, {n} positive and {m} negative examples"
    return SteeringVector.create(made, options.where, layers=info.layers, how=how, model=options.model)


def _masked(mask: Any) -> dict[str, Any]:
    return {} if mask is None else {"attention_mask": mask}


def _read(f: Callable[..., Any], options: _Options, model: Any, tokens: Any, mask: Any) -> Array:
    """Activations `[*layer example d]` in float32."""
    real = jnp.ones(jnp.shape(tokens), bool) if mask is None else jnp.asarray(mask).astype(bool)
    last = jnp.max(jnp.where(real, jnp.arange(real.shape[-1]), 0), axis=-1)

    def reduce(x: Array) -> Array:
        x = x.astype(jnp.float32)
        if options.position == "last":
            return jax.vmap(lambda row, i: row[i])(x, last)
        total = jnp.where(real[..., None], x, 0).sum(-2)
        return total / jnp.maximum(real.sum(-1, keepdims=True), 1).astype(jnp.float32)

    where = options.where
    return capture(f, {where: reduce}, output=False)(model, tokens, **_masked(mask))[where]
