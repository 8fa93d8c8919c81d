"""Contexts of the experiments on binding, by model: people or boxes and what they have, in the model's own words."""

from typing import Any

import jax

from interp_jax import models
from interp_jax.data import bindings
from interp_jax.data.bindings import Contexts

PEOPLE = "Alice Bob Carl David Emma Frank George Henry James John Mary Peter Sarah Tom".split()
CITIES = "Paris London Berlin Rome Madrid Tokyo Moscow Vienna Boston Chicago Cairo Dublin Sydney".split()
TEXT: dict[str, Any] = dict(
    words={"entity": PEOPLE, "attribute": CITIES},
    before="Facts:",
    clause="\n {entity} lives in {attribute}.",
    between="",
    question="\n {entity} lives in",
)


def make(model: str, key: jax.Array, tokenizer: Any, n: int, n_pairs: int, slot: int = 0) -> Contexts:
    """Of `microworld-context` people and things, of `microworld` boxes, of any other model people and cities."""
    if model.startswith("microworld"):
        world = bindings.owners if "context" in model else bindings.boxes
        return world(key, tokenizer, n, n_pairs=n_pairs, slot=slot)
    return bindings.contexts(key, tokenizer, n, n_pairs=n_pairs, slot=slot, **TEXT)


def answer_logits(model: Any, tokens: jax.Array) -> jax.Array:
    """The logits after the last token, `[batch d_vocab]`."""
    return models.forward(model, tokens, logits_at=jax.numpy.full(len(tokens), tokens.shape[1] - 1))
