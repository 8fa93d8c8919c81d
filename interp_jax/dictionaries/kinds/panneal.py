"""p-annealing: a ReLU sparse autoencoder whose penalty goes from L1 towards L0 as training goes on.

    f = ReLU(W_enc (x - b_dec) + b_enc),    loss = |x - x'|^2 + s c sum_i f_i^p,    rows of W_dec of unit norm
    p falls linearly from 1, at `start`, to `p_end`;    c, held constant, keeps the penalty as large as its L1

Karvonen et al. 2024, Measuring progress in dictionary learning, https://arxiv.org/abs/2408.00113.
Caveat: activations below 1e-3 are not pushed down, since the slope of f^p has no bound there. The paper rescales
the penalty each time that it lowers p, by the last batches; here c is the ratio in the batch itself.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Parameter, Scalar, Values, Whole, bias, check_sizes, random_rows
from interp_jax.dictionaries.kinds.base import Dictionary, SaeLensForm
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms, mean_sum

FLOOR = 1e-3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PAnneal(Dictionary):
    """A dictionary trained by p-annealing. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_in]`, rows of unit norm.
      b_dec: `[d_in]`.
      p_end: the last p.
      start: share of the run after which p starts to fall.
    """

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter
    p_end: float = field(metadata={"static": True})
    start: float = field(metadata={"static": True})

    architecture: ClassVar[str] = "panneal"
    unit_rows = True
    # 0.006 to 0.025 at E|x|^2 = 1 (github.com/adamkarvonen/dictionary_learning_demo, for d = 768 and 2304): the middle
    # of them, 0.012, times sqrt(d).
    sparsity_coefficient: ClassVar[float] = 0.5
    resampled_fields: ClassVar[tuple[str, ...]] = ("W_enc", "b_enc", "W_dec")

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        *,
        p_end: float = 0.2,
        start: float = 0.2,
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "PAnneal":
        """A new dictionary: random unit decoder rows, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs.
          d_sae: number of features.
          p_end: the last p, above 0 and at most 1.
          start: share of the run after which p starts to fall, from 0 and below 1.
          b_dec: `[d_in]`; zero by default.

        Raises:
          ValueError: a size is not positive, or p_end or start is out of range.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.PAnneal.create(jax.random.key(0), d_in=8, d_sae=32, p_end=0.5, start=0.5)
          >>> float(dictionary.p(0.25)), float(dictionary.p(1.0))
          (1.0, 0.5)
        """
        check_sizes(cls, d_in=d_in, d_sae=d_sae)
        if not (0 < p_end <= 1 and 0 <= start < 1):
            raise ValueError(f"PAnneal: p_end={p_end} must be in (0, 1] and start={start} in [0, 1)")
        W_dec = random_rows(key, d_sae, d_in)
        return cls(W_dec.T, jnp.zeros(d_sae), W_dec, bias(b_dec, d_in), p_end, start)

    def p(self, progress: Scalar) -> Float[Array, ""]:
        """The exponent of the penalty when a share `progress` of the run is over."""
        gone = jnp.clip((jnp.asarray(progress, jnp.float32) - self.start) / (1 - self.start), 0.0, 1.0)
        return 1 - (1 - self.p_end) * gone

    def loss(
        self,
        x: Float[Array, "n d_in"],
        context: LossContext,
    ) -> Terms:
        """Reconstruction and the annealed penalty."""
        features = self.encode(x)
        large = features.astype(jnp.float32)
        powers = mean_sum(jnp.where(large > FLOOR, jnp.maximum(large, FLOOR) ** self.p(context.progress), 0.0))
        scale = lax.stop_gradient(mean_sum(large) / jnp.maximum(powers, FLOOR))
        error = self.decode(features) - self.inputs(x)
        return loss_terms(error, features, context, sparsity=scale * powers)

    def to_sae_lens(self) -> SaeLensForm:
        """SAELens's standard."""
        return "standard", {"apply_b_dec_to_input": True}, self.fields_named("W_enc", "b_enc", "W_dec", "b_dec")
