"""The arrays of dictionaries: their rows, their norms, and the sizes that they may have."""

import operator
from typing import TYPE_CHECKING, Any

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

if TYPE_CHECKING:
    Whole = int
    Parameter = Array
else:
    Whole = int | np.integer
    Parameter = Any  # an array of a pytree, in whose place jax puts what it likes when it rebuilds one
Values = Array | np.ndarray
Inputs = Any  # what can be made an array: arrays of jax and numpy, nested lists
Scalar = Float[Array, ""] | float | int


def row_norms(rows: Float[Array, "*d_sae d"]) -> Float[Array, "*d_sae"]:
    """Norms of the rows."""
    return root(jnp.sum(rows**2, axis=-1))


def root(x: Float[Array, "*d"]) -> Float[Array, "*d"]:
    """The square root, whose gradient is 0 at 0, where a feature is not there or writes nothing."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, jnp.ones_like(x))), jnp.zeros_like(x))


def unit_rows(rows: Float[Array, "*d_sae d"]) -> Float[Array, "*d_sae d"]:
    """The rows scaled to unit norm."""
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-8)


def random_rows(key: Array, d_sae: Whole, d_in: Whole) -> Float[Array, "d_sae d_in"]:
    """Random rows of unit norm."""
    return unit_rows(jax.random.normal(key, (d_sae, d_in)))


def bias(value: Float[Values, " d"] | None, d: Whole) -> Float[Array, " d"]:
    """A bias in float32, zero by default."""
    return jnp.zeros(d) if value is None else jnp.asarray(value, jnp.float32)


def check_sizes(kind: type, within: tuple[str, ...] = (), **sizes: Any) -> None:
    """Raises ValueError if a size is no whole number, not positive, or one named in `within` larger than d_sae."""
    for name, size in sizes.items():
        try:
            operator.index(size)
        except TypeError:
            raise ValueError(f"{kind.__name__}: {name}={size!r} must be a whole number") from None
        if size < 1:
            raise ValueError(f"{kind.__name__}: {name}={size} must be at least 1")
        if name in within and size > sizes["d_sae"]:
            raise ValueError(f"{kind.__name__}: {name}={size} is larger than d_sae={sizes['d_sae']}; it must not be")
