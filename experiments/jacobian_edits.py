"""Edits along the directions in which a lens reads words, and what they do to what is said, for `jacobian_lens.py`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import interp_jax as ij
from interp_jax import interventions, lens, models

EDITS = ("steer", "ablate", "swap")
SOURCES = ("Jacobian", "logit", "random")


@partial(jax.jit, static_argnames=("site", "edit"))
def gain(site: str, model: Any, edit: str, layer: Any, texts: Any, at: Any, words: Any, v: Any, size: Any) -> jax.Array:
    """How much a word gains over the one that the model says `[text]`, in nats, by an edit of one state of a layer.

    Args:
      site: the residual stream that is edited.
      model: the model.
      edit: "steer" towards the other word, "ablate" the model's own, or "swap" the two.
      layer: int32 `[]`.
      texts: int32 `[text position]`.
      at: int32 `[text]`, the position of the state, after which the model speaks.
      words: int32 `[text 2]`, the model's own word and the other.
      v: float32 `[text 2 d_model]`, their directions at unit norm.
      size: float32 `[text]`, how far to steer.
    """

    def of_text(text: Any, position: Any, words: Any, v: Any, size: Any) -> jax.Array:
        made = {
            "steer": lambda: interventions.add(size * v[1]),
            "ablate": lambda: interventions.project_out(v[0]),
            "swap": lambda: lens.swap(v[0], v[1]),
        }[edit]()
        f = partial(models.forward, logits_at=position)
        edited = ij.intervene(f, {site: interventions.at(made, layer=layer, position=position)})
        after, before = edited(model, text)[words], f(model, text)[words]
        return (after[1] - after[0]) - (before[1] - before[0])

    return jax.vmap(of_text)(texts, at, words, v, size)


def effects(
    site: str, model: Any, one: Any, layers: Any, texts: Any, at: Any, words: Any, resid: Any, strength: float, key: Any
) -> dict[str, np.ndarray]:
    """The mean gain `[layer]`, by edit and by where directions come from.

    Args:
      site, model, texts, at, words: as in `gain`.
      one: the Jacobian lens.
      layers: the layers whose states are edited.
      resid: the states, `[layer text position d_model]`.
      strength: how far to steer, in norms of the state.
      key: of random directions.
    """
    weights, rows = models.weights(model), np.arange(len(texts))
    plain = lens.JacobianLens.create(model.config.d_model, model.config.n_layers)
    directions = {"Jacobian": lens.directions(one, weights, words), "logit": lens.directions(plain, weights, words)}
    drawn = jax.random.normal(key, directions["logit"].shape)
    directions["random"] = drawn / jnp.linalg.norm(drawn, axis=-1, keepdims=True)
    size = strength * jnp.linalg.norm(resid[:, rows, at], axis=-1)  # [layer text]
    found = {}
    for edit in EDITS:
        for source in SOURCES:
            v = directions[source]
            of_layer = [gain(site, model, edit, jnp.int32(i), texts, at, words, v[i], size[i]) for i in layers]
            found[f"{edit}, {source}"] = np.array([x.mean() for x in of_layer])
    return found
