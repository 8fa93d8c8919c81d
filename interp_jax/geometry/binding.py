"""Binding by ID: entities and attributes that belong together carry a common mark, which can be moved and exchanged.

    Z_entity(k) = e + b(k),   Z_attribute(k) = a + b'(k):   k is which pair of the context it is, e and a its content

Three tests, each an edit of the activations at a few tokens in every layer, while the rest of the context is held as it
was and only the question is read anew. Interchange: another context's entity (or
attribute) in the place of the k-th one takes over its pair. Exchange: two entities of one context change places, and
nothing changes. Shift: adding mean b(1) - b(0) to the one and taking it from the other exchanges the answers.
Feng & Steinhardt 2023, "How do Language Models Bind Entities in Context?", arXiv:2310.17191.
Caveat: the paper moves positions step by step, by their rotary numbers; here two tokens take each other's place. And
activations at a token hold what it has read of others before it, so that a pair may move as a whole: see
`composition.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array as Typed
from jaxtyping import Float, Int

from interp_jax.core import capture, intervene, transform, within
from interp_jax.interventions import at, replace
from interp_jax.runs import check_pair

Metric = Callable[[Any], Array]


def option_log_probs(options: Int[Typed, "batch option"]) -> Metric:
    """Log-probabilities, in nats, of several answers to each prompt.

    Args:
      options: int `[batch option]`, token ids.

    Returns:
      A metric: logits `[batch d_vocab]` to float32 `[batch option]`.

    Raises:
      ValueError: (from the metric) the logits are not `[batch d_vocab]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> geometry.option_log_probs(jnp.array([[0, 2]]))(jnp.zeros((1, 4)))
      Array([[-1.3862944, -1.3862944]], dtype=float32)
    """
    return Partial(_option_log_probs, jnp.asarray(options))


def _option_log_probs(options: Array, logits: Array) -> Array:
    if logits.ndim != 2 or len(logits) != len(options):
        raise ValueError(
            f"option_log_probs: wants logits [{len(options)}, d_vocab], got {list(logits.shape)}: pass logits_at= "
            "to the forward, or pick one position"
        )
    return jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), options, axis=-1)


def interchange(f: Callable[..., Any], metric: Metric, where: str) -> Callable[..., Array]:
    """Runs a context with the activations at some tokens taken from another context: the test of factorizability.

    Args:
      f: the function, called as `f(model, tokens)`.
      metric: from what f returns to one number or several for each example, `[batch ...]`, such as `metrics.log_prob`
        or `option_log_probs`.
      where: an address with the axes batch, position and one more. "blocks.resid_pre" is every layer, as in the paper.

    Returns:
      `g(model, tokens, source, places, source_places=None, held=None) -> float32 [batch ...]`, for two contexts int
      `[batch position]` and the columns of the tokens that are replaced, int `[place]` or `[batch place]`, and of those
      that they are taken from, by default the same. held: bool `[position]` or `[batch position]`, True at the tokens
      that keep what they hold in the unedited run, which is the context without the question; None: none is kept, and
      tokens after a replaced one read it.

    Raises:
      ValueError: contexts of different lengths, a column that they do not have, other numbers of places; or a site of
        other axes.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import geometry
      >>> f = lambda w, x: ij.site(x[..., None] * w, "x", axes=("batch", "position", "d")).sum((1, 2))
      >>> g = geometry.interchange(f, lambda y: y, "x")
      >>> g(jnp.ones(1), jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[10.0, 20.0, 30.0]]), jnp.array([0, 2])).tolist()
      [42.0]
    """
    return transform(_interchange, where, (f, metric))


def _interchange(
    where: str,
    arrays: Any,
    model: Any,
    tokens: Array,
    source: Array,
    places: Array,
    source_places: Any = None,
    held: Any = None,
) -> Array:
    f, metric = arrays
    check_pair("interchange", tokens, source)
    to = _columns("interchange", places, tokens)
    origin = to if source_places is None else _columns("interchange", source_places, tokens)
    if to.shape != origin.shape:
        raise ValueError(f"interchange: {to.shape[1]} places are replaced and {origin.shape[1]} are given")
    taken = _taken(_captured("interchange", f, where, model, source), origin)
    return _run(f, metric, where, model, tokens, to, taken, held)


def exchange(f: Callable[..., Any], metric: Metric, where: str) -> Callable[..., Array]:
    """Runs a context in which tokens have taken each other's activations: the test of position independence.

    Args:
      f, metric, where: as in `interchange`.

    Returns:
      `g(model, tokens, first, second, held=None) -> float32 [batch ...]`: what stands at the columns `first`, int
      `[place]` or `[batch place]`, and at `second` change places. held: as in `interchange`.

    Raises:
      ValueError: as `interchange`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import geometry
      >>> f = lambda w, x: ij.site(x[..., None] * w, "x", axes=("batch", "position", "d"))[..., 0] @ jnp.arange(3.0)
      >>> g = geometry.exchange(f, lambda y: y, "x")
      >>> g(jnp.ones(1), jnp.array([[1.0, 2.0, 3.0]]), jnp.array([0]), jnp.array([2])).tolist()
      [4.0]
    """
    return transform(_exchange, where, (f, metric))


def _exchange(
    where: str, arrays: Any, model: Any, tokens: Array, first: Array, second: Array, held: Any = None
) -> Array:
    f, metric = arrays
    first, second = (_columns("exchange", places, tokens) for places in (first, second))
    if first.shape != second.shape:
        raise ValueError(f"exchange: {first.shape[1]} places and {second.shape[1]} cannot take each other's")
    taken = _taken(_captured("exchange", f, where, model, tokens), jnp.concatenate([second, first], axis=1))
    return _run(f, metric, where, model, tokens, jnp.concatenate([first, second], axis=1), taken, held)


def binding_vectors(f: Callable[..., Any], where: str) -> Callable[..., Array]:
    """The mean activation at each slot less that at slot 0: estimates of b(k) - b(0), where contexts draw what stands
    in their slots alike.

    Args:
      f, where: as in `interchange`.

    Returns:
      `g(model, tokens, slots) -> float32 [layer slot d]`, for contexts int `[batch position]` and the columns of the
      entities, or of the attributes, in their order, int `[slot]` or `[batch slot]`.

    Raises:
      ValueError: as `interchange`.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import geometry
      >>> f = lambda w, x: ij.site(x[..., None] * w, "x", axes=("batch", "position", "d"))
      >>> contexts = jnp.array([[1.0, 2.0, 3.0], [1.0, 4.0, 9.0]])
      >>> geometry.binding_vectors(f, "x")(jnp.ones(1), contexts, jnp.array([0, 2])).tolist()
      [[0.0], [5.0]]
    """
    return transform(_binding_vectors, where, f)


def _binding_vectors(where: str, f: Any, model: Any, tokens: Array, slots: Array) -> Array:
    columns = _columns("binding_vectors", slots, tokens)
    means = _captured(
        "binding_vectors", f, where, model, tokens, lambda x: _taken(x, columns).astype(jnp.float32).mean(0)
    )
    return means - means[..., :1, :]


def exchanging(vectors: Float[Typed, "*layer slot d"], i: int, j: int) -> Float[Typed, "*layer 2 d"]:
    """What is to be added at slots i and j so that they exchange their binding: `b(j) - b(i)` and `b(i) - b(j)`.

    Args:
      vectors: as `binding_vectors` gives them.
      i, j: two slots.

    Raises:
      ValueError: there are no such two slots.

    Example:
      >>> import jax.numpy as jnp
      >>> from interp_jax import geometry
      >>> geometry.exchanging(jnp.array([[0.0], [5.0], [7.0]]), 1, 2).tolist()
      [[2.0], [-2.0]]
    """
    n = vectors.shape[-2]
    if i == j or not (0 <= i < n and 0 <= j < n):
        raise ValueError(f"exchanging: slots {i} and {j}: give two of 0 to {n - 1}")
    change = vectors[..., j, :] - vectors[..., i, :]
    return jnp.stack([change, -change], axis=-2)


def shift(f: Callable[..., Any], metric: Metric, where: str) -> Callable[..., Array]:
    """Runs a context with vectors added to what its tokens hold: the mean intervention.

    In each layer the vector is added to the activation of the unedited run, so that what layers add does not pile up.

    Args:
      f, metric, where: as in `interchange`.

    Returns:
      `g(model, tokens, places, vectors, held=None) -> float32 [batch ...]`, for columns int `[place]` or
      `[batch place]` and vectors `[layer place d]`, without the layer axis where `where` is one layer. held: as in
      `interchange`.

    Raises:
      ValueError: as `interchange`, or vectors that do not fit.

    Example:
      >>> import jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import geometry
      >>> f = lambda w, x: ij.site(x[..., None] * w, "x", axes=("batch", "position", "d"))[..., 0] @ jnp.arange(3.0)
      >>> g = geometry.shift(f, lambda y: y, "x")
      >>> g(jnp.ones(1), jnp.array([[1.0, 2.0, 3.0]]), jnp.array([1, 2]), jnp.array([[1.0], [-1.0]])).tolist()
      [7.0]
    """
    return transform(_shift, where, (f, metric))


def _shift(
    where: str, arrays: Any, model: Any, tokens: Array, places: Array, vectors: Array, held: Any = None
) -> Array:
    f, metric = arrays
    columns = _columns("shift", places, tokens)
    plain = _taken(_captured("shift", f, where, model, tokens), columns)
    wanted = (*plain.shape[:-3], *plain.shape[-2:])
    if vectors.shape != wanted:
        raise ValueError(f"shift: vectors of shape {list(vectors.shape)}, wanted one a place: {list(wanted)}")
    moved = plain.astype(jnp.float32) + jnp.expand_dims(vectors.astype(jnp.float32), -3)
    return _run(f, metric, where, model, tokens, columns, moved.astype(plain.dtype), held)


def _columns(name: str, places: Any, tokens: Array) -> Array:
    """Columns `[batch place]`, each of which the tokens have."""
    if tokens.ndim != 2:
        raise ValueError(f"{name}: contexts are [batch position], not {list(tokens.shape)}")
    within(places, range(tokens.shape[1]), f"{name}: a column of contexts of {tokens.shape[1]} tokens")
    places = jnp.asarray(places)
    if places.ndim not in (1, 2) or (places.ndim == 2 and len(places) != len(tokens)):
        raise ValueError(f"{name}: columns are [place] or [{len(tokens)}, place], not {list(places.shape)}")
    return jnp.broadcast_to(places, (len(tokens), places.shape[-1]))


def _captured(name: str, f: Any, where: str, model: Any, tokens: Array, reduce: Any = None) -> Array:
    """What is captured at a site whose axes are batch, position and one more; of `reduce`, where it is given."""

    def checked(x: Array) -> Array:
        if x.ndim != 3 or x.shape[:2] != tokens.shape:
            raise ValueError(f"{name}: where={where!r} holds {list(x.shape)}, not [batch position d] of these contexts")
        return x if reduce is None else reduce(x)

    return capture(f, {where: checked}, output=False)(model, tokens)[where]


def _taken(values: Array, columns: Array) -> Array:
    """`[... batch place d]` of `[... batch position d]`."""
    return values[..., jnp.arange(len(columns))[:, None], columns, :]


def _run(f: Any, metric: Any, where: str, model: Any, tokens: Array, columns: Array, values: Array, held: Any) -> Array:
    """The metric with `values` `[... batch place d]` at the columns, and what is held as it was."""
    rows = jnp.arange(len(columns))[:, None]
    if held is None:
        shape = (*values.shape[:-2], tokens.shape[1], values.shape[-1])
        around, mask = jnp.zeros(shape, values.dtype), jnp.zeros(tokens.shape, bool)
    else:
        around, mask = _captured("held", f, where, model, tokens), tokens_mask("held", held, tokens.shape)
    placed, mask = around.at[..., rows, columns, :].set(values), mask.at[rows, columns].set(True)
    return scores(metric, intervene(f, {where: at(replace(placed), mask=mask)})(model, tokens), len(tokens))


def tokens_mask(name: str, mask: Any, shape: tuple[int, ...]) -> Array:
    """A mask as bool `[batch position]`. Raises ValueError where it has not an entry for each token."""
    if jnp.shape(mask) not in (shape, shape[1:]):
        raise ValueError(
            f"{name}: is {list(jnp.shape(mask))}, wanted [{shape[1]}] or {list(shape)}, True or False a token"
        )
    return jnp.broadcast_to(jnp.asarray(mask, bool), shape)


def scores(metric: Metric, output: Any, n: int) -> Array:
    """A metric's value in float32. Raises ValueError where it has not a row for each of n examples."""
    score = jnp.asarray(metric(output), jnp.float32)
    if score.shape[:1] != (n,):
        raise ValueError(f"the metric gave {list(score.shape)} for {n} examples: it must give a row for each")
    return score
