"""Lorsa, low-rank sparse attention: many heads that each read and write one direction stand in for an attention layer.

    A_g = softmax(causal(rot(x W_Q,g) . rot(x W_K,g) / sqrt(d_qk))),    z_h(t) = sum_s A_g(h)(t, s) x_s . w_v,h + b_h
    f = ReLU(TopK(z)),    y' = W_dec f + b_dec,    rows of W_dec of unit norm
    loss = |y - y'|^2 + a aux    (see `reviving`)

Heads of a group share queries and keys, and so where they look. At each position the k heads are kept that write most.
He et al. 2025, Towards understanding the nature of attention with low-rank sparse decomposition,
https://arxiv.org/abs/2504.20938. Caveat: where a text is cached and goes on step by step it cannot be spliced in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Bool, Float, PRNGKeyArray

from interp_jax.core import Context
from interp_jax.dictionaries.kinds.arrays import (
    Inputs,
    Parameter,
    Scalar,
    Values,
    Whole,
    bias,
    check_sizes,
    random_rows,
    unit_rows,
)
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms, mean_square
from interp_jax.dictionaries.kinds.reviving import any_of_all, published_k_aux
from interp_jax.dictionaries.kinds.selecting import are_largest, at_indices
from interp_jax.dictionaries.kinds.topk_transcoder import TopKTranscoder

_OF_HEADS = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Lorsa(TopKTranscoder):
    """Sparse heads of an attention layer. Make one with `of_heads`, `create` or `dictionaries.load`.

    A feature is a head: its activation is what it carries to a position. It reads whole sequences, `[*batch position
    d_in]`, such as `blocks.2.ln1.normalized`, and writes `blocks.2.attn_out`.

    Attributes:
      W_enc: `[d_in d_sae]`, what each head carries of a key's position (`w_v`).
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_out]`, what it writes (`w_o`), rows of unit norm.
      b_dec: `[d_out]`.
      W_Q, W_K: `[group d_in d_qk]`; each group has as many heads, one after another.
      b_Q, b_K: `[group d_qk]`.
      k, k_aux, limit: as `TopK`'s.
      rope_theta: of the rotary angles of queries and keys, in pairs (i, i + d_qk/2); None: they know no positions.
    """

    W_Q: Parameter
    W_K: Parameter
    b_Q: Parameter
    b_K: Parameter
    rope_theta: float | None = field(default=None, metadata={"static": True})

    architecture: ClassVar[str] = "lorsa"
    reads_sequence: ClassVar[bool] = True
    pads: ClassVar[bool] = False  # a head's group is told by its number

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        k: Whole,
        *,
        n_groups: Whole,
        d_qk: Whole,
        d_out: Whole | None = None,
        k_aux: Whole | None = None,
        b_dec: Float[Values, " d_out"] | None = None,
        rope_theta: float | None = None,
    ) -> "Lorsa":
        """New heads with random directions; queries and keys are normal, of variance 1 where inputs' are.

        Args:
          key: for all of them.
          d_in: width of the inputs.
          d_sae: number of heads.
          k: active heads at a position.
          n_groups: how many queries and keys there are; divides `d_sae`.
          d_qk: their width.
          d_out: width of the outputs; `d_in` by default.
          k_aux: dead heads in the auxiliary loss; half of `d_out` by default.
          b_dec: `[d_out]`, best the mean of the targets; zero by default.
          rope_theta: as the model's, where its queries and keys are turned by their positions.

        Raises:
          ValueError: a size is not positive, more active heads than d_sae, groups that do not divide d_sae, or an odd
            `d_qk` that is to be turned.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> lorsa = dictionaries.Lorsa.create(jax.random.key(0), d_in=8, d_sae=32, k=4, n_groups=4, d_qk=6)
          >>> x = jax.random.normal(jax.random.key(1), (5, 7, 8))
          >>> lorsa.pattern(x).shape, lorsa.encode(x).shape, lorsa(x).shape
          ((5, 4, 7, 7), (5, 7, 32), (5, 7, 8))
        """
        d_out = d_in if d_out is None else d_out
        k_aux = published_k_aux(d_out, d_sae) if k_aux is None else k_aux
        sizes = {"d_in": d_in, "d_out": d_out, "d_sae": d_sae, "k": k, "k_aux": k_aux, "n_groups": n_groups}
        check_sizes(cls, ("k", "k_aux", "n_groups"), **sizes, d_qk=d_qk)
        if d_sae % n_groups:
            raise ValueError(f"Lorsa: n_groups={n_groups} does not divide d_sae={d_sae}: each has as many heads")
        if rope_theta is not None and d_qk % 2:
            raise ValueError(f"Lorsa: d_qk={d_qk} with rope_theta: pairs are turned; give an even one")
        encoder, decoder, query, other = jax.random.split(key, 4)
        W_enc, W_dec = random_rows(encoder, d_sae, d_in).T, random_rows(decoder, d_sae, d_out)
        W_Q, W_K = (jax.random.normal(one, (n_groups, d_in, d_qk)) / d_in**0.5 for one in (query, other))
        none = jnp.zeros((n_groups, d_qk))
        arrays = {"W_Q": W_Q, "W_K": W_K, "b_Q": none, "b_K": jnp.zeros_like(none)}
        made = {"k": k, "k_aux": k_aux, "rope_theta": rope_theta}
        return cls(W_enc, jnp.zeros(d_sae), W_dec, bias(b_dec, d_out), **arrays, **made)

    @classmethod
    def of_heads(
        cls,
        key: PRNGKeyArray,
        weights: Mapping[str, Any],
        layer: int,
        d_sae: Whole,
        k: Whole,
        *,
        n_groups: Whole | None = None,
        b_dec: Float[Values, " d_out"] | None = None,
        rope_theta: float | None = None,
    ) -> "Lorsa":
        """New heads that start where a model's own look, as the paper's do.

        Each group has the queries and keys of one of the model's heads. What a new head writes is a random direction of
        what that one can write, and it carries how much of it that one writes there. Norms of queries and keys, angles
        of a part of them, windows and caps of scores are not taken over: there heads start near the model's.

        Args:
          key: for the directions.
          weights: of the model, as `models.weights` has them; with `weights.fold_norms`, for what is read is
            `blocks.ln1.normalized`, before the norm's own weights.
          layer: whose heads they are.
          d_sae, k, b_dec, rope_theta: as in `create`; `rope_theta` is the model's.
          n_groups: a multiple of the model's heads; as many by default.

        Raises:
          ValueError: as `create`; groups that are no multiple of the model's heads.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries, models, weights
          >>> folded = weights.fold_norms(models.weights(models.load("microworld", dtype="float32")[0]))
          >>> key = jax.random.key(0)
          >>> lorsa = dictionaries.Lorsa.of_heads(key, folded, 2, d_sae=512, k=16, n_groups=8, rope_theta=1e4)
          >>> lorsa.W_Q.shape, lorsa.W_enc.shape
          ((8, 128, 32), (128, 512))
        """
        w = {name: weights[name][layer].astype(jnp.float32) for name in _OF_HEADS if name in weights}
        n_heads, d_in, d_qk = w["W_Q"].shape
        n: int = n_heads if n_groups is None else n_groups
        if n % n_heads:
            raise ValueError(f"Lorsa: n_groups={n} for {n_heads} heads of the model: give a multiple of them")
        fresh, mixed = jax.random.split(key)
        sizes = {"n_groups": n, "d_qk": d_qk, "d_out": w["W_O"].shape[-1]}
        made = cls.create(fresh, d_in, d_sae, k, **sizes, b_dec=b_dec, rope_theta=rope_theta)
        # Of each group the model's head, or the head of keys and values that this one shares with others.
        w = {name: x[jnp.arange(n) * len(x) // n] for name, x in w.items()}
        W_dec = unit_rows(jax.random.normal(mixed, (n, d_sae // n, d_qk)) @ w["W_O"])
        written = jnp.einsum("gvo,gho->gvh", w["W_O"], W_dec)
        arrays = {"W_enc": jnp.einsum("gdv,gvh->dgh", w["W_V"], written).reshape(d_in, d_sae)}
        if "b_V" in w:
            arrays["b_enc"] = jnp.einsum("gv,gvh->gh", w["b_V"], written).reshape(d_sae)
        looking = {name: w[name] for name in ("W_Q", "W_K", "b_Q", "b_K") if name in w}
        return replace(made, W_dec=W_dec.reshape(d_sae, -1), **arrays, **looking)

    @property
    def n_groups(self) -> int:
        return self.W_Q.shape[-3]

    @property
    def d_qk(self) -> int:
        return self.W_Q.shape[-1]

    @property
    def group(self) -> Any:
        """The group of each head, int32 `[d_sae]`."""
        return jnp.arange(self.d_sae, dtype=jnp.int32) // (self.d_sae // self.n_groups)

    def inputs(self, x: Inputs) -> Float[Array, "..."]:
        """`x` as an array of the dictionary's dtype, `[*batch position d_in]`.

        Raises:
          ValueError: its last axis is not d_in, or it is no sequence.
        """
        x = super().inputs(x)
        if x.ndim < 2:
            raise ValueError(f"Lorsa: inputs of shape {x.shape}: it reads sequences, [*batch position {self.d_in}]")
        return x

    def queries_and_keys(self, x: Inputs) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Queries and keys of each group, turned by their positions, `[*batch group position d_qk]` each."""
        x, sides = self.entering(self.inputs(x)), ((self.W_Q, self.b_Q), (self.W_K, self.b_K))
        q, k = (jnp.einsum("...pd,gde->...gpe", x, W) + b[:, None] for W, b in sides)
        return (q, k) if self.rope_theta is None else (_turned(q, self.rope_theta), _turned(k, self.rope_theta))

    def pattern(
        self, x: Inputs, real: Bool[Array, "*batch position"] | None = None
    ) -> Float[Array, "*batch group query key"]:
        """Where each group looks, `[*batch group query key]`; rows sum to 1.

        Args:
          x: `[*batch position d_in]`.
          real: bool `[*batch position]`, False at padding, which is not looked at; None: nothing is padding.
        """
        q, k = self.queries_and_keys(x)
        scores = jnp.einsum("...gqe,...gke->...gqk", q, k).astype(jnp.float32) / self.d_qk**0.5
        n = q.shape[-2]
        seen = jnp.tril(jnp.ones((n, n), bool))
        if real is not None:  # padding itself has only itself to look at
            seen = seen & (real[..., None, None, :] | jnp.eye(n, dtype=bool))
        scores = jnp.where(seen, scores, -jnp.inf)
        return jax.nn.softmax(scores, axis=-1).astype(q.dtype)

    def pre_activations(
        self, x: Inputs, pattern: Float[Array, "*batch group query key"] | None = None
    ) -> Float[Array, "*batch position d_sae"]:
        """What each head carries to each position, `[*batch position d_sae]`, given where groups look or by itself."""
        pattern = self.pattern(x) if pattern is None else pattern
        carried = self.entering(self.inputs(x)) @ self.W_enc
        each = carried.reshape(*carried.shape[:-1], self.n_groups, -1)
        return jnp.einsum("...gqk,...kgh->...qgh", pattern, each).reshape(carried.shape) + self.b_enc

    def encode_site(self, x: Inputs, ctx: Context) -> Float[Array, "*batch position d_sae"]:
        """As `Dictionary.encode_site`; what is padding is not looked at.

        Raises:
          ValueError: the text goes on step by step, and what came before is not there.
        """
        return self.activate(self.pre_activations(x, self.pattern_site(x, ctx)))

    def pattern_site(self, x: Inputs, ctx: Context) -> Float[Array, "*batch group query key"]:
        """`pattern` of what stands at a site of a model. Raises as `encode_site`."""
        if ctx.open_ended:
            raise ValueError(
                f"Lorsa: at {ctx.name!r} a text goes on step by step, and its heads look back: run whole sequences"
            )
        real = ctx.real(jnp.asarray(x))
        return self.pattern(x, None if real is None else real[..., 0])

    def loss(
        self,
        x: tuple[Float[Array, "*batch position d_in"], Float[Array, "*batch position d_out"]],
        context: LossContext,
    ) -> Terms:
        """Reconstruction of the targets and the auxiliary loss.

        Args:
          x: `(inputs [n position d_in], targets [n position d_out])`, whole sequences without padding.
          context: what training tells every loss.
        """
        inputs, targets = x
        pre = self.pre_activations(inputs)
        pre = pre.reshape(-1, self.d_sae)
        positive = jax.nn.relu(pre)
        k = self.k if self.limit is None else lax.stop_gradient(self.limit).astype(jnp.int32)
        kept = are_largest(lax.stop_gradient(self.ranked(positive)), k)
        features = jnp.where(kept, positive, jnp.zeros_like(positive))
        error = self.decode(features) - jnp.asarray(targets).astype(self.W_dec.dtype).reshape(-1, self.d_out)
        return loss_terms(error, features, context, aux=self._aux(pre, lax.stop_gradient(-error), context))

    def _aux(self, pre: Array, residual: Array, context: LossContext) -> Array:
        """The loss of what the dead heads that carry most, `[n d_sae]`, leave of `residual` `[n d_out]`."""
        if context.dead is None:
            return jnp.zeros(())

        def revive(pre: Array, residual: Array, dead: Array) -> Array:
            indices = lax.top_k(lax.stop_gradient(jnp.where(dead, pre, -jnp.inf)), self.k_aux)[1]
            values = jnp.take_along_axis(pre, indices, axis=-1)
            values = jnp.where(dead[indices], values, jnp.zeros_like(values))  # fewer dead heads than k_aux
            error = at_indices(values, indices, self.d_sae) @ self.W_dec - residual
            return jnp.where(jnp.any(dead), mean_square(error), 0.0)  # another's may be dead, under vmap

        args = pre, residual, context.dead
        return lax.cond(any_of_all(context.dead), revive, lambda *_: jnp.zeros(()), *args)

    def fold_scale(self, factor: Scalar, out: Scalar | None = None) -> Any:
        """The heads of `x` and `y` that do what these do with `factor * x` and `out * y`; they look where these do."""
        return replace(super().fold_scale(factor, out), W_Q=self.W_Q * factor, W_K=self.W_K * factor)


def _turned(x: Array, theta: float) -> Array:
    """Turns the pairs (i, i + d/2) of `[... position d]` by angles that grow with the position."""
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(x.shape[-2], dtype=jnp.float32)[:, None] * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
