"""Function vectors: what heads write at the end of prompts that show a task by examples, and which heads matter.

    a[l, h]      mean over prompts of a task of head h's output z at the last token
    effect[l, h] mean over prompts with shuffled labels of metric(run with z[l, h] <- a[l, h] there) - metric(run)
    v            sum of a[l, h] W_O[l, h] over the heads of the largest effects

Todd et al. 2024, "Function vectors in large language models", arXiv:2310.15213: the effects are means over tasks, and v
is added at the last token, after a block about a third of the way. Caveat: a vector that makes its answers likelier may
only say what kind of word comes; compare with one of prompts with shuffled labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import ArrayLike, Float

from interp_jax.core import capture, find, intervene, transform
from interp_jax.interventions import at, replace
from interp_jax.runs import DEEP, at_once, at_places, check_counts, per_example
from interp_jax.steering.inference_time import best_heads

Heads = Float[Typed, "layer head d_head"]
Effects = Float[Typed, "n_layers n_heads"]
Into = Float[Typed, "layers heads d d_model"]
WHERE = "blocks.attn.z"


class _Options(NamedTuple):
    where: str
    chunk: int | None


def head_means(f: Callable[..., Any], last: ArrayLike, where: str = WHERE) -> Callable[..., Heads]:
    """The mean output of each head at one token of each prompt.

    Args:
      f: `(model, tokens) -> output`.
      last: int `[batch]`, the token, counted in real tokens from 0 as in `interventions.at`.
      where: address of the heads' outputs, with axes batch, position, head and d_head.

    Returns:
      `g(model, tokens, attention_mask=None) -> means`, float32 `[layer head d_head]`, of the prompts of the task that
      the model answers.

    Raises:
      ValueError: `where` is another kind of site or names several.

    Example:
      >>> import jax
      >>> from interp_jax import data, models, steering
      >>> model, tokenizer = models.load("microworld-context")
      >>> task = data.tasks.in_context(jax.random.key(0), tokenizer, 4, task="french")
      >>> steering.head_means(models.forward, task.positions["end"])(model, task.clean, attention_mask=task.mask).shape
      (4, 4, 24)
    """
    return transform(_head_means, where, (f, jnp.asarray(last)))


def head_effects(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    means: Heads,
    last: ArrayLike,
    where: str = WHERE,
    *,
    chunk: int | None = None,
) -> Callable[..., Effects]:
    """By how much a metric changes when one head's output at one token is put to its mean, for each head in turn.

    Args:
      f: `(model, tokens) -> output`.
      metric: output -> one number per example, such as `metrics.prob(answers)`.
      means: `[layer head d_head]`, of `head_means`.
      last: int `[batch]`, the token, counted in real tokens from 0.
      where: address of the heads' outputs.
      chunk: heads that are tried at once; by default so many that 64 sequences run.

    Returns:
      `g(model, tokens, attention_mask=None) -> effects`, float32 `[layer head]`, means over the prompts, in one
      compiled call. Up to 16 layers each layer is a program of its own, which shares what comes before it.

    Raises:
      ValueError: means of another number of layers, heads or entries; a metric that is not one number per example.

    Example:
      >>> import jax
      >>> from functools import partial
      >>> from interp_jax import data, metrics, models, steering
      >>> model, tokenizer = models.load("microworld-context")
      >>> task = data.tasks.in_context(jax.random.key(0), tokenizer, 4, task="french")
      >>> f, end = partial(models.forward, logits_at=task.last), task.positions["end"]
      >>> means = steering.head_means(f, end)(model, task.clean, attention_mask=task.mask)
      >>> g = steering.head_effects(f, metrics.prob(task.answers), means, end)
      >>> g(model, task.corrupted, attention_mask=task.mask).shape
      (4, 4)
    """
    check_counts(chunk=chunk)
    return transform(_head_effects, _Options(where, chunk), (f, metric, jnp.asarray(means), jnp.asarray(last)))


def function_vector(means: Heads, effects: Effects, W_O: Into, n_heads: int) -> Float[Typed, "d_model"]:
    """The sum of what the heads of the largest effects write on the mean.

    Args:
      means: `[layer head d_head]`, of `head_means`.
      effects: `[layer head]`, of `head_effects`; means over tasks where there are several.
      W_O: `[layer head d_head d_model]`, as in `models.weights(model)`.
      n_heads: how many heads; the paper has 10 of a model of 448.

    Returns:
      float32 `[d_model]`, for `SteeringVector.create`, added at strength 1 at the last token after one block.

    Raises:
      ValueError: arrays that do not fit, or another number of heads than there can be.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import steering
      >>> means, effects = jnp.ones((2, 2, 1)), jnp.array([[0.0, 1.0], [3.0, 2.0]])
      >>> steering.function_vector(means, effects, jnp.arange(4.0).reshape(2, 2, 1, 1), 2).tolist()
      [5.0]
    """
    if means.shape[:2] != effects.shape or W_O.shape[:3] != means.shape:
        raise ValueError(
            f"steering.function_vector: means {list(means.shape)}, effects {list(effects.shape)}, W_O "
            f"{list(W_O.shape)}: give [layer head d_head], [layer head] and [layer head d_head d_model]"
        )
    if not 1 <= n_heads <= effects.size:
        raise ValueError(f"steering.function_vector: n_heads={n_heads} of {effects.size} heads")
    wide = means.astype(jnp.float32) * best_heads(effects, n_heads)[..., None]
    return jnp.einsum("lhe,lhed->d", wide, W_O.astype(jnp.float32), precision="highest")


def _head_means(where: str, arrays: Any, *args: Any, **kwargs: Any) -> Array:
    f, last = arrays
    _check_site(f, where, args, kwargs)
    mask = kwargs.get("attention_mask")
    column = last if mask is None else last + jnp.argmax(jnp.asarray(mask).astype(bool), axis=-1).astype(last.dtype)

    def reduce(z: Array) -> Array:
        return jax.vmap(lambda row, i: row[i])(z.astype(jnp.float32), column).mean(0)

    return capture(f, {where: reduce}, output=False)(*args, **kwargs)[where]


def _head_effects(options: _Options, arrays: Any, *args: Any, **kwargs: Any) -> Array:
    f, metric, means, last = arrays
    info = _check_site(f, options.where, args, kwargs)
    n_layers, n_heads, d_head = len(info.layers or ()), info.size("head"), info.shape[-1]
    if means.shape != (n_layers, n_heads, d_head):
        raise ValueError(
            f"steering.head_effects: means {list(means.shape)}, {options.where!r} has "
            f"{[n_layers, n_heads, d_head]}: take those of head_means of this model"
        )
    examples = jnp.shape(args[-1])[:-1]

    def score(edits: dict[str, Any]) -> Array:
        return per_example(metric(intervene(f, edits)(*args, **kwargs)), examples).mean()

    def effect(layer: Any, head: Any) -> Array:
        edit = replace(jnp.take(means[layer], head, axis=0))
        return score({options.where: at(edit, layer=layer, head=head, position=last)})

    chunk = at_once(options.chunk, examples)
    if n_layers <= DEEP:
        effects = jnp.stack(
            [at_places(lambda place, k=k: effect(k, place[0]), [n_heads], chunk) for k in range(n_layers)]
        )
    else:
        effects = at_places(lambda place: effect(*place), [n_layers, n_heads], chunk).reshape(n_layers, n_heads)
    return effects - score({})


def _check_site(f: Callable[..., Any], where: str, args: Any, kwargs: Any) -> Any:
    found = find(f, where, *args, **kwargs)
    if len(found) != 1 or next(iter(found.values())).axes != ("batch", "position", "head", "d_head"):
        raise ValueError(f"steering: {where!r} is not one site [batch position head d_head] of every layer")
    return next(iter(found.values()))
