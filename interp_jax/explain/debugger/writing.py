"""What nodes write to the residual stream on one prompt, as vectors: for the words that these raise."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax import Array
import jax.numpy as jnp

from interp_jax.core import transform
from interp_jax.explain.debugger.found import Node
from interp_jax.explain.debugger.prompt import check_dictionaries, check_weights, one_prompt
from interp_jax.explain.debugger.tracing import start
from interp_jax.explain.debugger.writers import writers


def written(
    f: Callable[..., Any], nodes: Sequence[Node | str], *, dictionaries: Mapping[str, Any] | None = None
) -> Callable[..., Array]:
    """The vectors that nodes write.

    Args:
      f, dictionaries: as in `why`.
      nodes: as such or by name.

    Returns:
      `g(model, weights, tokens, mask=None) -> float32 [node d_model]`.

    Raises:
      ValueError: as `why`; a node that is not there.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import explain, models
      >>> model, tokenizer = models.load("microworld", dtype="float32")
      >>> tokens = jnp.array(tokenizer.encode("when Mary and John went to the park"))
      >>> explain.written(models.forward, ["head 2.1 at 8", "embed at 2"])(model, models.weights(model), tokens).shape
      (2, 128)
    """
    some = [Node.read(node) if isinstance(node, str) else node for node in nodes]
    chosen = check_dictionaries(dictionaries)

    def g(model: Any, weights: Mapping[str, Array], tokens: Any, mask: Any = None) -> Array:
        run = one_prompt(tokens, mask, None)
        check_weights(weights)
        kinds = tuple((node.kind, node.layer) for node in some)
        places = [(jnp.int32(node.unit or 0), jnp.int32(node.position % len(run.tokens))) for node in some]
        return transform(_written, kinds, (f, chosen))(places, weights, model, run.tokens, **run.told)

    return g


def _written(
    kinds: tuple[tuple[str, int | None], ...], arrays: Any, places: Any, weights: Any, *args: Any, **told: Any
) -> Array:
    f, dictionaries = arrays
    run = start(f, dictionaries, (args, told))
    parts = {
        (one.kind, layer): (one, i)
        for one in writers(weights, run.acts, run.known, dictionaries)
        for i, layer in enumerate(one.layers)
    }
    vectors = []
    for kind, (unit, position) in zip(kinds, places, strict=True):
        if kind not in parts:
            raise ValueError(f"written: no {kind[0]} of layer {kind[1]}; there are {', '.join({k for k, _ in parts})}")
        one, place = parts[kind]
        vectors.append(one.one(place, position, unit).vectors()[0, 0, 0])
    return jnp.stack(vectors)
