"""In-context representations: the mean activations of the words of a walk, by how much of it was read.

    h_i = mean of the activations at the word of node i, in the last `window` tokens of the context

Park et al. 2025, "ICLR: In-Context Learning of Representations", arXiv:2501.00070; what is asked of them is in
`graph_energy.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import Float, Int

from interp_jax.core import capture, transform
from interp_jax.geometry.graph_energy import check_met
from interp_jax.runs import check_counts


def mean_representations(
    acts: Float[Typed, "*layer batch position d"],
    tokens: Int[Typed, "batch position"],
    nodes: Int[Typed, "node"],
    *,
    window: int | None = None,
    length: int | None = None,
) -> Float[Typed, "*layer node d"]:
    """The mean activation at each node's word, over all texts and the last places of the context.

    Args:
      acts: `[layer batch position d]`, such as a capture of `blocks.resid_post`; or of one layer, without its axis.
      tokens: int `[batch position]`.
      nodes: int `[node]`, the token of each node.
      window: how many of the last places count, None for all.
      length: how many tokens of the context are looked at, None for all.

    Returns:
      float32 `[layer node d]`. Under `jit`, where it cannot be refused, a node that is not met is nan.

    Raises:
      ValueError: a node is not met in these places; window or length below 1, or more places than there are.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> acts = jnp.array([[[1.0], [5.0], [3.0], [7.0]]])
      >>> geometry.mean_representations(acts, jnp.array([[4, 9, 4, 9]]), jnp.array([4, 9])).tolist()
      [[2.0], [6.0]]
    """
    if acts.shape[-3:-1] != tokens.shape:
        raise ValueError(f"mean_representations: activations {list(acts.shape)} of tokens {list(tokens.shape)}")
    lengths = _lengths("mean_representations", (length or tokens.shape[1],), window, tokens.shape[1])
    means = _means(acts, tokens, nodes, lengths, window)[..., 0, :, :]
    check_met("mean_representations", means)
    return means


def context_representations(
    f: Callable[..., Any], where: str, lengths: Sequence[int], *, window: int | None = 50
) -> Callable[..., Array]:
    """Runs a model over walks once, and keeps the nodes' mean activations at several lengths of the context.

    Args:
      f: the function, called as `f(model, tokens)`.
      where: an address with the axes batch, position and one more, such as "blocks.resid_post".
      lengths: numbers of tokens: the means of each are over the last `window` of so many.
      window: as in `mean_representations`; 50 is the paper's.

    Returns:
      `g(model, tokens, nodes) -> float32 [layer length node d]`, for tokens int `[batch position]` and nodes int
      `[node]`, the token of each node. A node that is not met in a window is nan.

    Raises:
      ValueError: no such site, or a length that the tokens do not have.

    Example:
      >>> import jax, interp_jax as ij
      >>> from interp_jax import data, geometry, models
      >>> model, tokenizer = models.load("microworld-context")
      >>> walks = data.graphs.walks(jax.random.key(0), tokenizer, n=4, graph="ring", length=64)
      >>> read = geometry.context_representations(models.forward, "blocks.resid_post", (40, 65))
      >>> read(model, walks.tokens, walks.ids).shape
      (4, 2, 8, 96)
    """
    check_counts(window=window)
    return transform(_representations, (where, tuple(int(length) for length in lengths), window), f)


def _representations(options: tuple[str, tuple[int, ...], int | None], f: Any, *args: Any) -> Array:
    (where, lengths, window), (*_, tokens, nodes) = options, args
    lengths = _lengths("context_representations", lengths, window, tokens.shape[-1])

    def means(x: Array) -> Array:
        return _means(x, tokens, nodes, lengths, window)

    return capture(f, {where: means}, output=False)(*args[:-1])[where]


def _means(acts: Array, tokens: Array, nodes: Array, lengths: tuple[int, ...], window: int | None) -> Array:
    """`[... length node d]`, nan at nodes that are not met."""
    places, ends = jnp.arange(tokens.shape[-1]), jnp.asarray(lengths)[:, None]
    seen = (places < ends) & (places >= ends - (window or tokens.shape[-1]))  # [length position]
    at_node = tokens[None, ..., None] == nodes
    weights = (seen[:, None, :, None] & at_node).astype(jnp.float32)  # [length batch position node]
    total = jnp.einsum("tbpn,...bpd->...tnd", weights, acts.astype(jnp.float32), precision=lax.Precision.HIGHEST)
    count = weights.sum((1, 2))[..., None]
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def _lengths(name: str, lengths: tuple[int, ...], window: int | None, n: int) -> tuple[int, ...]:
    check_counts(window=window)
    if not lengths or min(lengths) < 1 or max(lengths) > n:
        raise ValueError(f"{name}: lengths {list(lengths)} of texts of {n} tokens: each is from 1 to {n}")
    return lengths
