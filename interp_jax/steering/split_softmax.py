"""Split-softmax: more of each query's attention to the system prompt, and what is left of it shared as before.

    π = Σ_{i in prompt} α_i,    α'_i = α_i π^k / π in the prompt,    α'_i = α_i (1 - π^k) / (1 - π) elsewhere

Li et al. 2024, "Measuring and controlling instruction (in)stability in language model dialogs", arXiv:2402.10962, with
0 ≤ k ≤ 1. As π falls with the length of a dialog, a model forgets its system prompt; k = 1 is the model as it is, k = 0
sees the prompt alone. Caveat: every head is turned to the prompt, those that look up something else too.
"""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Int
import numpy as np

from interp_jax.core import Context, Intervention
from interp_jax.interventions.registration import pytree

Array = jax.Array


@pytree(data=("k", "stop", "start"))
class _SplitSoftmax(Intervention):
    over_keys = True  # type: ignore[assignment]  # keys to come have no weight to share
    k: Any
    stop: Any
    start: Any

    def look(self, value: Array, ctx: Context) -> None:
        if "query" not in (ctx.axes or ()) or "key" not in (ctx.axes or ()) or ctx.name.endswith("scores"):
            raise ValueError(
                f"split_softmax: site {ctx.name!r} with axes {ctx.axes} holds no attention pattern [head query key]: "
                'edit "blocks.attn.pattern"'
            )

    def __call__(self, value: Array, ctx: Context) -> Array:
        self.look(value, ctx)
        wide = value.astype(jnp.float32) if value.dtype.itemsize < 4 else value
        keys, queries = (ctx.numbers(name, value.shape[ctx.axis(name)]) for name in ("key", "query"))
        start, stop = jnp.asarray(self.start)[..., None], jnp.asarray(self.stop)[..., None]
        within = ctx.spread((keys >= start) & (keys < stop), "key", value)
        after = ctx.spread(queries >= stop, "query", value)
        prompt = jnp.where(within, wide, 0).sum(-1, keepdims=True)
        others = jnp.where(within, 0, wide).sum(-1, keepdims=True)
        # Where a side has no weight there is nothing to share it among: such rows stay.
        split = after & (prompt > 0) & (others > 0)
        prompt, others = (jnp.where(split, side, 1) for side in (prompt, others))
        # log π; as a difference from 0 it is exact where the prompt has all but a little of the weight
        log_mass = -(jnp.log1p(others / prompt))
        power = jnp.asarray(self.k).astype(wide.dtype) * log_mass
        total = prompt + others
        new = jnp.where(within, jnp.exp(power) * total / prompt, -jnp.expm1(power) * total / others) * wide
        return jnp.where(split, new, wide).astype(value.dtype)


def split_softmax(k: Float[ArrayLike, ""] | int, stop: Int[ArrayLike, "*batch"], *, start: Any = 0) -> Intervention:
    """Turns attention to the system prompt: the intervention for `{"blocks.attn.pattern": split_softmax(...)}`.

    Rows keep their sums. Queries before and inside the prompt stay as they are, and so do rows with no weight inside it
    or none outside. It is a pytree: other exponents and lengths compile nothing anew, and may be mapped over.

    Args:
      k: the exponent, 0 to 1; 1 changes nothing, 0 leaves no weight outside the prompt.
      stop: how many real tokens stand before the end of the system prompt, one number or one for each example
        `[batch]`; padding is not counted.
      start: the number of the prompt's first token, likewise. 1 leaves out a token that begins every text, on which
        many heads rest their weight when they look nothing up.

    Raises:
      ValueError: k outside 0 to 1, a prompt without tokens; (when applied) at a site that is no attention pattern.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import steering
      >>> f = lambda x: ij.site(x, "pattern", axes=("query", "key"))
      >>> pattern = jnp.array([[1.0, 0.0, 0.0], [0.25, 0.375, 0.375], [0.25, 0.1875, 0.5625]])
      >>> ij.intervene(f, {"pattern": steering.split_softmax(0.5, 1)})(pattern)[1:].tolist()
      [[0.5, 0.25, 0.25], [0.5, 0.125, 0.375]]
    """
    if _known(k) and not 0 <= float(jnp.asarray(k)) <= 1:
        raise ValueError(f"split_softmax: k={float(jnp.asarray(k)):g} is not from 0 to 1; 1 leaves the model as it is")
    if _known(stop) and _known(start) and not (0 <= np.min(start) and np.all(np.asarray(start) < np.asarray(stop))):
        raise ValueError(
            f"split_softmax: a prompt from token {_text(start)} to {_text(stop)} has no tokens: give start < stop, "
            "counted in real tokens from 0"
        )
    return _SplitSoftmax(jnp.asarray(k, jnp.float32), jnp.asarray(stop, jnp.int32), jnp.asarray(start, jnp.int32))


def _known(x: Any) -> bool:
    return not isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct)


def _text(x: Any) -> str:
    return str(np.asarray(x).tolist())
