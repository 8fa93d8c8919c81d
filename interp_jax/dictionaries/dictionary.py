"""What every dictionary has in common: widths, the affine encoder and decoder, the terms of its loss.

    x' = W_dec f + b_dec,    loss = |x - x'|^2 + a aux + s sparsity    (means over the batch of sums over features)

An architecture adds its activation, its own loss and `create`. Sites with a head axis are flattened to head d_head.
"""

from dataclasses import replace
import operator
from typing import Any, ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Bool, Float
import numpy as np

from interp_jax.dictionaries.past import EPS, Past, Whole, moments

Values = Array | np.ndarray
Inputs = Any  # what can be made an array: arrays of jax and numpy, nested lists
Scalar = Float[Array, ""] | float | int
Terms = tuple[Float[Array, ""], dict[str, Array]]


class Dictionary(Past):
    """The face that every architecture shares; arrays are named `W_enc`, `b_enc`, `W_dec` and `b_dec`.

    Attributes:
      architecture: its name in a checkpoint.
      apply_b_dec_to_input: whether `b_dec` is taken from the input before it is encoded.
      unit_rows: whether training keeps the rows of `W_dec` at unit norm.
      reads_pair: whether it reads one site and reconstructs another, so that a batch is a pair.
      event: the names of the axes of one input.
      in_units: the arrays that are measured in the units of the inputs, such as biases and thresholds.
      precise: the arrays that stay float32 whatever the dtype of the others, since they move by less than it holds.
      sparsity_coefficient: the published weight of the sparsity term, for inputs with E|x| = sqrt(d).
      resampled_fields: the arrays of a feature that `resample` starts again; none where it has no form of it.
    """

    architecture: ClassVar[str]
    apply_b_dec_to_input = True
    unit_rows = False
    reads_pair: ClassVar[bool] = False
    in_units: ClassVar[tuple[str, ...]] = ("b_enc", "b_dec")
    precise: ClassVar[tuple[str, ...]] = ()
    sparsity_coefficient: ClassVar[float] = 0.0
    resampled_fields: ClassVar[tuple[str, ...]] = ()

    W_enc: Any
    b_enc: Any
    W_dec: Any
    b_dec: Any

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[-2]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[-2]

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one input's features."""
        return (self.d_sae,)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return (self.d_in,)

    def inputs(self, x: Inputs) -> Float[Array, "..."]:
        """`x` `[*batch d_in]` as an array of the dictionary's dtype; an axis of heads is flattened.

        Args:
          x: an array or nested lists, `[*batch d_in]`, or `[*batch head d_head]` with at least one axis of a batch.

        Raises:
          ValueError: its last axes are not those of one input.
        """
        x, d_in = jnp.asarray(x), self.d_in
        heads = x.ndim > 2 and x.shape[-1] != d_in and x.shape[-2] * x.shape[-1] == d_in
        if not heads and x.shape[-1:] != (d_in,):
            one = f"; if it is one input with {x.shape[0]} heads, give x.reshape(-1)" if x.size == d_in else ""
            raise ValueError(
                f"{type(self).__name__}: inputs of shape {x.shape} for a dictionary with d_in={d_in}; "
                f"it was trained at another site or model{one}"
            )
        return (x.reshape(*x.shape[:-2], d_in) if heads else x).astype(self.W_dec.dtype)

    def entering(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """What is encoded of inputs: themselves, or at mean 0 and deviation 1 (`normalization`)."""
        if self.normalization == "none":
            return x
        shift, scale = moments(x)
        return (x - shift) / (scale + EPS)

    def pre_activations(self, x: Inputs) -> Float[Array, "*batch d_sae"]:
        """`W_enc (x - b_dec) + b_enc`, or without `b_dec` where the architecture has it so.

        Raises:
          ValueError: the last axis of `x` is not d_in.
        """
        x = self.entering(self.inputs(x))
        return (x - self.b_dec if self.apply_b_dec_to_input else x) @ self.W_enc + self.b_enc

    def activate(self, pre: Float[Array, "*batch d_sae"]) -> Float[Array, "*batch d_sae"]:
        """The features that pre-activations become, `ReLU(pre)` by default; in inference, where training differs."""
        return jax.nn.relu(pre)

    def encode(self, x: Inputs) -> Float[Array, "*batch d_sae"]:
        """Features `[*batch d_sae]` of inputs `[*batch d_in]`, in the dictionary's dtype."""
        return self.activate(self.pre_activations(x))

    def decode(self, features: Inputs) -> Float[Array, "*batch d_out"]:
        """Reconstruction `[*batch d_in]` from features `[*batch d_sae]`."""
        return jnp.asarray(features) @ self.W_dec + self.b_dec

    def output(self, x: Inputs, features: Inputs) -> Float[Array, "..."]:
        """What features stand for where the input was `x`: `decode`, and what goes around the features.

        That is a transcoder's skip, and the mean and deviation of each input under `normalization`.
        """
        decoded = self.decode(features)
        if self.normalization == "none":
            return decoded
        shift, scale = moments(self.inputs(x))
        return decoded * scale + shift

    def __call__(self, x: Inputs) -> Float[Array, "..."]:
        """Reconstruction of `x`, in its shape and dtype; integers are computed with in the dictionary's dtype."""
        x = jnp.asarray(x)
        out = self.output(x, self.encode(x))
        out = out if self.reads_pair else out.reshape(x.shape)
        return out.astype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else out.dtype)

    def loss(
        self,
        x: Any,
        dead: Bool[Array, "*features"],
        aux_coefficient: Scalar = 0.0,
        sparsity_coefficient: Scalar = 0.0,
        progress: Scalar = 0.0,
    ) -> Terms:
        """The training loss of a batch: by default the reconstruction alone.

        Args:
          x: `[n d_in]`; a pair of inputs and targets for a transcoder.
          dead: `[d_sae]`, the features that an auxiliary loss is to revive.
          aux_coefficient: its weight, where there is one.
          sparsity_coefficient: the weight of the sparsity term, where there is one.
          progress: share of the run that is over, for what is annealed.

        Returns:
          The loss and its terms, see `total`.
        """
        features = self.encode(x)
        return total(self.decode(features) - self.inputs(x), features)

    def tangent(self, gradient: Any) -> Any:
        """The gradient without its part along each decoder row, where the unit norm would undo it."""
        if not self.unit_rows:
            return gradient
        along = jnp.sum(gradient.W_dec * self.W_dec, axis=-1, keepdims=True)
        return with_fields(gradient, W_dec=gradient.W_dec - along * self.W_dec)

    def cast(self, dtype: Any) -> Any:
        """The dictionary in a dtype, but for what is `precise`, and stays float32."""
        new = jax.tree.map(lambda leaf: leaf.astype(dtype), self)
        return with_fields(new, **{name: getattr(self, name).astype(jnp.float32) for name in self.precise})

    def normalized(self) -> Any:
        """The dictionary with its decoder rows scaled back to unit norm, where training keeps them so."""
        return with_fields(self, W_dec=unit_rows(self.W_dec)) if self.unit_rows else self

    def stepped(self, terms: dict[str, Array]) -> Any:
        """The dictionary after a gradient step whose loss had these terms: constraints and running means."""
        return self.normalized()

    def fold_scale(self, factor: Scalar) -> Any:
        """The dictionary of `x` that does what this one does with `factor * x`; features shrink by `factor` too.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> scaled = dictionaries.TopK.create(jax.random.key(0), 8, 32, 4)
          >>> x = jax.random.normal(jax.random.key(1), (5, 8))
          >>> bool(jnp.allclose(scaled.fold_scale(10.0)(x), scaled(10.0 * x) / 10.0, atol=1e-5))
          True
        """
        norm = None if self.mean_norm is None else self.mean_norm / factor
        if self.normalization == "layer_norm":  # which takes any scale away
            return with_fields(self, mean_norm=norm)
        return with_fields(self, mean_norm=norm, **{name: getattr(self, name) / factor for name in self.in_units})

    def decoder_norms(self) -> Float[Array, "*features"]:
        """`[*features]`, the norm of what each feature writes; 1 of one that writes nothing."""
        norms = self.written_norms()
        return jnp.where(norms > 0, norms, jnp.ones_like(norms))

    def written_norms(self) -> Float[Array, "*features"]:
        """`[*features]`, the norm of what each feature writes to all sites or layers together."""
        return row_norms(self.W_dec)

    def fold_decoder_norms(self) -> Any:
        """The dictionary whose features write rows of unit norm and that reconstructs what this one does.

        Features are then as large as what they write, and thresholds go with them. A tied dictionary becomes a `ReLU`,
        an archetypal one a `TopK`, since their own form fixes the norms.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> from interp_jax import dictionaries
          >>> dictionary = dictionaries.ReLU.create(jax.random.key(0), 8, 32)  # rows of norm 0.1
          >>> folded, x = dictionary.fold_decoder_norms(), jax.random.normal(jax.random.key(1), (5, 8))
          >>> bool(jnp.allclose(folded(x), dictionary(x), atol=1e-5)), round(float(folded.decoder_norms()[0]), 3)
          (True, 1.0)
        """
        return self.with_features_scaled(self.decoder_norms())

    def with_features_scaled(self, norms: Float[Array, "*features"]) -> Any:
        """The dictionary whose features are `norms` `[*features]` times as large, and their rows as much smaller."""
        return with_fields(
            self, W_enc=self.W_enc * norms[..., None, :], b_enc=self.b_enc * norms, W_dec=self.W_dec / norms[..., None]
        )


