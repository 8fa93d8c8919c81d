"""What every dictionary has in common: widths, the affine encoder and decoder, and what is known of its class.

    x' = W_dec f + b_dec,    f = activate(W_enc (x - b_dec) + b_enc)

An architecture adds its activation, its own loss and `create`. Sites with a head axis are flattened to head d_head.
"""

from dataclasses import replace
from typing import Any, ClassVar

import jax
from jax import Array
import jax.numpy as jnp
from jaxtyping import Float

from interp_jax.core import Context
from interp_jax.dictionaries.kinds.arrays import Inputs, Parameter, Scalar, row_norms, unit_rows
from interp_jax.dictionaries.kinds.losses import LossContext, Terms, loss_terms
from interp_jax.dictionaries.kinds.past import EPS, Past, moments

SaeLensForm = tuple[str, dict[str, Any], dict[str, Array]]  # architecture, options, arrays of SAELens's folder


class Dictionary(Past):
    """What every kind is: a pytree with an encoder, a decoder and a loss. Subclass it for a kind of your own.

    A kind is a frozen dataclass that is registered as a pytree, with arrays named `W_enc`, `b_enc`, `W_dec` and
    `b_dec` (as fields or properties). What is known of it stands here or on its class, and training, sweeps, saving,
    loading, splicing, scores and reports ask for nothing else.

    Attributes:
      architecture: its name in a checkpoint; the class's own name unless it says another.
      apply_b_dec_to_input: whether `b_dec` is taken from the input before it is encoded.
      unit_rows: whether training keeps the rows of `W_dec` at unit norm.
      reads_pair: whether it reads one site and reconstructs another, so that a batch is a pair.
      reads_later: whether its features read sites that come after one that they write, so that it can only be spliced
        in with the values of a run that was captured before.
      reads_sequence: whether its features are of whole sequences, `[*batch position d_in]`, and not of one token each.
      pads: whether features of zeros at its end change nothing, so that `train_many` takes it in several widths.
      is_trained: whether training makes it, and not `create` at once.
      event: the names of the axes of one input.
      in_units: the arrays that are measured in the units of the inputs, such as biases and thresholds.
      precise: the arrays that stay float32 whatever the dtype of the others, since they move by less than it holds.
      sparsity_coefficient: the published weight of the sparsity term, for inputs with E|x| = sqrt(d).
      resampled_fields: the arrays of a feature that `resample` starts again; none where it has no form of it.
      counts: the static numbers of active features, of which `train_many` compiles the largest of a sweep; a kind that
        has some has a field `limit`, None or `[]`, how many of the first of them are kept.

    Example:
      >>> from dataclasses import dataclass
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import dictionaries
      >>> @jax.tree_util.register_dataclass
      ... @dataclass(frozen=True)
      ... class Squared(dictionaries.Dictionary):
      ...     W_enc: jax.Array
      ...     b_enc: jax.Array
      ...     W_dec: jax.Array
      ...     b_dec: jax.Array
      ...
      ...     def activate(self, pre):
      ...         return jax.nn.relu(pre) ** 2
      >>> W_dec = jax.random.normal(jax.random.key(0), (32, 8))
      >>> dictionary = Squared(W_dec.T, jnp.zeros(32), W_dec, jnp.zeros(8))
      >>> dictionaries.TrainState.create(dictionary, n_steps=10).dictionary.architecture
      'Squared'
    """

    architecture: ClassVar[str]
    apply_b_dec_to_input = True
    unit_rows = False
    reads_pair: ClassVar[bool] = False
    reads_later: ClassVar[bool] = False
    reads_sequence: ClassVar[bool] = False
    pads: ClassVar[bool] = True
    is_trained: ClassVar[bool] = True
    in_units: ClassVar[tuple[str, ...]] = ("b_enc", "b_dec")
    precise: ClassVar[tuple[str, ...]] = ()
    sparsity_coefficient: ClassVar[float] = 0.0
    resampled_fields: ClassVar[tuple[str, ...]] = ()
    counts: ClassVar[tuple[str, ...]] = ()

    W_enc: Parameter
    b_enc: Parameter
    W_dec: Parameter
    b_dec: Parameter

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "architecture" not in vars(cls):  # an inherited one would make a checkpoint another kind's
            cls.architecture = cls.__name__

    @property
    def d_in(self) -> int:
        return self.W_enc.shape[-2]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[-2]

    @property
    def is_stacked(self) -> bool:
        """Whether it is of several layers or sites at once: they are then the first axis of an input."""
        return len(self.event) > 1

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one input's features."""
        return (self.d_sae,)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return (self.d_in,)

    def inputs(self, x: Inputs) -> Float[Array, "..."]:
        """`x` as an array of the dictionary's dtype; an axis of heads is flattened.

        Args:
          x: an array or nested lists, `[*batch d_in]`, or `[*batch head d_head]` with at least one axis of a batch; of
            several layers or sites `[*batch layer d_in]`.

        Raises:
          ValueError: its last axes are not those of one input.
        """
        x, wanted = jnp.asarray(x), self.input_shape
        heads = not self.is_stacked and x.ndim > 2 and x.shape[-1] != self.d_in == x.shape[-2] * x.shape[-1]
        if heads:
            x = x.reshape(*x.shape[:-2], self.d_in)
        if x.shape[-len(wanted) :] != wanted:
            kind, axis = f"{type(self).__name__}: inputs of shape {x.shape}", self.event[0]
            if self.is_stacked:
                raise ValueError(
                    f"{kind} for {wanted[0]} {axis}s with d_in={self.d_in}; stack the {axis}s before the last axis"
                )
            one = f"; if it is one input with {x.shape[0]} heads, give x.reshape(-1)" if x.size == self.d_in else ""
            raise ValueError(
                f"{kind} for a dictionary with d_in={self.d_in}; it was trained at another site or model{one}"
            )
        return x.astype(self.W_dec.dtype)

    def entering(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """What is encoded of inputs: the inputs themselves, or brought to mean 0 and deviation 1 (`normalization`)."""
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

    def encode_site(self, x: Inputs, ctx: Context) -> Float[Array, "*batch d_sae"]:
        """`encode` of what stands at a site of a model, of which `ctx` tells what is padding."""
        return self.encode(x)

    def decode(self, features: Inputs) -> Float[Array, "*batch d_out"]:
        """Reconstruction `[*batch d_in]` from features `[*batch d_sae]`."""
        return jnp.asarray(features) @ self.W_dec + self.b_dec

    def skip(self, x: Inputs) -> Float[Array, "..."]:
        """What goes from an input to the output around the features, `[*batch d_out]` or `[]`: zero by default."""
        return jnp.zeros((), self.W_dec.dtype)

    def output(self, x: Inputs, features: Inputs) -> Float[Array, "..."]:
        """What features stand for where the input was `x`: `decode`, and what goes around the features.

        That is the `skip`, and the mean and deviation of each input under `normalization`.
        """
        decoded = self.decode(features) + self.skip(x)
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

    def loss(self, x: Inputs, context: LossContext) -> Terms:
        """The training loss of a batch: by default the reconstruction alone.

        Args:
          x: `[n d_in]`; a pair of inputs and targets for a transcoder.
          context: what training tells every loss.

        Returns:
          The loss and its terms, see `loss_terms`.
        """
        features = self.encode(x)
        return loss_terms(self.decode(features) - self.inputs(x), features, context)

    def tangent(self, gradient: Any) -> Any:
        """The gradient without its part along each decoder row, where the unit norm would undo it."""
        if not self.unit_rows:
            return gradient
        along = jnp.sum(gradient.W_dec * self.W_dec, axis=-1, keepdims=True)
        return replace(gradient, W_dec=gradient.W_dec - along * self.W_dec)

    def cast(self, dtype: Any) -> Any:
        """The dictionary in another dtype; what is `precise` stays float32."""
        new = jax.tree.map(lambda leaf: leaf.astype(dtype), self)
        precise = self.fields_named(*self.precise)
        return replace(new, **{name: array.astype(jnp.float32) for name, array in precise.items()})

    def normalized(self) -> Any:
        """The dictionary with its decoder rows scaled back to unit norm, where training keeps them so."""
        return replace(self, W_dec=unit_rows(self.W_dec)) if self.unit_rows else self

    def stepped(self, terms: dict[str, Array]) -> Any:
        """The dictionary after a gradient step whose loss had these terms: constraints and running means."""
        return self.normalized()

    def fold_scale(self, factor: Scalar) -> Any:
        """The dictionary of `x` that does what this one does with `factor * x`; features shrink by `factor` too.

        This is right where features grow as inputs do, as ReLU's. A kind whose features do not, such as squares, must
        override it.

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
            return replace(self, mean_norm=norm)
        measured = self.fields_named(*self.in_units)
        return replace(self, mean_norm=norm, **{name: array / factor for name, array in measured.items()})

    def decoder_norms(self) -> Float[Array, "*features"]:
        """The norm of what each feature writes, `[*features]`, and 1 for a feature that writes nothing."""
        norms = self.written_norms()
        return jnp.where(norms > 0, norms, jnp.ones_like(norms))

    def written_norms(self) -> Float[Array, "*features"]:
        """The norm of what each feature writes to all sites or layers together, `[*features]`."""
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
        return replace(
            self, W_enc=self.W_enc * norms[..., None, :], b_enc=self.b_enc * norms, W_dec=self.W_dec / norms[..., None]
        )

    def written_rows(self) -> Float[Array, "d_sae d"]:
        """All that each feature writes, side by side: `W_dec`, or of several sites `[d_sae site*d_in]`."""
        return jnp.moveaxis(self.W_dec, -2, 0).reshape(self.d_sae, -1)

    def to_sae_lens(self) -> SaeLensForm | None:
        """The architecture, the options and the arrays of SAELens's folder; None where SAELens has no form of it.

        Raises:
          ValueError: SAELens has no form of this very dictionary.
        """
        return None

    def fields_named(self, *names: str) -> dict[str, Any]:
        """Some of its fields by name."""
        return {name: getattr(self, name) for name in names}
