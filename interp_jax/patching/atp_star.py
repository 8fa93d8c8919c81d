"""AtP*: attribution patching mended where it misses most, saturated attention and effects that cancel.

    QK fix:    estimate = sum (pattern' - pattern) . d m / d pattern,    pattern' computed, as a softmax saturates
    GradDrop:  effect = 1 / (L - 1) sum over layers l of |estimate with no gradient through what layer l writes|

with pattern' that of the corrupted run with this one query or key from the clean run, m the metric, L layers. Kramár et
al. 2024, arXiv:2403.00745. Costs L backward passes, and L forward passes for queries and keys.
Caveat: sizes, not signs; still first order beyond the pattern.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array, lax
import jax.numpy as jnp

from interp_jax.core import Context, Intervention, capture, intervene, place, sites, transform
from interp_jax.interventions import at, replace
from interp_jax.patching.attribution import Toward, dosed
from interp_jax.patching.grid import lay, ordered
from interp_jax.runs import check_pair, named, per_example

WRITERS = ("blocks.attn_out", "blocks.mlp_out")
PATTERN, SCORES = "blocks.attn.pattern", "blocks.attn.attn_scores"
QUERIES, KEYS = ("blocks.attn.q", "blocks.attn.rot_q"), ("blocks.attn.k", "blocks.attn.rot_k")


def atp_star(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    where: str,
    over: Sequence[str] = ("layer", "position", "head"),
) -> Callable[..., Array]:
    """Estimates the size of what `activation_patch` changes, with fewer false negatives than `attribution_patch`.

    Args:
      f, metric, where: as in `activation_patch`; `"blocks.attn.q"` and `"blocks.attn.k"` get the QK fix.
      over: as in `activation_patch`; of queries and keys "layer", "position" and "head" in any order.

    Returns:
      `g(model, clean, corrupted) -> estimated sizes of the change of the metric`, float32 with the axes of `over`, not
      negative: means over examples of each one's size.

    Raises:
      ValueError: as `activation_patch`; a model without the sites `"blocks.attn_out"` and `"blocks.mlp_out"`; other
        axes of queries or keys.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import models, patching
      >>> model, _ = models.load("microworld")
      >>> top = lambda logits: logits[:, -1, 7]
      >>> g = patching.atp_star(models.forward, top, "blocks.attn.q")
      >>> g(model, jnp.array([[1, 5]]), jnp.array([[1, 9]])).shape
      (4, 2, 4)
    """
    return transform(_atp_star, (where, named(over)), (f, metric))


def _atp_star(options: tuple[str, tuple[str, ...]], arrays: Any, *args: Any, **kwargs: Any) -> Array:
    (where, over), (f, metric), (*before, clean, corrupted) = options, arrays, args
    check_pair("atp_star", clean, corrupted)
    known = sites(f, *before, clean, **kwargs)
    if absent := [site for site in WRITERS if site not in known]:
        raise ValueError(f"atp_star: the model has no site {absent[0]!r}, where gradients are dropped")
    n_layers = len(known[WRITERS[0]].layers or ())
    grid = lay(f, where, over, (*before, clean), kwargs)
    values = capture(f, where, output=False)(*before, clean, **kwargs)[where]
    examples = jnp.shape(corrupted)[:-1]
    axes = grid.names(batch=bool(examples))

    site, edit = where, partial(Toward, values, axes=axes)
    if where in (*QUERIES, *KEYS):
        if set(over) - {"batch"} != {"layer", "position", "head"}:
            raise ValueError(f"atp_star: over={over} of {where!r}: one query or key is a layer, a position and a head")
        site, edit = PATTERN, _by_pattern(f, where, values, axes, n_layers, (*before, corrupted), kwargs)

    def estimate(layer: Array) -> Array:
        """The sizes of the estimated effects, with no gradient through what the layer writes."""
        cut: dict[str, Intervention] = {writer: at(lax.stop_gradient, layer=layer) for writer in WRITERS}

        def score(dose: Array) -> Array:
            run = intervene(intervene(f, {site: edit(dose=dose)}), cut)
            return per_example(metric(run(*before, corrupted, **kwargs)), examples).sum()

        return jnp.abs(jax.grad(score)(jnp.zeros((*grid.shape, *examples))))

    sizes = lax.map(estimate, jnp.arange(n_layers)).sum(0) / max(1, n_layers - 1)
    return ordered(sizes if "batch" in over or not examples else sizes.mean(-1), grid, over)


def _by_pattern(
    f: Any, where: str, values: Array, axes: tuple[str, ...], n_layers: int, args: Any, kwargs: Any
) -> Callable[..., Intervention]:
    """A function of the dose that gives the edit of the pattern which each clean query or key would make."""

    def scores(layer: Array) -> Array:
        """The attention scores of one layer with its queries or keys from the clean run and all else as it was."""
        run = intervene(f, {where: at(replace(values), layer=layer)})
        return capture(run, SCORES, output=False)(*args, **kwargs)[SCORES][layer]

    new = lax.map(scores, jnp.arange(n_layers)).astype(jnp.float32)
    if where in QUERIES:
        renamed = tuple("query" if axis == "position" else axis for axis in axes)
        return partial(Toward, _pattern(new), axes=renamed)
    old = capture(f, SCORES, output=False)(*args, **kwargs)[SCORES].astype(jnp.float32)
    # One score of a softmax changes: its exponential e becomes e', and the others, q in all, keep their shares among
    # themselves. Nothing is taken from 1, which would lose a small q where attention is saturated. Where q is 0 there
    # are no others, and nothing moves.
    top = jnp.max(old, -1, keepdims=True, initial=jnp.finfo(jnp.float32).min)
    before, after = jnp.exp(old - top), jnp.exp(jnp.minimum(new - top, 60.0))
    rest = _others(before)
    moved = jnp.where(rest > 0, (after - before) / jnp.where(rest > 0, rest + after, 1), 0)
    renamed = tuple("key" if axis == "position" else axis for axis in axes)
    return partial(_KeyMoves, moved, n_shared=new.shape[-3] // values.shape[-2], axes=renamed)


def _others(x: Array) -> Array:
    """The sum over the last axis of all entries but each, without a difference, which would lose small ones."""
    before, after = lax.cumsum(x, x.ndim - 1), lax.cumsum(x, x.ndim - 1, reverse=True)
    ends = [(0, 0)] * (x.ndim - 1)
    return jnp.pad(before[..., :-1], [*ends, (1, 0)]) + jnp.pad(after[..., 1:], [*ends, (0, 1)])


def _pattern(scores: Array) -> Array:
    """The softmax of attention scores. A query that is padding has no key, and its row is 0."""
    return jnp.nan_to_num(jax.nn.softmax(scores, axis=-1))


@partial(jax.tree_util.register_dataclass, data_fields=["moved", "dose"], meta_fields=["n_shared", "axes"])
@dataclass(frozen=True)
class _KeyMoves(Intervention):
    """Gives one key the attention that its change takes from all keys: `x + u - x sum(u)`, with `u = dose * moved`.

    As `x` adds up to 1, that is `x + u * (sum of other x) - x * (sum of other u)`, exact where `x` rounds to 1 too.
    `n_shared` query heads share a key head.
    """

    moved: Any
    dose: Any
    n_shared: int
    axes: tuple[str, ...]

    def __call__(self, value: Array, ctx: Context) -> Array:
        x = value.astype(jnp.float32)
        by_query_head = jnp.repeat(self.dose, self.n_shared, axis=self.axes.index("head"))
        u = dosed(by_query_head, self.axes, value, ctx) * place(self.moved, value, ctx).astype(jnp.float32)
        return (x + u * _others(x) - x * _others(u)).astype(value.dtype)
