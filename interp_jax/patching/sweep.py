"""Sweeps: an edit at each place of a site in turn, and what it does to a metric. Activation patching; ablation.

    effect[i] = metric(f with x[i] <- edit(x)[i])

with the clean run's value as the edit: activation patching, or causal mediation (Vig et al. 2020, arXiv:2004.12265;
Meng et al. 2022, arXiv:2202.05262; Zhang and Nanda 2024, arXiv:2309.16042). With zeros or a mean: an ablation.
Two plans give the same map: static layers, where what comes before the edited layer runs once for all places, and the
layer as data, compiled once at any depth.
Caveat: a place that can do without the patch is not thereby idle, since others may make up for it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax import Array
import jax.numpy as jnp

from interp_jax.core import as_intervention, capture, intervene, transform
from interp_jax.interventions import replace
from interp_jax.patching.grid import confine, lay, ordered, visit
from interp_jax.runs import DEEP, at_once, check_counts, check_pair, named, per_example


class _Options(NamedTuple):
    where: str
    over: tuple[str, ...]
    chunk: int | None
    plan: str | None
    window: int


def activation_patch(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    where: str,
    over: Sequence[str] = ("layer", "position"),
    *,
    chunk: int | None = None,
    plan: str | None = None,
) -> Callable[..., Array]:
    """What each place does when it alone gets the clean run's value in the corrupted run (denoising).

    Swap the two runs for noising. Put `metrics.normalized` around the metric for 0 at corrupted and 1 at clean.

    Args:
      f: `(model, tokens) -> output`.
      metric: output -> one number per example, such as `metrics.logit_diff(answers, distractors)`.
      where: address of a site, such as `"blocks.resid_pre"`, or of one layer of it.
      over: what to go over, and the axes of the result in this order: "layer", the site's own axes by name
        ("position", "head", "query", "key", "d_mlp", ...), and "batch" for one number per pair rather than their
        mean. Axes that are not named are patched whole. Positions count real tokens from 0, as in `at`.
      chunk: places that run at once; by default so many that 64 sequences do.
      plan: "static" (each layer a program of its own, which shares what comes before), "data" (the layer is a number:
        quicker to compile), or None: static up to 16 layers.

    Returns:
      `g(model, clean, corrupted) -> effects`, one compiled call: tokens `[batch position]` (or `[position]`), both
      the same shape, to float32 with the axes of `over`.

    Raises:
      ValueError: clean and corrupted of different shapes, a metric that is not one number per example, an axis that the
        site has not, an address that names no site or several, an unknown plan, a chunk below 1.

    Example:
      >>> import jax
      >>> from functools import partial
      >>> from interp_jax import data, metrics, models, patching
      >>> model, tokenizer = models.load("microworld")
      >>> task = data.tasks.ioi(jax.random.key(0), tokenizer, n=2, order="ABBA", template=0)
      >>> f = partial(models.forward, attention_mask=task.mask, logits_at=task.last)
      >>> metric = metrics.logit_diff(task.answers, task.distractors)
      >>> effects = patching.activation_patch(f, metric, "blocks.resid_pre")(model, task.clean, task.corrupted)
      >>> effects.shape
      (4, 15)
    """
    options = _options(where, over, chunk, plan)
    return transform(_activation_patch, options, (f, metric))


def sweep(
    f: Callable[..., Any],
    metric: Callable[[Any], Array],
    where: str,
    edit: Any,
    over: Sequence[str] = ("layer", "position"),
    *,
    window: int = 1,
    chunk: int | None = None,
    plan: str | None = None,
) -> Callable[..., Array]:
    """What an edit does at each place in turn: ablations, or any other intervention.

    Zero ablation is `zero()`, mean ablation `mean_ablate(mean)`, resample ablation `replace(values)` with another
    prompt's captured values (which is what `activation_patch` does).

    Args:
      f, metric, where, over, chunk, plan: as in `activation_patch`.
      edit: an intervention or a callable, which sees the whole value.
      window: so many layers around each are edited together, `layer - window // 2` the first.

    Returns:
      `g(model, tokens) -> effects`, float32 with the axes of `over`, in one compiled call.

    Raises:
      ValueError: as `activation_patch`; a window below 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import models, patching
      >>> from interp_jax.interventions import zero
      >>> model, _ = models.load("microworld")
      >>> top = lambda logits: logits[:, -1].max(-1)
      >>> ablated = patching.sweep(models.forward, top, "blocks.attn.z", zero(), over=("layer", "head"))
      >>> ablated(model, jnp.array([[1, 5, 9]])).shape
      (4, 4)
    """
    options = _options(where, over, chunk, plan, window)
    return transform(_sweep, options, (f, metric, as_intervention(edit)))


def _options(where: str, over: Sequence[str], chunk: int | None, plan: str | None, window: int = 1) -> _Options:
    if plan not in (None, "static", "data"):
        raise ValueError(f"plan={plan!r} is neither 'static' nor 'data'")
    check_counts(chunk=chunk, window=window)
    return _Options(where, named(over), chunk, plan, window)


def _activation_patch(options: _Options, arrays: Any, *args: Any, **kwargs: Any) -> Array:
    (f, metric), (*before, clean, corrupted) = arrays, args
    check_pair("activation_patch", clean, corrupted)
    lay(f, options.where, options.over, (*before, clean), kwargs)  # raises before the clean run does
    values = capture(f, options.where, output=False)(*before, clean, **kwargs)[options.where]
    return _sweep(options, (f, metric, replace(values)), *before, corrupted, **kwargs)


def _sweep(options: _Options, arrays: Any, *args: Any, **kwargs: Any) -> Array:
    f, metric, edit = arrays
    grid = lay(f, options.where, options.over, args, kwargs)
    examples = jnp.shape(args[-1])[:-1]
    keep = "batch" in options.over

    def one(layer: Any, places: Sequence[Array]) -> Array:
        here = confine(edit, grid, layer, places, options.window)
        score = per_example(metric(intervene(f, {options.where: here})(*args, **kwargs)), examples)
        return score if keep else score.mean()

    plan = options.plan or ("static" if len(grid.layers or ()) <= DEEP else "data")
    return ordered(visit(one, grid, plan, at_once(options.chunk, examples)), grid, options.over)
