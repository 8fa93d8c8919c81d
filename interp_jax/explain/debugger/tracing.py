"""What questions of one prompt are made of: a run, slopes of what is asked, and the scores of all that wrote before it.

A question is one program, in which layers, units and positions are data: another node is no other compilation.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, NamedTuple

from jax import Array
import jax.numpy as jnp

from interp_jax.core import SiteInfo, capture, freeze, grads, sites
from interp_jax.explain.debugger.found import Scores
from interp_jax.explain.debugger.prompt import Ends, with_features
from interp_jax.explain.debugger.writers import needed, scales, writers

UNCAPPED = "unembed.out"  # the logits before a cap
Call = tuple[tuple[Any, ...], dict[str, Any]]  # what the function is called with


class Run(NamedTuple):
    """A run of a prompt.

    f: the function, with the features of dictionaries as sites.
    known: the catalogue of the model's own sites.
    addresses: where the nodes' activations are, and the slopes of these.
    acts: captures of them, and of the scales of norms after attention and MLPs.
    logits: `[position d_vocab]`.
    """

    f: Callable[..., Any]
    known: Mapping[str, SiteInfo]
    addresses: tuple[str, ...]
    acts: Mapping[str, Array]
    logits: Array


class Aim(NamedTuple):
    """The number that is explained: `of` what a site holds."""

    site: str
    of: Callable[[Array], Array]


class Found(NamedTuple):
    """What is explained, its constants by the score that they complete, the nodes' scores, and the logits there."""

    value: Array
    constants: dict[str, Array]
    parts: tuple[Scores, ...]
    logits: Array


def start(f: Callable[..., Any], dictionaries: Mapping[str, Any], call: Call) -> Run:
    """Runs the prompt. Raises ValueError for a function without the sites, or with the logits of one position alone."""
    args, told = call
    known = sites(f, *args, **told)
    found = with_features(f, dictionaries)
    addresses = needed(known, tuple(dictionaries))
    logits, acts = capture(found, (*addresses, *scales(known)))(*args, **told)
    if logits.ndim != 2:
        raise ValueError(f"why: f gives {list(logits.shape)}: it must give the logits of every position of the prompt")
    return Run(found, known, addresses, acts, logits)


def difference(known: Mapping[str, SiteInfo], ends: Ends) -> Aim:
    """The difference of two logits at a position, before a cap."""

    def of(logits: Array) -> Array:
        here = logits[ends.position].astype(jnp.float32)
        return here[ends.token] - here[ends.rather]

    return Aim(UNCAPPED if UNCAPPED in known else "logits", of)


def held(f: Callable[..., Any], known: Mapping[str, SiteInfo], *more: str) -> Callable[..., Any]:
    """`f` with the scales of all norms held, and what else is named."""
    names = (*(name for name in known if name.endswith(".scale")), *more)
    return freeze(f, names) if names else f


def slopes(f: Callable[..., Any], aim: Aim, where: Sequence[str], call: Call) -> tuple[Array, Any, Any]:
    """The value, captures and slopes, by address."""
    args, told = call
    # The function's own output is kept, so that the sites of later layers are there as well, with slope 0.
    return grads(capture(f, aim.site), lambda given: aim.of(given[1][aim.site]), tuple(where))(*args, **told)


def reading(f: Callable[..., Any], aim: Aim, address: str, layer: Any, call: Call) -> tuple[Array, Array]:
    """What a value that is affine in the residual stream reads of it, `[position d_model]`, and what it is of nothing.

    `layer` is which of the stacked layers of an address without a number; None of one with it.
    """
    value, base, slope = slopes(f, aim, (address,), call)
    base, slope = (x[address] if layer is None else x[address][layer] for x in (base, slope))
    base, slope = base.astype(jnp.float32), slope.astype(jnp.float32)
    return slope, value - (base * slope).sum()


def scored(
    run: Run,
    weights: Mapping[str, Array],
    dictionaries: Mapping[str, Any],
    real: Array,
    around: Mapping[str, Array],
    read: Mapping[str, Array],
    *,
    since: Any = -math.inf,
    before: Any = math.inf,
) -> tuple[Scores, ...]:
    """The scores of all nodes that write between two places; others have 0.

    Args:
      run, weights, dictionaries: as in `writers`.
      real: bool `[position]`, False at padding.
      around: the slopes of the value at `run.addresses`, with nothing held.
      read: name of a score that adds up -> what is read of the residual stream, `[position d_model]`.
      since, before: the places, as in `Writers.after`.
    """
    parts = []
    for one in writers(weights, run.acts, run.known, dictionaries):
        after = jnp.array(one.after, jnp.float32)
        counts = ((after >= since) & (after < before))[:, None, None] & real[:, None]
        values = {"magnitude": one.magnitudes()} | {name: one.effects(slope) for name, slope in read.items()}
        values["gradient"] = one.attribution(around)
        parts.append(Scores(one.kind, one.layers, {name: jnp.where(counts, x, 0) for name, x in values.items()}))
    return tuple(parts)
