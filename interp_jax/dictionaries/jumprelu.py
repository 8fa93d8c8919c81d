"""JumpReLU sparse autoencoder: each feature has its own threshold, trained against the number of active features.

    f = z H(z - theta),  z = W_enc x + b_enc,  theta = exp(log_threshold)
    loss = |x - x'|^2 + s sum_i H(z_i - theta_i)
    df/dtheta = -(theta / e) K((z - theta) / e),    dH/dtheta = -(1 / e) K((z - theta) / e),    K(u) = [|u| < 1/2]

Rajamanoharan et al. 2024, Jumping ahead, https://arxiv.org/abs/2407.14435.
Caveat: the paper's bandwidth e = 0.001 and first threshold belong to inputs with E|x|^2 = 1; the defaults here are
those times sqrt(d_in), for inputs with E|x| = sqrt(d_in). The straight-through gradients go to the threshold alone.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Bool, Float, PRNGKeyArray

from interp_jax.dictionaries.dictionary import (
    Dictionary,
    Scalar,
    Terms,
    Values,
    bias,
    check_sizes,
    mean_sum,
    random_rows,
    total,
    with_fields,
)


@jax.custom_vjp
def jump(
    z: Float[Array, "*batch d_sae"], threshold: Float[Array, "*d_sae"], bandwidth: Float[Array, ""]
) -> Float[Array, "*batch d_sae"]:
    """`z` where it is above the threshold, else 0, with the straight-through gradient for the threshold.

    Example:
      >>> import jax.numpy as jnp
      >>> jump(jnp.array([0.4, 0.6]), jnp.array([0.5, 0.5]), jnp.array(0.1)).tolist()
      [0.0, 0.6000000238418579]
    """
    return jnp.where(z > threshold, z, jnp.zeros_like(z))


@jax.custom_vjp
def step(
    z: Float[Array, "*batch d_sae"], threshold: Float[Array, "*d_sae"], bandwidth: Float[Array, ""]
) -> Float[Array, "*batch d_sae"]:
    """1 where `z` is above the threshold, else 0, with the straight-through gradient for the threshold alone."""
    return (z > threshold).astype(z.dtype)


def _kernel(z: Array, threshold: Array, bandwidth: Array) -> Array:
    return (jnp.abs((z - threshold) / bandwidth) < 0.5).astype(z.dtype) / bandwidth


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    return jnp.sum(x, axis=tuple(range(x.ndim - len(shape))))


def _jump_bwd(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    z, threshold, bandwidth = saved
    dz = jnp.where(z > threshold, g, jnp.zeros_like(g))
    return dz, _sum_to(-threshold * _kernel(*saved) * g, threshold.shape), jnp.zeros_like(bandwidth)


def _step_bwd(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    z, threshold, bandwidth = saved
    return jnp.zeros_like(z), _sum_to(-_kernel(*saved) * g, threshold.shape), jnp.zeros_like(bandwidth)


jump.defvjp(lambda *args: (jump(*args), args), _jump_bwd)
step.defvjp(lambda *args: (step(*args), args), _step_bwd)


class Thresholded(Dictionary):
    """What dictionaries with a trained threshold for each feature have in common.

    Attributes:
      log_threshold: `[*d_sae]`.
      bandwidth: `[]`, width of the kernel of the straight-through gradients; it is not trained.
    """

    apply_b_dec_to_input = False
    in_units: ClassVar[tuple[str, ...]] = ("b_enc", "b_dec", "bandwidth")

    log_threshold: Any
    bandwidth: Any

    @property
    def threshold(self) -> Float[Array, "*d_sae"]:
        """`[*d_sae]`, positive."""
        return jnp.exp(self.log_threshold)

    def activate(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """The pre-activations above their thresholds; the others are zero."""
        return jump(pre, self.threshold, lax.stop_gradient(self.bandwidth))

    def fold_scale(self, factor: Scalar) -> Any:
        """As every dictionary's, thresholds included."""
        folded = super().fold_scale(factor)
        return with_fields(folded, log_threshold=self.log_threshold - jnp.log(factor))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class JumpReLU(Thresholded):
    """A JumpReLU dictionary. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_enc: `[d_in d_sae]`.
      b_enc: `[d_sae]`.
      W_dec: `[d_sae d_in]`, rows of unit norm.
      b_dec: `[d_in]`.
      log_threshold: `[d_sae]`.
      bandwidth: `[]`, width of the kernel of the straight-through gradients; it is not trained.
    """

    W_enc: Any
    b_enc: Any
    W_dec: Any
    b_dec: Any
    log_threshold: Any
    bandwidth: Any

    architecture: ClassVar[str] = "jumprelu"
    unit_rows = True
    # SAELens's example for inputs scaled as here (docs/training_saes.md).
    sparsity_coefficient: ClassVar[float] = 5.0

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: int,
        d_sae: int,
        *,
        threshold: float | None = None,
        bandwidth: float | None = None,
        b_dec: Float[Values, " d_in"] | None = None,
    ) -> "JumpReLU":
        """A new dictionary: random unit decoder rows, the encoder their transpose.

        Args:
          key: for the decoder rows.
          d_in: width of the inputs.
          d_sae: number of features.
          threshold: where every threshold starts, in the units of the inputs; 0.001 sqrt(d_in) by default.
          bandwidth: of the straight-through gradients, in the same units; 0.001 sqrt(d_in) by default.
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
        published = 0.001 * d_in**0.5
        theta = published if threshold is None else threshold
        width = published if bandwidth is None else bandwidth
        for name, value in {"threshold": theta, "bandwidth": width}.items():
            if not value > 0:
                raise ValueError(f"JumpReLU: {name}={value} must be positive")
        W_dec = random_rows(key, d_sae, d_in)
        starts = jnp.full(d_sae, jnp.log(theta)), jnp.asarray(width, jnp.float32)
        return cls(W_dec.T, jnp.zeros(d_sae), W_dec, bias(b_dec, d_in), *starts)

    def loss(
        self,
        x: Float[Array, "n d_in"],
        dead: Bool[Array, " d_sae"],
        aux_coefficient: Scalar = 0.0,
        sparsity_coefficient: Scalar = 0.0,
        progress: Scalar = 0.0,
    ) -> Terms:
        """Reconstruction and the number of active features; `dead`, `aux_coefficient`, `progress` are not used."""
        pre = self.pre_activations(x)
        features = self.activate(pre)
        n_active = mean_sum(step(pre, self.threshold, self.bandwidth))
        error = self.decode(features) - self.inputs(x)
        return total(error, features, sparsity=n_active, sparsity_coefficient=sparsity_coefficient)
