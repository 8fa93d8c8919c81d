"""Cross-layer transcoder: features read at one layer and write to the MLP outputs of that and every later layer.

    a^l = JumpReLU(W_enc^l x^l + b_enc^l),    y'^l = sum over m <= l of W_dec^{m->l} a^m + b_dec^l
    loss = sum_l |y^l - y'^l|^2 + s sum_i tanh(c |W_dec,i| a_i),    |W_dec,i|: norm over all layers written to

Ameisen et al. 2025, Circuit tracing, transformer-circuits.pub.
Caveat: decoders to earlier layers are stored, as zeros, and have no gradient.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Inputs, Parameter, Scalar, Whole, check_sizes, root, unit_rows
from interp_jax.dictionaries.kinds.jumprelu import Thresholded, jump
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms, mean_sum


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CrossLayerTranscoder(Thresholded):
    """A cross-layer transcoder. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[layer d_in d_sae]`.
      b_enc: `[layer d_sae]`.
      W_dec: `[layer to_layer d_sae d_out]`, zero where `to_layer < layer`.
      b_dec: `[layer d_out]`.
      threshold: float32 `[layer d_sae]`, at least 0.
      bandwidth: float32 `[]`, width of the kernel of the straight-through gradients; it is not trained.
      c: steepness of the penalty.
    """

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter
    threshold: Parameter
    bandwidth: Parameter
    c: float = field(metadata={"static": True})

    architecture: ClassVar[str] = "clt"
    reads_pair = True
    event = ("layer", "d_in")
    # With c = 4, of the same penalty in a JumpReLU autoencoder: SAELens's example for inputs scaled as here
    # (docs/training_saes.md), after Anthropic's January 2025 update.
    sparsity_coefficient: ClassVar[float] = 5.0

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        *,
        n_layers: Whole,
        d_out: Whole | None = None,
        threshold: float = 0.03,
        bandwidth: float = 1.0,
        c: float = 4.0,
    ) -> "CrossLayerTranscoder":
        """A new transcoder: random unit encoder columns and decoder rows of norm 0.1.

        Args:
          key: for both.
          d_in: width of the inputs.
          d_sae: number of features of each layer.
          n_layers: how many layers there are.
          d_out: width of the outputs; `d_in` by default.
          threshold: where every threshold starts.
          bandwidth: of the straight-through gradients.
          c: steepness of the penalty.

        Raises:
          ValueError: a size is not positive.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> clt = dictionaries.CrossLayerTranscoder.create(jax.random.key(0), d_in=8, d_sae=32, n_layers=3)
          >>> features = clt.encode(jnp.ones((5, 3, 8)))
          >>> features.shape, clt.decode(features).shape
          ((5, 3, 32), (5, 3, 8))
        """
        d_out = d_in if d_out is None else d_out
        check_sizes(cls, d_in=d_in, d_sae=d_sae, n_layers=n_layers, d_out=d_out)
        encoder, decoder = jax.random.split(key)
        W_enc = jnp.swapaxes(unit_rows(jax.random.normal(encoder, (n_layers, d_sae, d_in))), -1, -2)
        W_dec = 0.1 * unit_rows(jax.random.normal(decoder, (n_layers, n_layers, d_sae, d_out)))
        made = cls(
            W_enc,
            jnp.zeros((n_layers, d_sae)),
            W_dec,
            jnp.zeros((n_layers, d_out)),
            jnp.full((n_layers, d_sae), threshold, jnp.float32),
            jnp.asarray(bandwidth, jnp.float32),
            c,
        )
        return replace(made, W_dec=made.causal())

    @property
    def n_layers(self) -> int:
        return self.W_enc.shape[-3]

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return (self.n_layers, self.d_sae)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.n_layers, self.d_in)

    def written_norms(self) -> Float[Array, "layer d_sae"]:
        """The norm of what each feature writes to all layers together, `[layer d_sae]`."""
        return root(jnp.sum(self.causal() ** 2, axis=(-3, -1)))

    def with_features_scaled(self, norms: Float[Array, "layer d_sae"]) -> Any:
        """Scales features as every kind does, whatever layers they write to."""
        W_dec = self.W_dec / norms[:, None, :, None]
        return replace(super().with_features_scaled(norms), W_dec=W_dec)

    def causal(self) -> Float[Array, "layer to_layer d_sae d_out"]:
        """`W_dec` with what writes to earlier layers put to zero."""
        forward = jnp.triu(jnp.ones((self.n_layers, self.n_layers), bool))[..., None, None]
        return jnp.where(forward, self.W_dec, jnp.zeros_like(self.W_dec))

    def pre_activations(self, x: Inputs) -> Float[Array, "*batch layer d_sae"]:
        """`W_enc^l x^l + b_enc^l` of every layer."""
        return jnp.einsum("...ld,ldf->...lf", self.inputs(x), self.W_enc) + self.b_enc

    def encode_layer(self, x: Inputs, layer: Any) -> Float[Array, "*batch d_sae"]:
        """The features of one layer, `[*batch d_sae]`, of what is read there, `[*batch d_in]`; int or int32 `[]`."""
        pre = jnp.asarray(x).astype(self.W_enc.dtype) @ self.W_enc[layer] + self.b_enc[layer]
        return jump(pre, self.threshold[layer], self.bandwidth)

    def decode_layer(self, features: Any, layer: int) -> Float[Array, "*batch d_out"]:
        """The output of one layer, `[*batch d_out]`, of the features of the layers up to it, `[*batch d_sae]` each."""
        return sum((one @ self.W_dec[m, layer] for m, one in enumerate(features)), self.b_dec[layer])

    def decode(self, features: Inputs) -> Float[Array, "*batch layer d_out"]:
        """The outputs of every layer `[*batch layer d_out]` from features `[*batch layer d_sae]`."""
        return jnp.einsum("...mf,mlfd->...ld", jnp.asarray(features), self.causal()) + self.b_dec

    def loss(
        self,
        x: tuple[Float[Array, "n layer d_in"], Float[Array, "n layer d_out"]],
        context: LossContext,
    ) -> Terms:
        """Reconstruction of the targets and the tanh penalty.

        Args:
          x: `(inputs [n layer d_in], targets [n layer d_out])`.
          context: what training tells every loss.
        """
        inputs, targets = x
        features = self.encode(inputs)
        penalty = mean_sum(jnp.tanh(self.c * self.written_norms() * features))
        error = self.decode(features) - targets.astype(self.b_dec.dtype)
        return loss_terms(error, features, context, sparsity=penalty)

    def fold_scale(
        self, factor: Scalar | Float[Array, " layer"], out: Scalar | Float[Array, " layer"] | None = None
    ) -> "CrossLayerTranscoder":
        """The transcoder of `x` and `y` that does what this one does with `factor * x` and `out * y`.

        Args:
          factor: `[]` or `[layer]`, of the inputs; features of a layer shrink by its factor.
          out: of the outputs; `factor` where it is not given.
        """
        inside, outside = (
            jnp.broadcast_to(jnp.asarray(value, self.W_dec.dtype), (self.n_layers,))
            for value in (factor, factor if out is None else out)
        )
        return replace(
            self,
            b_enc=self.b_enc / inside[:, None],
            W_dec=self.W_dec * (inside[:, None] / outside)[..., None, None],
            b_dec=self.b_dec / outside[:, None],
            threshold=self.threshold / inside[:, None],
            bandwidth=self.bandwidth / inside.mean(),
            mean_norm=None if self.mean_norm is None else self.mean_norm * (1 / inside).mean(),
        )

    def written_rows(self) -> Float[Array, "d_sae d"]:
        """What the features of the first layer write to all layers, side by side, `[d_sae to_layer*d_out]`."""
        return jnp.moveaxis(self.W_dec[0], -2, 0).reshape(self.d_sae, -1)
