"""How much of a model the transcoders of all its layers keep, layer by layer and all MLPs replaced at once.

Sparse heads in the place of attention are scored alike, and both together.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np
import optax

import interp_jax as ij
from interp_jax import dictionaries, models
from interp_jax.data.corpus import Corpus
from interp_jax.interventions import at, per_layer, replace

WRITTEN, BATCH = "blocks.mlp_out", 4  # what is replaced, and sequences at once


def scores(
    read: str,
    model: Any,
    found: dict[str, Any],
    seen: Corpus,
    held: Corpus,
    *,
    written: str = WRITTEN,
    others: Any = (),
) -> dict[str, np.ndarray]:
    """Scores on held-out text.

    Args:
      read: the site of every layer that the transcoders read, such as `"blocks.mlp_in"`.
      model: the model.
      found: a transcoder of each layer in their order, or one cross-layer transcoder.
      seen: text, for the mean outputs.
      held: text that nothing was trained on.
      written: the site of every layer that they write.
      others: `(read, written, found)` of what is in place too where `both` are replaced: `kept both`, `sure both`,
        `recovered both`, `ce both` and `ce both means` are then told as well.

    Returns:
      `fvu`, `l0` and `dead` `[layer]`, the last the share of features that never fire; and of the whole model `[]`:
      `kept`, the share of tokens whose most probable next token stays where all MLPs are replaced, `kept of sure`, of
      those to which the model gives more than half, `kept by means`, of mean outputs in the MLPs' place; `recovered`,
      and the mean cross-entropies `ce clean`, `ce replaced` and `ce mean`.
    """
    sets = [(read, written, found), *([others] if others else [])]
    harvest = partial(dictionaries.harvest, models.forward, model=model, tokens=seen.tokens, mask=seen.real)
    harvest = partial(harvest, skip=seen.special, batch_size=512, n_buffered=4)
    means = [next(harvest(where=place)).mean(0) for _, place, _ in sets]
    made = [list(some.values()) for *_, some in sets]
    made = [some[0] if some[0].is_stacked else stacked(some) for some in made]
    sites, parts = tuple((place[0], place[1]) for place in sets), []
    for start in range(0, len(held.tokens) - BATCH + 1, BATCH):
        tokens, real, wanted = (part[start : start + BATCH] for part in (held.tokens, held.real, held.mask))
        parts.append(jax.device_get(_sums(sites, model, made, means, tokens, real, wanted)))
    t = {name: np.sum([np.asarray(part[name], np.float64) for part in parts], axis=0) for name in parts[0]}
    ce = {name: value / t["scored"] for name, value in t.items() if name.startswith("ce ")}
    told = ce | {
        "fvu": t["error"] / t["spread"],
        "l0": t["fired"].sum(-1) / t["n"],
        "dead": (t["fired"] == 0).mean(-1),
        "kept": t["kept replaced"] / t["scored"],
        "kept of sure": t["sure replaced"] / t["sure clean"],
        "kept by means": t["kept mean"] / t["scored"],
        "recovered": (ce["ce mean"] - ce["ce replaced"]) / (ce["ce mean"] - ce["ce clean"]),
    }
    if others:
        told["kept both"], told["sure both"] = t["kept both"] / t["scored"], t["sure both"] / t["sure clean"]
        told["recovered both"] = (ce["ce both means"] - ce["ce both"]) / (ce["ce both means"] - ce["ce clean"])
    return told


def stacked(layers: list[Any]) -> Any:
    """Transcoders of one kind and size as one with a leading layer axis, which knows no sites."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(dataclasses.replace(one, sites=None) for one in layers))


@partial(jax.jit, static_argnums=0)
def _sums(
    sites: tuple[tuple[str, str], ...], model: Any, made: Any, means: Any, tokens: Array, real: Array, wanted: Array
) -> dict[str, Array]:
    """The sums over a batch's tokens of what is averaged: of layers `[layer]`, of features `[layer d_sae]`."""

    def total(x: Array) -> Array:  # over tokens
        return jnp.sum(jnp.where(wanted[..., None], x, 0.0), axis=(-3, -2))

    run = partial(models.forward, attention_mask=real)
    clean, acts = ij.capture(run, [site for pair in sites for site in pair])(model, tokens)
    (read, written), found = sites[0], made[0]
    x, y = acts[read], acts[written]
    if found.is_stacked:
        features = found.encode(jnp.moveaxis(x, 0, -2))
        features, out = (jnp.moveaxis(part, -2, 0) for part in (features, found.decode(features)))
    else:
        features, out = jax.vmap(lambda one, x: (one.encode(x), one(x)))(found, x)
    told = {
        "error": total((out - y) ** 2).sum(-1),
        "spread": total((y - means[0][:, None, None]) ** 2).sum(-1),
        "fired": total((features != 0).astype(jnp.float32)),
        "n": wanted.sum(),
    }
    replaced = [_spliced(one, pair) for one, pair in zip(made, sites, strict=True)]
    at_means = [_held(mean, pair[1], acts[pair[1]]) for mean, pair in zip(means, sites, strict=True)]
    ways = {"clean": {}, "replaced": replaced[0], "mean": at_means[0]}
    if len(sites) > 1:
        ways |= {"both": replaced[0] | replaced[1], "both means": at_means[0] | at_means[1]}
    scored, best = wanted[:, :-1] & wanted[:, 1:], clean[:, :-1].argmax(-1)
    sure = scored & (jax.nn.softmax(clean[:, :-1]).max(-1) > 0.5)
    for name, edits in ways.items():
        edits = {address: at(edit, mask=wanted) for address, edit in edits.items()}
        logits = ij.intervene(run, edits)(model, tokens)[:, :-1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        told[f"ce {name}"] = jnp.sum(jnp.where(scored, losses, 0.0))
        kept = logits.argmax(-1) == best
        told |= {f"kept {name}": jnp.sum(scored & kept), f"sure {name}": jnp.sum(sure & kept)}
    return told | {"scored": scored.sum()}


def _spliced(found: Any, sites: tuple[str, str]) -> dict[str, Any]:
    """The edits that put all layers' reconstructions in place."""
    if found.is_stacked:
        return dictionaries.splice(found, keep_error=False)
    return {sites[1]: per_layer(dictionaries.splice(found, keep_error=False, sites=sites))}


def _held(mean: Array, site: str, values: Array) -> dict[str, Any]:
    """The edit that puts a mean `[layer d]` in the place of values `[layer batch position d]`."""
    return {site: per_layer(replace(jnp.broadcast_to(mean[:, None, None], values.shape)))}
