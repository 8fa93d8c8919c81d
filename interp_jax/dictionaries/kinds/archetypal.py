"""Archetypal sparse autoencoder: every decoder row is near the convex hull of data points, which makes it stable.

    W_dec = softmax(logits) points + R,    |R_i| <= delta    (delta = 0: A-SAE; above: the relaxed RA-SAE)
    features and loss as in TopK

Fel et al. 2025, Archetypal SAE, https://arxiv.org/abs/2502.12892.
Caveat: the points are not trained. The paper's rows of the simplex are a ReLU over its sum; softmax is as
differentiable everywhere. Its code starts every seed at the same points, which alone makes two seeds agree
(https://arxiv.org/abs/2606.02061); here a key chooses them, so that `stability` compares what training has found.
"""

from dataclasses import dataclass, field, replace
import math
from typing import ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Parameter, Values, Whole, bias, check_sizes, unit_rows
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.kinds.past import past
from interp_jax.dictionaries.kinds.reviving import published_k_aux
from interp_jax.dictionaries.kinds.selecting import at_indices, positive_largest
from interp_jax.dictionaries.kinds.topk import TopK

START = 0.05  # weight of the point where a row starts, among many: nearer to 1, the softmax hardly lets go of it


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Archetypal(Dictionary):
    """An archetypal dictionary. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      logits: `[d_sae n_points]`, of the weights of the points.
      relaxation: `[d_sae d_in]`, cut to norm `delta` where it is used.
      points: `[n_points d_in]`, data or centroids; they are not trained.
      b_dec: `[d_in]`.
      k: how many features are active for an input.
      delta: how far a row may be from the hull.
      limit: as `TopK`'s.
    """

    W_enc: Parameter
    b_enc: Parameter
    logits: Parameter
    relaxation: Parameter
    points: Parameter
    b_dec: Parameter
    k: Whole = field(metadata={"static": True})
    delta: float = field(metadata={"static": True})
    limit: Parameter | None = None

    architecture: ClassVar[str] = "archetypal"
    counts: ClassVar[tuple[str, ...]] = ("k",)

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        k: Whole,
        *,
        points: Float[Values, "n_points d_in"],
        delta: float = 0.0,
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "Archetypal":
        """A new dictionary: each row starts near the points' mean, towards one of them; the encoder at that one.

        Args:
          key: chooses the points where the rows start.
          d_in: width of the inputs.
          d_sae: number of features.
          k: active features for an input.
          points: `[n_points d_in]`, data less `b_dec` or, better, their centroids; more of them than features.
          delta: how far a row may be from the hull; 0 is the A-SAE.
          b_dec: `[d_in]`; zero by default.

        Raises:
          ValueError: a size is not positive, k is larger than d_sae, the points have another width, or delta < 0.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> points = jax.random.normal(jax.random.key(1), (40, 8))
          >>> dictionary = dictionaries.Archetypal.create(jax.random.key(0), 8, 32, 4, points=points, delta=0.1)
          >>> dictionary.W_dec.shape
          (32, 8)
        """
        check_sizes(cls, ("k",), d_in=d_in, d_sae=d_sae, k=k)
        if points.ndim != 2 or points.shape[-1] != d_in or delta < 0:
            raise ValueError(
                f"Archetypal: points of shape {tuple(points.shape)} and delta={delta}; "
                f"they must be [n_points {d_in}] and at least 0"
            )
        points = jnp.asarray(points, jnp.float32)
        # Of all points, so that two seeds start apart; each once before any is taken again.
        shuffled = jax.random.permutation(key, len(points))
        chosen = shuffled[jnp.arange(d_sae) % len(points)]
        ahead = max(1.0, math.log(START / (1 - START) * max(1, len(points) - 1)))
        logits = ahead * jax.nn.one_hot(chosen, len(points))
        W_enc = unit_rows(points[chosen]).T
        return cls(
            W_enc, jnp.zeros(d_sae), logits, jnp.zeros((d_sae, d_in)), points, bias(b_dec, d_in), k, float(delta)
        )

    @property
    def W_dec(self) -> Float[Array, "d_sae d_in"]:
        """`[d_sae d_in]`, made from the points."""
        norms = jnp.sqrt(jnp.maximum(jnp.sum(self.relaxation**2, axis=-1, keepdims=True), 1e-12))
        within = self.relaxation * jnp.minimum(1.0, self.delta / norms).astype(norms.dtype)
        return jax.nn.softmax(self.logits, axis=-1) @ lax.stop_gradient(self.points) + within

    @property
    def d_sae(self) -> int:
        return self.W_enc.shape[-1]

    def with_features_scaled(self, norms: Float[Array, " d_sae"]) -> TopK:
        """Scales features as every kind does, as a `TopK`, since its rows are no longer made from the points."""
        k_aux = published_k_aux(self.d_in, self.d_sae)
        plain = TopK(self.W_enc, self.b_enc, self.W_dec, self.b_dec, self.k, k_aux, self.limit)
        return replace(plain, **past(self)).with_features_scaled(norms)

    def activate(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """The k largest pre-activations, those of them that are positive; the others are zero."""
        return at_indices(*positive_largest(pre, pre, self.k, self.limit), self.d_sae)
