"""The activations of the units of several sites on a batch of text: one program for all of them."""

from typing import Any

import jax
from jax import Array
import jax.numpy as jnp
import numpy as np

from interp_jax.core import capture


def activations(
    names: tuple[str, ...], arrays: Any, model: Any, tokens: Array, options: dict[str, Array], counts: Array
) -> tuple[Array, ...]:
    """What units do on a batch, 0 where a token does not count: float32 `[*units token]` of each name.

    Args:
      names: an address each, or several joined by a comma.
      arrays: `f`, and a dictionary or None for each name.
      model, tokens, options: what `f` is called with.
      counts: bool `[batch position]`.

    Raises:
      ValueError: a site is not one vector for each token, or has another width than its dictionary.
    """
    f, dictionaries = arrays
    addresses = dict.fromkeys(address for name in names for address in _addresses(name))
    flat = {address: _Flat(address, tokens.shape) for address in addresses}
    captured = capture(f, flat, output=False)(model, tokens, **options)
    found = []
    for name, dictionary in zip(names, dictionaries, strict=True):
        values = [captured[address] for address in _addresses(name)]
        x = values[0] if len(values) == 1 else jnp.stack(values)
        units = x if dictionary is None else _features(name, dictionary, x)
        units = jnp.moveaxis(units, (-3, -2), (-2, -1)) if dictionary is None else jnp.moveaxis(units, (0, 1), (-2, -1))
        units = jnp.where(counts, units.astype(jnp.float32), 0.0)
        found.append(units.reshape(*units.shape[:-2], -1))
    return tuple(found)


def firing(values: Any, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Units, places and values of what is above 0 in `[*units token]`, of which the first token stands at `first`.

    Raises:
      FloatingPointError: something is not finite.
    """
    dense = np.asarray(values)
    dense = dense.reshape(-1, dense.shape[-1])
    if not np.isfinite(dense.max(initial=0.0)):
        raise FloatingPointError(
            "record: an activation is not finite; check the model and the dictionary, or load them in float32"
        )
    units, at = np.divmod(np.flatnonzero(dense.reshape(-1) > 0), dense.shape[1])
    return units, at + first, dense[units, at]


def _addresses(name: str) -> list[str]:
    return [address.strip() for address in name.split(",")]


@jax.tree_util.register_static
class _Flat:
    """A reducer: the value of one layer `[batch position *vector]` as `[batch position d]`."""

    def __init__(self, address: str, shape: tuple[int, ...]):
        self.address, self.shape = address, shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Flat) and (self.address, self.shape) == (other.address, other.shape)

    def __hash__(self) -> int:
        return hash((self.address, self.shape))

    def __call__(self, value: Array) -> Array:
        if value.ndim < 3 or value.shape[:2] != self.shape:
            raise ValueError(
                f"record: {self.address!r} gives {list(value.shape)} for tokens {list(self.shape)}, not one vector for "
                "each token; name a site with the axes batch, position and one or two more, such as blocks.0.resid_post"
            )
        return value.reshape(*self.shape, -1)


def _features(name: str, dictionary: Any, x: Array) -> Array:
    """The features `[batch position *features]` of a site's values, `[batch position d]` or with layers first."""
    if x.ndim == 4:
        x = jnp.moveaxis(x, 0, 2)
    if x.shape[2:] != dictionary.input_shape:
        raise ValueError(
            f"record: {name!r} gives {list(x.shape[2:])} a token for a {type(dictionary).__name__} of inputs "
            f"{list(dictionary.input_shape)}; it was trained at another site or model"
        )
    return dictionary.encode(x)
