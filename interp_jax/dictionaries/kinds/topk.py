"""TopK sparse autoencoder: exactly k features are active for each input.

    f = ReLU(TopK(W_enc (x - b_dec) + b_enc)),    x' = W_dec f + b_dec,    rows of W_dec of unit norm
    loss = |x - x'|^2 + a aux    (see `reviving`)

Gao et al. 2024, Scaling and evaluating sparse autoencoders, https://arxiv.org/abs/2406.04093.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, Int, PRNGKeyArray

from interp_jax.dictionaries.kinds import sparse
from interp_jax.dictionaries.kinds.arrays import Inputs, Parameter, Values, Whole, bias, check_sizes, random_rows
from interp_jax.dictionaries.kinds.base import Dictionary, SaeLensForm
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms
from interp_jax.dictionaries.kinds.reviving import aux_loss, published_k_aux
from interp_jax.dictionaries.kinds.selecting import are_largest, at_indices, positive_largest, within_limit


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TopK(Dictionary):
    """A TopK dictionary: a pytree of float32 arrays. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_in]`, rows of unit norm.
      b_dec: `[d_in]`.
      k: how many features are active for an input.
      k_aux: how many dead features the auxiliary loss uses.
      limit: `[]`, how many of the k are kept, where `train_many` trains several k in one program; None keeps all.
    """

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter
    k: Whole = field(metadata={"static": True})
    k_aux: Whole = field(metadata={"static": True})
    limit: Parameter | None = None

    architecture: ClassVar[str] = "topk"
    unit_rows = True
    counts: ClassVar[tuple[str, ...]] = ("k", "k_aux")

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        k: Whole,
        *,
        k_aux: Whole | None = None,
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "TopK":
        """A new dictionary: random unit decoder rows, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs.
          d_sae: number of features.
          k: active features for an input.
          k_aux: dead features in the auxiliary loss; half of `d_in` by default, as in the paper.
          b_dec: `[d_in]`, best the mean of the inputs; zero by default.

        Returns:
          A `TopK` of float32 arrays.

        Raises:
          ValueError: a size is not positive, or k or k_aux is larger than d_sae.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
          >>> features = dictionary.encode(jnp.ones((5, 8)))
          >>> features.shape, dictionary.decode(features).shape
          ((5, 32), (5, 8))
        """
        k_aux = published_k_aux(d_in, d_sae) if k_aux is None else k_aux
        check_sizes(cls, ("k", "k_aux"), d_in=d_in, d_sae=d_sae, k=k, k_aux=k_aux)
        W_dec = random_rows(key, d_sae, d_in)
        return cls(W_dec.T, jnp.zeros(d_sae), W_dec, bias(b_dec, d_in), k=k, k_aux=k_aux)

    def encode_sparse(self, x: Inputs) -> tuple[Float[Array, "*batch k"], Int[Array, "*batch k"]]:
        """The k active features: their values in falling order and their indices, both `[*batch k]`."""
        pre = self.pre_activations(x)
        return positive_largest(pre, self.ranked(pre), self.k, self.limit)

    def activate(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """The k largest pre-activations, those of them that are positive; the others are zero."""
        return at_indices(*positive_largest(pre, self.ranked(pre), self.k, self.limit), self.d_sae)

    def decode_sparse(
        self, values: Float[Array, "*batch k"], indices: Int[Array, "*batch k"]
    ) -> Float[Array, "*batch d_out"]:
        """Reconstruction `[*batch d_out]` from the values and indices `[*batch k]` of active features."""
        k = values.shape[-1]
        rows = sparse.weighted_rows(values.reshape(-1, k), indices.reshape(-1, k), self.W_dec)
        return rows.reshape(*values.shape[:-1], self.W_dec.shape[-1]) + self.b_dec

    def with_features_scaled(self, norms: Float[Array, " d_sae"]) -> Any:
        """Scales features as every kind does; which of them are the k largest stays as it is."""
        return replace(super().with_features_scaled(norms), folded_norms=self.with_norms_folded(norms))

    def loss(
        self,
        x: Float[Array, "n d_in"],
        context: LossContext,
    ) -> Terms:
        """Reconstruction and the auxiliary loss; on a CPU the gradient costs what the active features cost."""
        return self.loss_of_pair(x, x, context)

    def loss_of_pair(self, x: Inputs, targets: Inputs, context: LossContext) -> Terms:
        """The loss of reconstructing `targets` `[n d_out]`, which may be `x`, from `x` `[n d_in]`."""
        x, targets = self.inputs(x), jnp.asarray(targets).astype(self.W_dec.dtype)
        error, features, pre, fired = (self._sparse if jax.default_backend() == "cpu" else self._dense)(x, targets)
        aux = aux_loss(self, self.k_aux, x, pre, lax.stop_gradient(-error), context)
        loss, terms = loss_terms(error, features, context, aux=aux)
        return loss, terms | {"fired": fired}

    def to_sae_lens(self) -> SaeLensForm:
        """SAELens's topk."""
        if self.folded_norms is not None:
            raise ValueError(
                f"save: SAELens has no form of a {type(self).__name__} whose decoder norms were folded, since its k "
                "largest are chosen by what they were before; save it before folding, or use format='orbax'"
            )
        options = {"apply_b_dec_to_input": True, "k": self.k, "rescale_acts_by_decoder_norm": False}
        return "topk", options, self.fields_named("W_enc", "b_enc", "W_dec", "b_dec")

    def _sparse(self, x: Array, targets: Array) -> tuple[Array, Array, Array, Array]:
        """The error, the values of the active features, pre-activations and what fired, through these k alone."""
        pre = lax.stop_gradient(self.pre_activations(x))
        indices = lax.top_k(self.ranked(pre), self.k)[1]
        bound = None if self.limit is None else sparse.largest(lax.stop_gradient(self.limit))
        centered = x - self.b_dec if self.apply_b_dec_to_input else x
        values = sparse.selected(pre, indices, centered, self.W_enc, self.b_enc, bound)
        values = jax.nn.relu(within_limit(values, self.limit))
        error = sparse.weighted_rows(values, indices, self.W_dec, bound) + self.b_dec - targets
        return error, values, pre, jnp.zeros(self.d_sae, bool).at[indices].max(values > 0)

    def _dense(self, x: Array, targets: Array) -> tuple[Array, Array, Array, Array]:
        """The same by whole products: on an accelerator a sort and gathers take longer than they do."""
        pre = self.pre_activations(x)
        positive = jax.nn.relu(pre)
        k = self.k if self.limit is None else lax.stop_gradient(self.limit).astype(jnp.int32)
        kept = are_largest(lax.stop_gradient(self.ranked(positive)), k)
        features = jnp.where(kept, positive, jnp.zeros_like(positive))
        return self.decode(features) - targets, features, lax.stop_gradient(pre), jnp.any(features > 0, axis=0)
