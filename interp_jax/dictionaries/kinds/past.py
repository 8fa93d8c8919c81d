"""What a dictionary knows of the activations that it was trained on, and its static numbers as Python has them."""

from dataclasses import Field, dataclass, field, fields
from functools import lru_cache
import operator
from typing import Any, ClassVar

from jax import Array
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from interp_jax.dictionaries.kinds.arrays import Parameter, Whole

NORMALIZATIONS = ("none", "layer_norm")
EPS = 1e-5  # of the deviation, as in SAELens


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a dictionary knows of the activations that it was trained on; every kind has these fields.

    Attributes:
      sites: the address that it was trained at, the pair of a transcoder's, or None where nobody said.
      mean_norm: float32 `[]`, the mean norm of an input (of each site's); None where nobody measured it.
      normalization: "layer_norm" where each input is brought to mean 0 and deviation 1 before it is encoded, and its
        reconstruction back, as in SAELens and OpenAI's dictionaries; else "none".
      folded_norms: `[d_sae]`, decoder norms that `fold_decoder_norms` took away where the k largest are chosen, since
        they are chosen by what they were; None where there are none.
    """

    event: ClassVar[tuple[str, ...]] = ("d_in",)  # the names of the axes of one input

    sites: str | tuple[str, ...] | None = field(default=None, metadata={"static": True})
    mean_norm: Parameter | None = None
    normalization: str = field(default="none", metadata={"static": True})
    folded_norms: Parameter | None = None

    def __post_init__(self) -> None:
        for name, whole in _static(type(self)):
            value = getattr(self, name)
            plain = _plain(value)
            if whole and plain is not None and not isinstance(plain, int):
                raise ValueError(f"{type(self).__name__}: {name}={plain!r} must be a whole number")
            if plain is not value:
                object.__setattr__(self, name, plain)
        known = NORMALIZATIONS if self.event == ("d_in",) else NORMALIZATIONS[:1]
        if self.normalization not in known:
            raise ValueError(
                f"{type(self).__name__}: normalization={self.normalization!r}; it takes {', '.join(known)}"
            )

    def with_norms_folded(self, norms: Float[Array, "*features"]) -> Float[Array, "*features"]:
        """`folded_norms` together with further ones."""
        return norms if self.folded_norms is None else self.folded_norms * norms

    def ranked(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """By what the k largest of pre-activations are chosen: by what they were before decoder norms were folded."""
        return pre if self.folded_norms is None else pre / self.folded_norms


@lru_cache
def _static(kind: type) -> tuple[tuple[str, bool], ...]:
    """The static fields of a kind, and whether each is a whole number."""
    static = [f for f in fields(kind) if is_static(f)]
    return tuple((f.name, f.type in (int, Whole, Whole | None)) for f in static)


def is_static(field: Field[Any]) -> bool:
    """Whether a field is a static part of its pytree, and no array."""
    return bool(field.metadata.get("static"))


def _plain(value: Any) -> Any:
    """A static value as Python has it: numpy's and jax's numbers cannot be written as JSON, nor some be hashed."""
    if isinstance(value, tuple | list):
        plain = tuple(map(_plain, value))
        return value if isinstance(value, tuple) and all(map(operator.is_, plain, value)) else plain
    return value.item() if isinstance(value, np.generic | np.ndarray | Array) and not value.ndim else value


def past(dictionary: Past) -> dict[str, Any]:
    """The fields of `Past`, for a dictionary of another kind that does what this one does."""
    return {f.name: getattr(dictionary, f.name) for f in fields(Past)}


def moments(x: Float[Array, "*batch d"]) -> tuple[Float[Array, "*batch 1"], Float[Array, "*batch 1"]]:
    """The mean and the (sample) deviation of each vector, `[*batch 1]` each, as SAELens takes them."""
    shift = x.mean(-1, keepdims=True)
    variance = jnp.sum((x - shift) ** 2, axis=-1, keepdims=True) / max(1, x.shape[-1] - 1)
    return shift, jnp.sqrt(jnp.maximum(variance, jnp.finfo(x.dtype).tiny))
