"""Non-negative matrix factorisation: inputs are sums, never differences, of non-negative rows.

    x - b_dec ~ W_dec f,    W_dec, f >= 0,    rows of W_dec of unit norm;    b_dec: the least value in each dimension
    f = argmin_{f >= 0} |x - b_dec - W_dec f|^2,    by accelerated projected gradient steps, restarted where they rise

Lee and Seung 1999, Learning the parts of objects; in the code of Cunningham et al. 2023,
https://arxiv.org/abs/2309.08600; the steps are those of O'Donoghue and Candes 2015, https://arxiv.org/abs/1204.3982.
Caveat: above d_in rows the best f is not unique. Rows that are nearly parallel need more steps.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
from jax import Array, lax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray

from interp_jax.dictionaries.kinds.arrays import Inputs, Parameter, Whole, check_sizes, unit_rows
from interp_jax.dictionaries.kinds.baselines.base import Baseline, fitted_inputs, seed


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NMF(Baseline):
    """A non-negative factorisation. Make one with `create` or `dictionaries.load`.

    Attributes:
      W_dec: `[d_sae d_in]`, non-negative rows of unit norm.
      b_dec: `[d_in]`, the least value of each dimension in the inputs of the fit.
      k: how many features are active for an input; all that are positive where it is None.
      n_steps: how many steps the encoder takes.
    """

    W_dec: Parameter
    b_dec: Parameter
    k: Whole | None = field(metadata={"static": True})
    n_steps: int = field(metadata={"static": True})

    architecture: ClassVar[str] = "nmf"

    @classmethod
    def create(
        cls,
        key: PRNGKeyArray,
        d_in: Whole,
        d_sae: Whole,
        *,
        x: Inputs,
        k: Whole | None = None,
        n_steps: int = 500,
        max_iter: int = 1000,
    ) -> "NMF":
        """d_sae non-negative rows for inputs, by scikit-learn in float64.

        Args:
          key: for the start of the fit.
          d_in: width of the inputs.
          d_sae: number of rows.
          x: `[n d_in]`, float32 or bfloat16, of any sign: its least value is taken away in each dimension.
          k: active features for an input, those largest; all that are positive by default.
          n_steps: steps of the encoder.
          max_iter: iterations after which the fit stops, with scikit-learn's ConvergenceWarning.

        Raises:
          ValueError: a size is not positive, k is larger than d_sae, or x is not finite or not `[n d_in]`.

        Example:
          >>> import jax
          >>> from interp_jax import dictionaries
          >>> x = jax.random.exponential(jax.random.key(1), (50, 8))
          >>> dictionary = dictionaries.NMF.create(jax.random.key(0), d_in=8, d_sae=3, x=x)
          >>> bool((dictionary.encode(x) >= 0).all())
          True
        """
        from sklearn.decomposition import NMF as Fit

        exact = fitted_inputs(cls, x, d_in, d_sae, k)
        check_sizes(cls, n_steps=n_steps)
        least = exact.min(0)
        fit = Fit(d_sae, max_iter=max_iter, random_state=seed(key))  # pyright: ignore[reportArgumentType]
        fit.fit(exact - least)
        return cls(unit_rows(jnp.asarray(fit.components_, jnp.float32)), jnp.asarray(least, jnp.float32), k, n_steps)

    @property
    def W_enc(self) -> Float[Array, "*stack d_in d_sae"]:
        """The rows' transpose, of which the encoder's gradients are made."""
        return jnp.swapaxes(self.W_dec, -1, -2)

    def pre_activations(self, x: Inputs) -> Float[Array, "*batch d_sae"]:
        """The non-negative coefficients `[*batch d_sae]` that reconstruct `x` best, before k of them are chosen."""
        x = self.inputs(x)
        return nonnegative_least_squares(x - self.b_dec, self.W_dec, self.n_steps).astype(x.dtype)


def nonnegative_least_squares(
    targets: Float[Array, "*batch d"], rows: Float[Array, "d_sae d"], n_steps: int
) -> Float[Array, "*batch d_sae"]:
    """The non-negative weights of rows whose sum is nearest to each target, in float32 at least.

    Args:
      targets: `[*batch d]`.
      rows: `[d_sae d]`, of any sign.
      n_steps: how many steps to take.

    Returns:
      `[*batch d_sae]`.

    Example:
      >>> import jax.numpy as jnp
      >>> nonnegative_least_squares(jnp.array([[2.0, -1.0]]), jnp.eye(2), 10).tolist()
      [[2.0, 0.0]]
    """
    dtype = rows.dtype if jnp.finfo(rows.dtype).bits >= 32 else jnp.float32  # half precision stops far from it
    targets, rows = targets.astype(dtype), rows.astype(dtype)
    with jax.default_matmul_precision("highest"):
        gram, linear = rows @ rows.T, targets @ rows.T
        bound = jnp.max(jnp.sum(jnp.abs(gram), axis=-1))  # on the largest eigenvalue
        rate = lax.stop_gradient(1.0 / jnp.maximum(bound, jnp.finfo(dtype).tiny))

        def step(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
            now, ahead, t = carry
            after = jax.nn.relu(ahead - rate * (ahead @ gram - linear))
            rising = jnp.sum((ahead - after) * (after - now), axis=-1, keepdims=True) > 0
            t_after = jnp.where(rising, 1.0, 0.5 + jnp.sqrt(0.25 + t**2))
            momentum = jnp.where(rising, 0.0, (t - 1.0) / t_after)
            return (after, after + momentum * (after - now), t_after), None

        start = jnp.zeros_like(linear)
        carry = (start, start, jnp.ones_like(linear[..., :1]))
        return lax.scan(step, carry, length=n_steps)[0][0]
