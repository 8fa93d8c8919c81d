"""A direction taken out of a model, in its activations or in its weights, and the choice of one among candidates.

    activations:  x - r (r . x) at every write to the residual stream,  r = v / |v|
    weights:      W - (W r) r^T of everything that writes to it, stored [d_in d_model]
    choice:       least bypass of the candidates with induce > 0, KL < 0.1, in the first 0.8 of the layers

Arditi et al. 2024, "Refusal in language models is mediated by a single direction", arXiv:2406.11717: bypass is the
refusal metric of harmful prompts with the direction taken out, induce that of harmless ones with the vector added at
its own layer, KL what taking it out does to harmless ones. Caveat: the two ways are equal where what is written is what
weights give, so not where a norm stands between (Gemma 2 and 3, OLMo 2).
"""

from collections.abc import Callable, Mapping
import math
from typing import Any, NamedTuple

from jax import Array
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float
import numpy as np

from interp_jax import metrics
from interp_jax.core import Intervention, find, intervene, transform
from interp_jax.interventions import add, at, project_out
from interp_jax.runs import at_once, at_places, check_counts, per_example

Direction = Float[Typed, "..."]  # [d_model]: other shapes are refused in words
WRITES = ("*embed", "blocks.attn_out", "blocks.mlp_out")  # *embed: tokens, and positions and types where there are any
WRITERS = ("W_E", "W_pos", "W_O", "W_out", "b_O", "b_out")
BETWEEN = ("ln1_post_w", "ln2_post_w", "ln_embed_w")  # norms between what writes and the stream


class DirectionScores(NamedTuple):
    """What candidates do, each float32 `[layer position]`, means over prompts.

    Attributes:
      bypass: the metric of positive prompts with the direction taken out: low where it is needed.
      induce: the metric of negative prompts with the vector added: high where it is enough.
      kl: in nats, of negative prompts with the direction taken out from them as they are: what else it changes.
    """

    bypass: Array
    induce: Array
    kl: Array


def ablation(direction: Direction) -> dict[str, Intervention]:
    """The edits that take a direction out of the residual stream, wherever something is written to it.

    Args:
      direction: `[d_model]` of any norm.

    Returns:
      interventions by address: of the embeddings, of what attention writes, and of what the MLPs write.

    Raises:
      ValueError: a direction of another shape, or (when applied) of another width than the model's.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import models, steering
      >>> model, _ = models.load("microworld")
      >>> edits = steering.ablation(jnp.eye(128)[3])
      >>> f = ij.capture(ij.intervene(models.forward, edits), "blocks.resid_post", output=False)
      >>> float(jnp.abs(f(model, jnp.array([[1, 5, 9]]))["blocks.resid_post"][..., 3]).max())
      0.0
    """
    if jnp.ndim(direction) != 1:
        raise ValueError(f"steering.ablation: a direction is [d_model], not {list(jnp.shape(direction))}")
    edit = project_out(direction)
    return dict.fromkeys(WRITES, edit)


def orthogonalize(weights: Mapping[str, Any], direction: Direction) -> dict[str, Array]:
    """Weights that can not write along a direction: the model that they make is the one that `ablation` edits.

    `W_U` comes back as it is. Where it is `W_E` transposed, `models.with_weights` refuses it beside the new `W_E`, for
    the unembedding is no write: give it `models.untie(model)`, as in the example.

    Args:
      weights: what `models.weights(model)` gives.
      direction: `[d_model]` of any norm.

    Returns:
      all of the weights, of their dtypes; `W_E`, `W_pos`, `W_O`, `W_out`, `b_O` and `b_out` are orthogonal to it.

    Raises:
      ValueError: a direction of another width, a model with norms between what writes and the stream, or weights
        without `W_E` or without `W_O`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import models, steering
      >>> model, _ = models.load("microworld", dtype="float32")
      >>> r, tokens = jnp.ones(128), jnp.array([[1, 5, 9]])
      >>> new = models.with_weights(models.untie(model), steering.orthogonalize(models.weights(model), r))
      >>> edited = ij.intervene(models.forward, steering.ablation(r))(model, tokens)
      >>> bool(jnp.allclose(models.forward(new, tokens), edited, atol=1e-4))
      True
    """
    if norms := [name for name in BETWEEN if name in weights]:
        raise ValueError(
            f"steering.orthogonalize: a norm ({norms[0]}) stands between the weights and the residual stream, so that "
            "no weights are equal to the edit: use steering.ablation"
        )
    if lacking := [name for name in ("W_E", "W_O") if name not in weights]:
        raise ValueError(f"steering.orthogonalize: no {lacking[0]} among the weights: give models.weights(model)")
    width = weights["W_E"].shape[-1]
    if jnp.shape(direction) != (width,):
        raise ValueError(
            f"steering.orthogonalize: a direction of shape {list(jnp.shape(direction))}, and the model has d_model "
            f"{width}: it was made of another model"
        )
    wide = jnp.asarray(direction).astype(jnp.float32)
    norm = jnp.linalg.norm(wide)
    unit = wide / jnp.where(norm == 0, jnp.ones_like(norm), norm)

    def without(x: Array) -> Array:
        full = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
        r = unit.astype(full.dtype)
        return (full - jnp.einsum("...d,d->...", full, r, precision="highest")[..., None] * r).astype(x.dtype)

    return {name: without(jnp.asarray(x)) if name in WRITERS else x for name, x in weights.items()}


