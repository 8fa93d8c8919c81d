"""JumpReLU sparse autoencoder: each feature has its own threshold, trained against the number of active features.

    f = z H(z - theta),  z = W_enc x + b_enc,  theta >= 0
    loss = |x - x'|^2 + s sum_i H(z_i - theta_i)
    df/dtheta = -(theta / e) K((z - theta) / e),    dH/dtheta = -(1 / e) K((z - theta) / e),    K(u) = [|u| < 1/2]

Rajamanoharan et al. 2024, Jumping ahead, https://arxiv.org/abs/2407.14435.
Caveat: the paper trains log theta. Adam moves a parameter by about the learning rate a step, so that theta then moves
by theta times it and is hardly learned (SAELens's change 718); here theta itself is the parameter, float32 always.
The straight-through gradients go to the threshold alone.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Parameter, Values, Whole, bias, check_sizes, random_rows
from interp_jax.dictionaries.kinds.base import Dictionary, SaeLensForm
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms, mean_sum

THRESHOLD, BANDWIDTH = 0.1, 0.2  # where thresholds start, and the kernel's width, for inputs with E|x| = sqrt(d)


@jax.custom_vjp
def jump(
    z: Float[Array, "*batch d_sae"], threshold: Float[Array, "*d_sae"], bandwidth: Float[Array, ""]
) -> Float[Array, "*batch d_sae"]:
    """`z` where it is above the threshold, else 0, with the straight-through gradient for the threshold.

    Thresholds are float32, and compared in it, whatever the dtype of `z`.

    Example:
      >>> import jax.numpy as jnp
      >>> jump(jnp.array([0.4, 0.6]), jnp.array([0.5, 0.5]), jnp.array(0.1)).tolist()
      [0.0, 0.6000000238418579]
    """
    return jnp.where(_above(z, threshold), z, jnp.zeros_like(z))


@jax.custom_vjp
def step(
    z: Float[Array, "*batch d_sae"], threshold: Float[Array, "*d_sae"], bandwidth: Float[Array, ""]
) -> Float[Array, "*batch d_sae"]:
    """1 where `z` is above the threshold, else 0, with the straight-through gradient for the threshold alone."""
    return _above(z, threshold).astype(jnp.float32)


def _above(z: Array, threshold: Array) -> Array:
    return z.astype(threshold.dtype) > threshold


def _near(g: Array, z: Array, threshold: Array, bandwidth: Array) -> Array:
    """The kernel's mean of `g` around each threshold, summed over the batch, in the thresholds' dtype and shape."""
    near = jnp.abs(z.astype(threshold.dtype) - threshold) < 0.5 * bandwidth
    summed = jnp.sum(jnp.where(near, g.astype(threshold.dtype), 0), axis=tuple(range(z.ndim - threshold.ndim)))
    return summed / bandwidth


def _jump_bwd(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    z, threshold, bandwidth = saved
    dz = jnp.where(_above(z, threshold), g, jnp.zeros_like(g))
    return dz, -threshold * _near(g, *saved), jnp.zeros_like(bandwidth)


def _step_bwd(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    z, _, bandwidth = saved
    return jnp.zeros_like(z), -_near(g, *saved), jnp.zeros_like(bandwidth)


jump.defvjp(lambda *args: (jump(*args), args), _jump_bwd)
step.defvjp(lambda *args: (step(*args), args), _step_bwd)


class Thresholded(Dictionary):
    """What dictionaries with a trained threshold for each feature have in common.

    Attributes:
      threshold: float32 `[*features]`, at least 0.
      bandwidth: float32 `[]`, width of the kernel of the straight-through gradients; it is not trained.
    """

    apply_b_dec_to_input = False
    in_units: ClassVar[tuple[str, ...]] = ("b_enc", "b_dec", "threshold", "bandwidth")
    precise: ClassVar[tuple[str, ...]] = ("threshold", "bandwidth")

    threshold: Parameter
    bandwidth: Parameter

    def activate(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """The pre-activations above their thresholds; the others are zero."""
        return jump(pre, self.threshold, lax.stop_gradient(self.bandwidth))

    def stepped(self, terms: dict[str, Array]) -> Any:
        """Keeps the rows at unit norm, where the kind has it so, and thresholds at 0 or above."""
        return replace(self.normalized(), threshold=jnp.maximum(self.threshold, 0))

    def with_features_scaled(self, norms: Float[Array, "*features"]) -> Any:
        """Scales features as every kind does, and their thresholds."""
        return replace(super().with_features_scaled(norms), threshold=self.threshold * norms)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class JumpReLU(Thresholded):
    """A JumpReLU dictionary. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_in]`, rows of unit norm.
      b_dec: `[d_in]`.
      threshold: float32 `[d_sae]`, at least 0.
      bandwidth: float32 `[]`, width of the kernel of the straight-through gradients; it is not trained.
    """

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter
    threshold: Parameter
    bandwidth: Parameter

    architecture: ClassVar[str] = "jumprelu"
    unit_rows = True
    # For inputs with E|x| = sqrt(d): above 1 the thresholds rise as fast as Adam lets them, whatever the weight, and
    # below 0.001 they fall to 0 (experiments/sparsity_sweep.py); SAELens's 5 belongs to thresholds that hardly move.
    sparsity_coefficient: ClassVar[float] = 0.3

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        *,
        threshold: float = THRESHOLD,
        bandwidth: float = BANDWIDTH,
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "JumpReLU":
        """A new dictionary: random unit decoder rows, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs.
          d_sae: number of features.
          threshold: where every threshold starts, in the units of the inputs.
          bandwidth: of the straight-through gradients, in the same units.
          b_dec: `[d_in]`; zero by default.

        Raises:
          ValueError: a size, the threshold or the bandwidth is not positive.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.JumpReLU.create(jax.random.key(0), d_in=8, d_sae=32, threshold=0.5)
          >>> features = dictionary.encode(jnp.ones((5, 8)))
          >>> bool(features[features > 0].min() > 0.5)
          True
        """
        check_sizes(cls, d_in=d_in, d_sae=d_sae)
        for name, value in {"threshold": threshold, "bandwidth": bandwidth}.items():
            if not value > 0:
                raise ValueError(f"JumpReLU: {name}={value} must be positive")
        W_dec = random_rows(key, d_sae, d_in)
        starts = jnp.full(d_sae, threshold, jnp.float32), jnp.asarray(bandwidth, jnp.float32)
        return cls(W_dec.T, jnp.zeros(d_sae), W_dec, bias(b_dec, d_in), *starts)

    def loss(
        self,
        x: Float[Array, "n d_in"],
        context: LossContext,
    ) -> Terms:
        """Reconstruction and the number of active features."""
        pre = self.pre_activations(x)
        features = self.activate(pre)
        n_active = mean_sum(step(pre, self.threshold, self.bandwidth))
        error = self.decode(features) - self.inputs(x)
        return loss_terms(error, features, context, sparsity=n_active)

    def to_sae_lens(self) -> SaeLensForm:
        """As `Dictionary.to_sae_lens`."""
        return (
            "jumprelu",
            {"apply_b_dec_to_input": False},
            self.fields_named("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
        )
