"""How much of a model the transcoders of all its layers keep, layer by layer and all MLPs replaced at once."""

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


def scores(read: str, model: Any, found: dict[str, Any], seen: Corpus, held: Corpus) -> dict[str, np.ndarray]:
    """Scores on held-out text.

    Args:
      read: the site of every layer that the transcoders read, such as `"blocks.mlp_in"`.
      model: the model.
      found: a transcoder of each layer in their order, or one cross-layer transcoder.
      seen: text, for the mean outputs.
      held: text that nothing was trained on.

    Returns:
      `fvu`, `l0` and `dead` `[layer]`, the last the share of features that never fire; and of the whole model `[]`:
      `kept`, the share of tokens whose most probable next token stays where all MLPs are replaced, `kept of sure`, of
      those to which the model gives more than half, `kept by means`, of mean outputs in the MLPs' place; `recovered`,
      and the mean cross-entropies `ce clean`, `ce replaced` and `ce mean`.
    """
    some = dictionaries.harvest(
        models.forward, WRITTEN, model, seen.tokens, mask=seen.real, skip=seen.special, batch_size=512, n_buffered=4
    )
    means = next(some).mean(0)
    one = list(found.values())
    one = one[0] if one[0].is_stacked else stacked(one)
    parts = []
    for start in range(0, len(held.tokens) - BATCH + 1, BATCH):
        tokens, real, wanted = (part[start : start + BATCH] for part in (held.tokens, held.real, held.mask))
        parts.append(jax.device_get(_sums(read, model, one, means, tokens, real, wanted)))
    t = {name: np.sum([np.asarray(part[name], np.float64) for part in parts], axis=0) for name in parts[0]}
    ce = {f"ce {name}": t[f"ce {name}"] / t["scored"] for name in ("clean", "replaced", "mean")}
    return ce | {
        "fvu": t["error"] / t["spread"],
        "l0": t["fired"].sum(-1) / t["n"],
        "dead": (t["fired"] == 0).mean(-1),
        "kept": t["kept replaced"] / t["scored"],
        "kept of sure": t["sure replaced"] / t["sure clean"],
        "kept by means": t["kept mean"] / t["scored"],
        "recovered": (ce["ce mean"] - ce["ce replaced"]) / (ce["ce mean"] - ce["ce clean"]),
    }


def stacked(layers: list[Any]) -> Any:
    """Transcoders of one kind and size as one with a leading layer axis, which knows no sites."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(dataclasses.replace(one, sites=None) for one in layers))


@partial(jax.jit, static_argnums=0)
def _sums(
    read: str, model: Any, found: Any, means: Array, tokens: Array, real: Array, wanted: Array
) -> dict[str, Array]:
    """The sums over a batch's tokens of what is averaged: of layers `[layer]`, of features `[layer d_sae]`."""

    def total(x: Array) -> Array:  # over tokens
        return jnp.sum(jnp.where(wanted[..., None], x, 0.0), axis=(-3, -2))

    run = partial(models.forward, attention_mask=real)
    clean, acts = ij.capture(run, [read, WRITTEN])(model, tokens)
    x, y = acts[read], acts[WRITTEN]
    if found.is_stacked:
        features = found.encode(jnp.moveaxis(x, 0, -2))
        features, out = (jnp.moveaxis(part, -2, 0) for part in (features, found.decode(features)))
        replaced = dictionaries.splice(found, keep_error=False)
    else:
        features, out = jax.vmap(lambda one, x: (one.encode(x), one(x)))(found, x)
        replaced = {WRITTEN: per_layer(dictionaries.splice(found, keep_error=False, sites=(read, WRITTEN)))}
    told = {
        "error": total((out - y) ** 2).sum(-1),
        "spread": total((y - means[:, None, None]) ** 2).sum(-1),
        "fired": total((features != 0).astype(jnp.float32)),
        "n": wanted.sum(),
    }
    at_means = {WRITTEN: per_layer(replace(jnp.broadcast_to(means[:, None, None], y.shape)))}
    scored, best = wanted[:, :-1] & wanted[:, 1:], clean[:, :-1].argmax(-1)
    sure = scored & (jax.nn.softmax(clean[:, :-1]).max(-1) > 0.5)
    for name, edits in {"clean": {}, "replaced": replaced, "mean": at_means}.items():
        edits = {address: at(edit, mask=wanted) for address, edit in edits.items()}
        logits = ij.intervene(run, edits)(model, tokens)[:, :-1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        told[f"ce {name}"] = jnp.sum(jnp.where(scored, losses, 0.0))
        kept = logits.argmax(-1) == best
        told |= {f"kept {name}": jnp.sum(scored & kept), f"sure {name}": jnp.sum(sure & kept)}
    return told | {"scored": scored.sum()}
