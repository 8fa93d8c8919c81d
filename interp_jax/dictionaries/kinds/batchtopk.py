"""BatchTopK sparse autoencoder: the n k largest activations of a batch of n are kept, few here and many there.

    training:   f = the n k largest of ReLU(W_enc (x - b_dec) + b_enc) over the whole batch
    inference:  f = z H(z - theta),    theta = mean of the smallest kept activation over the last steps
    loss = |x - x'|^2 + a aux    (see `reviving`)

Bussmann et al. 2024, BatchTopK sparse autoencoders, https://arxiv.org/abs/2412.06410.
Caveat: the batch is the global one, so that one sharded over devices gives what one device gives. Activations that
tie with the smallest kept one are kept too. A running mean of constant rate is full of its start for hundreds of steps;
this one is over the last tenth of the steps, until these are a hundred.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Parameter, Values, Whole, bias, check_sizes, random_rows
from interp_jax.dictionaries.kinds.base import Dictionary, SaeLensForm
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms
from interp_jax.dictionaries.kinds.reviving import aux_loss, published_k_aux
from interp_jax.dictionaries.kinds.selecting import nth_largest

RATE = 0.01  # of the running mean in the end
SHARE = 9  # the first steps' rate is (1 + SHARE) / (step + SHARE), so that it reaches over some tenth of them


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BatchTopK(Dictionary):
    """A BatchTopK dictionary. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_in]`, rows of unit norm.
      b_dec: `[d_in]`.
      threshold: float32 `[]`, of inference; below 0 before the first step. `[d_sae]` where decoder norms were folded.
      k: mean number of active features of an input.
      k_aux: how many dead features the auxiliary loss uses.
      limit: `[]`, the k of this one, where `train_many` trains several k in one program; None where it is `k`.
    """

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter
    threshold: Parameter
    k: Whole = field(metadata={"static": True})
    k_aux: Whole = field(metadata={"static": True})
    limit: Parameter | None = field(default=None, kw_only=True)

    architecture: ClassVar[str] = "batchtopk"
    unit_rows = True
    counts: ClassVar[tuple[str, ...]] = ("k", "k_aux")
    in_units: ClassVar[tuple[str, ...]] = ("b_enc", "b_dec", "threshold")
    precise: ClassVar[tuple[str, ...]] = ("threshold",)

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
    ) -> "BatchTopK":
        """A new dictionary: random unit decoder rows, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs.
          d_sae: number of features.
          k: mean number of active features of an input.
          k_aux: dead features in the auxiliary loss; half of `d_in` by default.
          b_dec: `[d_in]`; zero by default.

        Raises:
          ValueError: a size is not positive, or k or k_aux is larger than d_sae.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.BatchTopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
          >>> state = dictionaries.TrainState.create(dictionary, n_steps=10)
          >>> state, info = dictionaries.train_step(state, jax.random.normal(jax.random.key(1), (64, 8)))
          >>> float(info.l0), bool(state.dictionary.threshold > 0)
          (4.0, True)
        """
        k_aux = published_k_aux(d_in, d_sae) if k_aux is None else k_aux
        check_sizes(cls, ("k", "k_aux"), d_in=d_in, d_sae=d_sae, k=k, k_aux=k_aux)
        W_dec = random_rows(key, d_sae, d_in)
        return cls(W_dec.T, jnp.zeros(d_sae), W_dec, bias(b_dec, d_in), jnp.array(-1.0), k, k_aux)

    def activate(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """The pre-activations above the threshold; the others are zero."""
        return jnp.where(pre.astype(self.threshold.dtype) > self.threshold, jax.nn.relu(pre), jnp.zeros_like(pre))

    def largest_of_batch(self, pre: Float[Array, "n d_sae"]) -> Float[Array, "n d_sae"]:
        """The features of training: the n k largest positive pre-activations of the batch."""
        positive = jax.nn.relu(pre)
        k = self.k if self.limit is None else lax.stop_gradient(self.limit).astype(jnp.int32)
        ranks = lax.stop_gradient(self.ranked(positive))
        return jnp.where(ranks >= nth_largest(ranks, pre.shape[0] * k), positive, jnp.zeros_like(pre))

    def loss(
        self,
        x: Float[Array, "n d_in"],
        context: LossContext,
    ) -> Terms:
        """Reconstruction and the auxiliary loss.

        The terms also have `"smallest"`, the smallest kept activation, infinite where none is kept.
        """
        loss, terms, _ = self.loss_and_features(x, context)
        return loss, terms

    def loss_and_features(
        self, x: Float[Array, "n d_in"], context: LossContext
    ) -> tuple[Float[Array, ""], dict[str, Array], Float[Array, "n d_sae"]]:
        """The loss, its terms, and the features `[n d_sae]` of training."""
        x = self.inputs(x)
        pre = self.pre_activations(x)
        features = self.largest_of_batch(pre)
        error = self.decode(features) - x
        aux = aux_loss(self, self.k_aux, x, lax.stop_gradient(pre), lax.stop_gradient(-error), context)
        loss, terms = loss_terms(error, features, context, aux=aux)
        smallest = jnp.min(lax.stop_gradient(self.ranked(features)), where=features > 0, initial=jnp.inf)
        return loss, terms | {"smallest": smallest}, features

    def stepped(self, terms: dict[str, Array]) -> Any:
        """Keeps the rows at unit norm, and the running mean of the smallest kept activation."""
        smallest, norms = terms["smallest"].astype(self.threshold.dtype), self.folded_norms
        smallest = smallest if norms is None else smallest * norms
        kept = jnp.where(jnp.isfinite(smallest), smallest, self.threshold)
        gone = terms.get("step", jnp.array((1 + SHARE) / RATE)).astype(jnp.float32)  # by default the last rate
        rate = jnp.clip((1 + SHARE) / (gone + 1 + SHARE), RATE, 1.0)
        mean = jnp.where(self.threshold < 0, kept, (1 - rate) * self.threshold + rate * kept)
        return replace(self.normalized(), threshold=mean)

    def with_features_scaled(self, norms: Float[Array, " d_sae"]) -> Any:
        """Scales features as every kind does; which of them are active stays as it is."""
        folded = replace(super().with_features_scaled(norms), folded_norms=self.with_norms_folded(norms))
        return replace(folded, threshold=self.threshold * norms)

    def to_sae_lens(self) -> SaeLensForm:
        """SAELens's jumprelu, which is what it does in inference."""
        threshold = jnp.broadcast_to(jnp.maximum(self.threshold, 0), self.b_enc.shape)
        arrays = self.fields_named("W_enc", "b_enc", "W_dec", "b_dec") | {"threshold": threshold}
        return "jumprelu", {"apply_b_dec_to_input": True}, arrays