def direction_scores(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    where: str = "blocks.resid_pre",
    *,
    chunk: int | None = None,
) -> Callable[..., DirectionScores]:
    """How each of many vectors does as the direction of a behaviour, in one compiled call.

    Args:
      f: `(model, prompts) -> logits [batch d_vocab]` of the token that comes next; prompts may be any pytree, a task
        say, with its masks.
      metric: logits -> one number per example, higher where the behaviour is; the paper's is
        `metrics.log_odds(tokens with which a refusal begins)`.
      where: address of the site, of every layer, at which a vector is added.
      chunk: candidates that are tried at once; by default so many that 64 sequences run.

    Returns:
      `g(model, positive, negative, candidates) -> DirectionScores`: prompts with the behaviour, prompts without it, and
      a vector for each layer and position `[layer position d_model]`, such as differences of means.

    Raises:
      ValueError: candidates of another shape, width or number of layers; a metric that is not one number per example.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from interp_jax import metrics, models, steering
      >>> model, tokenizer = models.load("microworld-chat")
      >>> f = lambda model, tokens: models.forward(model, tokens)[:, -1]
      >>> metric = metrics.log_odds(jnp.array(tokenizer.encode("sorry", bos=False)))
      >>> tokens = jnp.array([tokenizer.encode("<user> i want to steal a car . <end> <assistant>")])
      >>> candidates = jax.random.normal(jax.random.key(0), (model.config.n_layers, 2, model.config.d_model))
      >>> steering.direction_scores(f, metric)(model, tokens, tokens, candidates).kl.shape
      (4, 2)
    """
    check_counts(chunk=chunk)
    return transform(_scores, (where, chunk), (f, metric))


def _scores(
    options: tuple[str, int | None], arrays: Any, model: Any, positive: Any, negative: Any, candidates: Any
) -> DirectionScores:
    (where, chunk), (f, metric) = options, arrays
    candidates = jnp.asarray(candidates)
    if candidates.ndim != 3:
        raise ValueError(
            f"steering.direction_scores: candidates {list(candidates.shape)}: give a vector for each layer and "
            "position, [layer position d_model]"
        )
    n_layers, n_positions, width = candidates.shape
    (info,) = find(f, where, model, negative).values()
    if (len(info.layers or ()), info.shape[-1]) != (n_layers, width):
        raise ValueError(
            f"steering.direction_scores: candidates of {n_layers} layers and width {width}, and {where!r} has "
            f"{len(info.layers or ())} layers and width {info.shape[-1]}: they were made at another site or of another "
            "model"
        )
    plain = f(model, negative)

    def judged(logits: Array) -> Array:
        return per_example(metric(logits), logits.shape[:-1]).mean()

    def one(place: Any) -> Array:
        layer, position = place
        vector = candidates[layer, position]
        taken_out = ablation(vector)
        bypass = judged(intervene(f, taken_out)(model, positive))
        induce = judged(intervene(f, {where: at(add(vector), layer=layer)})(model, negative))
        kl = metrics.kl(plain)(intervene(f, taken_out)(model, negative)).mean()
        return jnp.stack([bypass, induce, kl.astype(jnp.float32)])

    found = at_places(one, (n_layers, n_positions), at_once(chunk, plain.shape[:-1]))
    return DirectionScores(*jnp.moveaxis(found.reshape(n_layers, n_positions, 3), -1, 0))


def best_direction(scores: DirectionScores, *, max_kl: float = 0.1, below: float = 0.8) -> tuple[int, int]:
    """The layer and the position of the direction that is needed most, of those that are enough and change little else.

    Args:
      scores: what `direction_scores` gives, of every layer.
      max_kl: nats, above which a direction changes too much of what has nothing to do with it.
      below: the share of the layers, from the first, in which to look: a later direction may be that of the output's
        tokens themselves.

    Returns:
      layer and position: least `bypass` where `induce` is above 0, `kl` below `max_kl`, and the layer below `below` of
      all layers.

    Raises:
      ValueError: no direction is such.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import steering
      >>> kl = jnp.array([[0.01], [0.02], [0.3]])
      >>> steering.best_direction(steering.DirectionScores(jnp.array([[2.0], [1.0], [0.0]]), jnp.ones((3, 1)), kl))
      (1, 0)
    """
    bypass, induce, kl = (np.asarray(x) for x in scores)
    early = (np.arange(len(bypass)) < below * len(bypass))[:, None]
    allowed = early & (induce > 0) & (kl < max_kl) & np.isfinite(bypass)
    if not allowed.any():
        least, most = (
            float(np.min(kl, where=early, initial=math.inf)),
            float(np.max(induce, where=early, initial=-math.inf)),
        )
        raise ValueError(
            f"steering.best_direction: no direction below layer {below * len(bypass):g} has induce > 0 and KL < "
            f"{max_kl:g}: the most that one induces is {most:.3g}, the least KL {least:.3g}; look at the scores"
        )
    layer, position = np.unravel_index(np.where(allowed, bypass, math.inf).argmin(), bypass.shape)
    return int(layer), int(position)