def with_fields(dictionary: Any, **fields: Any) -> Any:
    """`dataclasses.replace`, for what the type checker does not know to be a dataclass."""
    return replace(dictionary, **fields)


def total(
    error: Float[Array, "n *out"],
    features: Float[Array, "n *features"],
    *,
    aux: Float[Array, ""] | None = None,
    aux_coefficient: Scalar = 0.0,
    sparsity: Float[Array, ""] | None = None,
    sparsity_coefficient: Scalar = 0.0,
) -> Terms:
    """A loss and its terms.

    Args:
      error: `x' - x`, `[n *out]`.
      features: `[n *features]`.
      aux, sparsity: the terms before their coefficients, `[]`; zero where the architecture has none.
      aux_coefficient, sparsity_coefficient: their weights.

    Returns:
      The loss and `{"error", "mse", "aux", "sparsity", "l0", "fired" [*features]}`.
    """
    zero = jnp.zeros(())
    aux, sparsity = zero if aux is None else aux, zero if sparsity is None else sparsity
    fired = features != 0
    mse = mean_square(error)
    terms = {
        "error": error,
        "mse": mse,
        "aux": aux,
        "sparsity": sparsity,
        "l0": jnp.sum(fired, dtype=jnp.float32) / features.shape[0],
        "fired": jnp.any(fired, axis=0),
    }
    return mse + aux_coefficient * aux + sparsity_coefficient * sparsity, terms


def mean_square(error: Float[Array, "n *out"]) -> Float[Array, ""]:
    """Mean over examples of the squared norm, in float32."""
    return jnp.sum(error.astype(jnp.float32) ** 2) / error.shape[0]


def mean_sum(penalty: Float[Array, "n *features"]) -> Float[Array, ""]:
    """Mean over examples of the sum over features, in float32."""
    return jnp.sum(penalty.astype(jnp.float32)) / penalty.shape[0]


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
