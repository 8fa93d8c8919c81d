"""Natural-language autoencoders: a vector is put in the place of a token, words are written, and made a vector again.

    text = verbaliser(.. v ..)    v' = W h_K(text) + b  reward = -2 (1 - cos(v, v'))  FVE = 1 - E|v - v'|^2 / E|v - m|^2

h_K is what layer K of a language model, the reconstructor, holds at the end of the text: its first K + 1 layers are
run. The reward is minus the squared distance of the two directions. "Natural language autoencoders", 2026. Caveat:
a high FVE says that the words keep the vector, not that they are true; what they state has to be checked by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from interp_jax.core import Intervention, capture
from interp_jax.interventions import at, replace


def embedding_norm(f: Callable[..., Any], model: Any, tokens: Any, **kwargs: Any) -> Float[Array, ""]:
    """The mean norm of the tokens' embeddings as the layers read them, float32.

    It is measured at the site `embed`, so that families that scale their embeddings, as Gemma does by sqrt(d_model),
    need no rule of their own.

    Args:
      f: `f(model, tokens, ...)`, with the site `embed`.
      model: its first argument.
      tokens: `[batch position]` or `[position]`, some text.
      **kwargs: of `f`; a padding that they name is counted like any token.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import models
      >>> from interp_jax.explain import embedding_norm
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> embedding_norm(models.forward, model, jnp.array([1, 2, 3])).shape
      ()
    """
    x = capture(f, "embed", output=False)(model, tokens, **kwargs)["embed"]
    return jnp.linalg.norm(x.astype(jnp.float32), axis=-1).mean()


def as_token(vectors: Any, position: int, norm: Any) -> dict[str, Intervention]:
    """An edit that puts a vector in the place of a token's embedding, scaled to a norm.

    Args:
      vectors: `[d_model]`, or `[batch d_model]`, one for each text. A zero vector stays zero.
      position: of that token, counted in real tokens from 0.
      norm: the vector's norm among the embeddings, such as `embedding_norm` gives it.

    Raises:
      ValueError: vectors of another rank.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import models
      >>> from interp_jax.explain import as_token
      >>> config = models.Config(n_layers=1, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> f = ij.intervene(models.forward, as_token(jnp.ones(8), position=1, norm=2.0))
      >>> ij.capture(f, "embed")(model, jnp.array([1, 2, 3]))[1]["embed"][1].tolist()[:2]
      [0.7071067690849304, 0.7071067690849304]
    """
    x = jnp.asarray(vectors)
    if x.ndim not in (1, 2):
        raise ValueError(f"as_token: vectors {list(x.shape)}: give [d_model], or [batch d_model], one for each text")
    return {"embed": at(replace((_unit(x) * jnp.float32(norm)).astype(x.dtype)[..., None, :]), position=position)}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Reconstructor:
    """A language model that is read at one layer, at the end of a text, and a linear map from there to the vectors.

    Attributes:
      model: the model, of which the layers up to the site are run.
      W: `[d_model d]`.
      b: `[d]`.
    """

    model: Any
    W: Array
    b: Array


def reconstruct(f: Callable[..., Any], where: str) -> Callable[..., Float[Array, "batch d"]]:
    """Text to vectors: `g(reconstructor, tokens, ...)`, float32 `[batch d]`.

    Args:
      f: `f(model, tokens, ...)`.
      where: the site that is read at the last position, such as "blocks.2.resid_post". Later layers are not run.

    Returns:
      `g(reconstructor, tokens, ...)`: tokens `[batch position]` end in the last column, padded on the left; what else
      is given, such as `attention_mask`, goes to `f`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import models
      >>> from interp_jax.explain import Reconstructor, reconstruct
      >>> config = models.Config(n_layers=2, n_heads=2, d_model=8, d_mlp=16, d_vocab=20, n_ctx=8)
      >>> model = models.Decoder.create(jax.random.key(0), config)
      >>> reconstructor = Reconstructor(model, jnp.eye(8), jnp.zeros(8))
      >>> reconstruct(models.forward, "blocks.0.resid_post")(reconstructor, jnp.array([[1, 2, 3]])).shape
      (1, 8)
    """
    read = capture(f, {where: _last}, output=False)

    def g(reconstructor: Reconstructor, tokens: Any, *args: Any, **kwargs: Any) -> Array:
        states = read(reconstructor.model, tokens, *args, **kwargs)[where].astype(jnp.float32)
        return states @ reconstructor.W + reconstructor.b

    return g


def reward(vectors: Num[ArrayLike, "*batch d"], reconstructed: Num[ArrayLike, "*batch d"]) -> Float[Array, "*batch"]:
    """-2 (1 - cos): minus the squared distance of the directions, from -4 to 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax.explain import reward
      >>> reward(jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[3.0, 0.0], [0.0, 1.0]])).tolist()
      [0.0, -2.0]
    """
    return 2 * ((_unit(vectors) * _unit(reconstructed)).sum(-1) - 1)


def fve(
    vectors: Num[ArrayLike, "batch d"], reconstructed: Num[ArrayLike, "batch d"], mean: Num[ArrayLike, " d"]
) -> Float[Array, ""]:
    """The fraction of the variance that is explained: 1 where all is the same, 0 of the mean, below 0 where worse.

    Of directions, divide all three by norms first: with unit vectors, the squared error is minus the `reward`.

    Args:
      vectors: what was to be kept.
      reconstructed: what the words kept of it.
      mean: what would be said without words: the mean of other vectors, those of training.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax.explain import fve
      >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
      >>> float(fve(x, 0.5 * x, jnp.zeros(2)))
      0.75
    """
    x, y, m = (jnp.asarray(values, jnp.float32) for values in (vectors, reconstructed, mean))
    return 1 - ((x - y) ** 2).sum() / ((x - m) ** 2).sum()


def _last(x: Array) -> Array:
    return x[..., -1, :]


def _unit(x: Any) -> Array:
    x = jnp.asarray(x, jnp.float32)
    return x / jnp.sqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))
