"""Edge probes: what a sentence's layers know of its spans, and at which layers they know it.

    h = gamma * sum over layers l of s_l h_l,  s = softmax(a)             the scalar mix, a weight for each layer
    z = sum over the span's tokens of softmax(w . t) t,  t = W h + b      the span, pooled by its own attention
    logits = W_out tanh(W_hidden [z_1, z_2] + b_hidden) + b_out           of one span or of a pair of them

Tenney et al. 2019, "What do you learn from context?", arXiv:1905.06316, and "BERT rediscovers the classical NLP
pipeline", arXiv:1905.05950: the centre of gravity, sum of l s_l, and the expected layer, sum of l D_l / sum of D_l with
D_l = score(0..l) - score(0..l-1) over l >= 1, where score(0..l) is that of a probe that may mix the layers 0 to l.
Theirs has a sigmoid for each label, layer norm and dropout; here an item has one label, and a softmax over all.
Caveat: a mix of layers of unequal size weighs size too: put them on one scale first. A probe finds what is there to be
read, not what the model uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import ArrayLike, Float, Int
import numpy as np

from interp_jax.runs import check_counts

PARAMETERS = ("a", "gamma", "W", "b", "w_pool", "W_hidden", "b_hidden", "W_out", "b_out")


class Edges(NamedTuple):
    """Sentences with labelled spans.

    Attributes:
      x: float `[layer sentence position d_model]`: the embeddings as layer 0, then what each block gives on.
      spans: int `[sentence item span 2]`, columns start to stop, stop not included; one span an item, or two.
      labels: int `[sentence item]`; -1 where a sentence has no more items.
    """

    x: Any
    spans: Any
    labels: Any


@partial(jax.tree_util.register_dataclass, data_fields=[*PARAMETERS, "seen"], meta_fields=[])
@dataclass(frozen=True)
class EdgeProbe:
    """An edge probe. It is a pytree; `prefixes` makes a stack of them, whose leaves have a leading axis.

    Attributes:
      a: float32 `[layer]`, the mix before its softmax; `gamma`: `[]`, its scale.
      W, b, w_pool: `[span d_model d_proj]`, `[span d_proj]`, `[span d_proj]`: projection and pooling of each span.
      W_hidden, b_hidden: `[span*d_proj d_hidden]`, `[d_hidden]`; None of a linear classifier.
      W_out, b_out: `[d_hidden n_labels]`, `[n_labels]`.
      seen: bool `[layer]`, the layers that it may mix.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import probes
      >>> probe = probes.EdgeProbe.create(jax.random.key(0), n_layers=3, d_model=8, n_labels=4, n_spans=2)
      >>> x, spans = jnp.ones((3, 5, 7, 8)), jnp.tile(jnp.array([[0, 2], [4, 5]]), (5, 6, 1, 1))
      >>> probe(x, spans).shape, probe.mix().tolist()
      ((5, 6, 4), [0.3333333432674408, 0.3333333432674408, 0.3333333432674408])
    """

    a: Any
    gamma: Any
    W: Any
    b: Any
    w_pool: Any
    W_hidden: Any
    b_hidden: Any
    W_out: Any
    b_out: Any
    seen: Any

    @classmethod
    def create(
        cls,
        key: Array,
        n_layers: int,
        d_model: int,
        n_labels: int,
        *,
        n_spans: int = 1,
        d_proj: int = 128,
        d_hidden: int | None = 128,
    ) -> "EdgeProbe":
        """A probe that mixes all layers alike.

        Args:
          key: a jax PRNG key.
          n_layers: how many layers are mixed, the embeddings counted as one.
          d_model: of the model.
          n_labels: how many labels there are.
          n_spans: 1, or 2 for items that are pairs of spans.
          d_proj: to which size a token is projected.
          d_hidden: of the classifier; None for a linear one.

        Raises:
          ValueError: a size below 1, or fewer than two labels.
        """
        check_counts(n_layers=n_layers, d_model=d_model, n_spans=n_spans, d_proj=d_proj, d_hidden=d_hidden)
        if n_labels < 2:
            raise ValueError(f"EdgeProbe.create: n_labels={n_labels}: one class tells nothing; give two or more")
        draw = jax.nn.initializers.lecun_normal()
        first, pool, hidden, out = jax.random.split(key, 4)
        d_pooled = n_spans * d_proj
        return cls(
            a=jnp.zeros(n_layers),
            gamma=jnp.ones(()),
            W=jax.vmap(lambda key: draw(key, (d_model, d_proj)))(jax.random.split(first, n_spans)),
            b=jnp.zeros((n_spans, d_proj)),
            w_pool=jax.random.normal(pool, (n_spans, d_proj)) * d_proj**-0.5,
            W_hidden=None if d_hidden is None else draw(hidden, (d_pooled, d_hidden)),
            b_hidden=None if d_hidden is None else jnp.zeros(d_hidden),
            W_out=draw(out, (d_hidden or d_pooled, n_labels)),
            b_out=jnp.zeros(n_labels),
            seen=jnp.ones(n_layers, bool),
        )

    def mix(self) -> Float[Typed, "*prefix layer"]:
        """The weights of the layers, `softmax(a)` over those that the probe may see."""
        return jax.nn.softmax(jnp.where(self.seen, self.a, -jnp.inf), axis=-1)

    def __call__(
        self, x: Float[ArrayLike, "layer sentence position d_model"], spans: Int[ArrayLike, "sentence item span two"]
    ) -> Float[Typed, "sentence item n_labels"]:
        """The logits of every item, in float32. What stands where a sentence has no item has no meaning.

        Args:
          x, spans: as in `Edges`.

        Raises:
          ValueError: layers, width or spans are not those of this probe.
        """
        x, spans = jnp.asarray(x), jnp.asarray(spans)
        n_layers, (n_spans, d_model, _) = self.a.shape[-1], self.W.shape[-3:]
        if (x.shape[0], x.shape[-1], *spans.shape[2:]) != (n_layers, d_model, n_spans, 2):
            raise ValueError(
                f"EdgeProbe: x {list(x.shape)} and spans {list(spans.shape)}, wanted [{n_layers}, sentence, position, "
                f"{d_model}] and [sentence, item, {n_spans}, 2]"
            )
        mixed = jnp.einsum("l,lnpm->npm", self.gamma * self.mix(), x.astype(jnp.float32))
        return jax.vmap(self._sentence)(mixed, spans)

    def _sentence(self, x: Array, spans: Array) -> Array:
        """`[position d_model]` and `[item span 2]` to logits `[item n_labels]`."""
        position = jnp.arange(len(x), dtype=spans.dtype)
        inside = (position >= spans[..., :1]) & (position < spans[..., 1:])
        tokens = jnp.einsum("pm,smd->spd", x, self.W) + self.b[:, None]
        scores = jnp.einsum("spd,sd->sp", tokens, self.w_pool)
        # not -inf: a place without an item has an empty span, whose softmax would be NaN
        weights = jax.nn.softmax(jnp.where(inside, scores, jnp.finfo(jnp.float32).min), axis=-1)
        pooled = jnp.einsum("isp,spd->isd", weights, tokens).reshape(len(spans), -1)
        if self.W_hidden is not None:
            pooled = jnp.tanh(pooled @ self.W_hidden + self.b_hidden)
        return pooled @ self.W_out + self.b_out


def prefixes(probe: EdgeProbe) -> EdgeProbe:
    """A stack of copies of a probe, one for each layer l, which may mix the layers 0 to l: the last one is the probe.

    Example:
      >>> import jax
      >>> from interp_jax import probes
      >>> stack = probes.prefixes(probes.EdgeProbe.create(jax.random.key(0), n_layers=2, d_model=8, n_labels=4))
      >>> stack.mix().tolist()
      [[1.0, 0.0], [0.5, 0.5]]
    """
    n_layers = len(probe.a)
    stack: Any = jax.tree.map(lambda x: jnp.broadcast_to(x, (n_layers, *x.shape)), probe)
    return replace(stack, seen=jnp.tri(n_layers, dtype=bool) & probe.seen)


def edge_scores(probe: EdgeProbe, edges: Edges, *, chunk: int = 64) -> Float[Typed, "*prefix"]:
    """The accuracy of a probe, or of each of a stack of `prefixes`, over all items.

    Args:
      probe: a probe, or a stack.
      edges: sentences with labelled spans.
      chunk: how many sentences are read at once.

    Raises:
      ValueError: as `check_edges`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import probes
      >>> edges = probes.Edges(jnp.ones((2, 3, 5, 8)), jnp.array([[[[1, 3]]]] * 3), jnp.zeros((3, 1), int))
      >>> probe = probes.EdgeProbe.create(jax.random.key(0), n_layers=2, d_model=8, n_labels=4)
      >>> probes.edge_scores(probes.prefixes(probe), edges).shape
      (2,)
    """
    check_counts(chunk=chunk)
    check_edges(edges, probe.W_out.shape[-1])
    parts = [
        _right(probe, Edges(edges.x[:, at : at + chunk], edges.spans[at : at + chunk], edges.labels[at : at + chunk]))
        for at in range(0, len(edges.labels), chunk)
    ]
    right, n = (sum(part[i] for part in parts) for i in (0, 1))
    return jnp.asarray(right, jnp.float32) / jnp.asarray(n, jnp.float32)


@jax.jit
def _right(probe: EdgeProbe, edges: Edges) -> tuple[Array, Array]:
    """How many items are told rightly, `[*prefix]`, and how many there are."""

    def of_one(probe: EdgeProbe) -> Array:
        return ((probe(edges.x, edges.spans).argmax(-1) == edges.labels) & (edges.labels >= 0)).sum()

    right = of_one(probe) if probe.a.ndim == 1 else lax.map(of_one, probe)
    return right, (edges.labels >= 0).sum()


def check_edges(edges: Edges, n_labels: int) -> None:
    """Raises ValueError where sentences, spans and labels do not fit one another, or a label is none of `n_labels`."""
    x, spans, labels = np.shape(edges.x), np.asarray(edges.spans), np.asarray(edges.labels)
    if len(x) != 4 or spans.shape[:1] != x[1:2] or spans.ndim != 4 or spans.shape[-1] != 2:
        raise ValueError(
            f"edges: x {list(x)} and spans {list(spans.shape)}: wanted [layer, sentence, position, d_model] and "
            "[sentence, item, span, 2]"
        )
    if labels.shape != spans.shape[:2]:
        raise ValueError(f"edges: labels {list(labels.shape)} for spans {list(spans.shape)}: give each item one label")
    if labels.size and not -1 <= labels.min() <= labels.max() < n_labels:
        raise ValueError(
            f"edges: labels {labels.min()} to {labels.max()}, wanted 0 to {n_labels - 1}, or -1 for no item"
        )
    if not (labels >= 0).any():
        raise ValueError("edges: no item has a label; give sentences with labelled spans")
    wrong = (labels[..., None] >= 0) & ~(
        (0 <= spans[..., 0]) & (spans[..., 0] < spans[..., 1]) & (spans[..., 1] <= x[2])
    )
    for sentence, item, span in np.argwhere(wrong)[:1]:
        start, stop = spans[sentence, item, span]
        raise ValueError(
            f"edges: the span {start} to {stop} (sentence {sentence}, item {item}) is empty or outside its sentence of "
            f"{x[2]} positions"
        )


def centre_of_gravity(mix: Float[ArrayLike, "*axes layer"]) -> Float[Typed, "*axes"]:
    """The mean layer of a mix, the sum of `l s_l`.

    >>> import jax.numpy as jnp
    >>> from interp_jax import probes
    >>> float(probes.centre_of_gravity(jnp.array([0.5, 0.0, 0.5])))
    1.0
    """
    weights = jnp.asarray(mix)
    return weights @ jnp.arange(weights.shape[-1], dtype=weights.dtype)


def expected_layer(scores: Float[ArrayLike, "*axes prefix"] | Sequence[float]) -> Float[Typed, "*axes"]:
    """The mean layer at which items come to be told rightly, `sum of l D_l / sum of D_l` over layers l from 1 on.

    Args:
      scores: of the probes of `prefixes`, which may mix the layers 0 to l.

    Returns:
      A layer; NaN where the layers above the embeddings give no gain at all, so that there is nothing to share out.
      As the paper has it, a layer that makes the score worse counts with its negative gain.

    Raises:
      ValueError: fewer than two scores.

    Example:
      >>> from interp_jax import probes
      >>> float(probes.expected_layer([0.25, 0.5, 0.5, 0.75]))  # half of the gain at layer 1, half at layer 3
      2.0
    """
    values = jnp.asarray(scores, jnp.float32)
    if not values.ndim or values.shape[-1] < 2:
        raise ValueError(f"expected_layer: scores {list(values.shape)}: give one for each layer, two or more")
    gains = jnp.diff(values)
    total = gains.sum(-1)
    layers = jnp.arange(1, values.shape[-1], dtype=jnp.float32)
    return jnp.where(total > 0, gains @ layers / jnp.where(total > 0, total, 1), jnp.nan)
