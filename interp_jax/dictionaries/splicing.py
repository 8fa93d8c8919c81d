"""Putting a dictionary into a model: its reconstruction in the place of the activations, or an edit of its features.

    keep_error=False: x <- decode(edit(encode(x)))
    keep_error=True:  x <- x + decode(edit(encode(x))) - decode(encode(x))

With the error kept and no edit the model is unchanged, so that what an edit does is due to the features alone. A
transcoder encodes the site that it reads and stands in for the one that it writes; what goes around its features, such
as a skip, stays. A cross-layer transcoder is one edit for each layer, a crosscoder one for each site, whose features
are those of a run that was captured before, since it reads sites that come later.
Bricken et al. 2023, Towards Monosemanticity; Templeton et al. 2024, Scaling Monosemanticity (steering by features);
Dunefsky et al. 2024, https://arxiv.org/abs/2406.11944; Ameisen et al. 2025, Circuit tracing.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.core import Context, Intervention, as_intervention, split_address
from interp_jax.dictionaries.kinds.arrays import Parameter
from interp_jax.dictionaries.kinds.base import Dictionary


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Splice(Intervention):
    """The intervention that `splice` makes, of a dictionary at the site that it writes.

    Attributes:
      dictionary: the dictionary.
      edit: of its features, or None.
      values: of a dictionary that reads later sites, what was captured, `[site *batch d_in]`; else None.
      keep_error: whether what the dictionary does not reconstruct stays.
      source: addresses that are encoded: none where it is the value itself, those of all layers up to here of a
        cross-layer transcoder.
      written: the only address at which it may stand, or None.
      place: which layer or site of a dictionary of several this is.
    """

    dictionary: Dictionary
    edit: Intervention | None
    values: Parameter | None
    keep_error: bool = field(metadata={"static": True})
    source: tuple[str, ...] = field(metadata={"static": True})
    written: str | None = field(metadata={"static": True})
    place: int | None = field(default=None, metadata={"static": True})

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset(self.source) | (frozenset() if self.edit is None else self.edit.reads)

    def confine(self, layers: frozenset[int], ctx: Context) -> frozenset[int]:
        """Refuses another site than the dictionary's own."""
        name, layer = (ctx.name, None) if self.written is None else split_address(self.written)
        if name != ctx.name or (layer is not None and layers - {layer}):
            at = f" at layer {', '.join(map(str, sorted(layers)))}" if layers and name == ctx.name else ""
            raise ValueError(
                f"splice: a {type(self.dictionary).__name__} of {self.written!r} does not belong to the site "
                f"{ctx.name!r}{at}; edit its own, or give splice(..., sites=) if it is right there"
            )
        return layers

    def __call__(self, value: Array, ctx: Context) -> Array:
        if self.edit is None and self.keep_error:
            return value
        x = self._input(value, ctx)
        features = self.dictionary.encode_site(x, ctx)
        edited = features if self.edit is None else self.edit(features, replace(ctx, axes=self._axes(features, ctx)))
        out = self._output(x, edited, value)
        if self.keep_error:
            out = value.astype(out.dtype) + (out - self._output(x, features, value))
        return out.astype(value.dtype)

    def _axes(self, features: Array, ctx: Context) -> tuple[str, ...]:
        n = len(self.dictionary.feature_shape)
        return (*(ctx.axes or ())[: features.ndim - n], *("layer",) * (n - 1), "feature")

    def _input(self, value: Array, ctx: Context) -> Array:
        """What is encoded, with the axes that the dictionary takes."""
        if self.values is not None:
            return jnp.moveaxis(jnp.asarray(self.values), 0, -2)
        if not self.source:
            return value
        read = [ctx.reads[address] for address in self.source]
        if self.place is None:
            return read[0]
        later = [jnp.zeros_like(read[0])] * (self.dictionary.input_shape[0] - len(read))  # which write nothing here
        return jnp.stack([*read, *later], axis=-2)

    def _output(self, x: Array, features: Array, value: Array) -> Array:
        out = self.dictionary.output(x, features)
        return (out if self.place is None else out[..., self.place, :]).reshape(value.shape)  # heads were flattened


def splice(
    dictionary: Dictionary,
    keep_error: bool = True,
    *,
    edit: Any = None,
    sites: str | tuple[str, ...] | None = None,
    values: Any = None,
) -> Splice | dict[str, Splice]:
    """An intervention that sends a site's values through a dictionary.

    Args:
      dictionary: from `create` or `load`.
      keep_error: add what the dictionary does not reconstruct, so that only the edit changes the model.
      edit: an intervention on the features `[... d_sae]`, whose last axis is called `feature`:
        `at(scale(0.0), feature=7)` ablates one feature, `at(clamp(9.0, 9.0), feature=7)` pins it. The features of a
        cross-layer transcoder are `[... layer d_sae]`: `at(at(scale(0.0), feature=7), axis=-2, index=1)`.
      sites: the address where it belongs, or `(read, written)` of a transcoder, such as `("blocks.2.mlp_in",
        "blocks.2.mlp_out")`; by default those that the dictionary was trained at.
      values: for a crosscoder, which reads later sites, what a run without the edit captures at its sites, `[site
        *batch d_in]`.

    Returns:
      An intervention: a pytree, so a `jit` argument, `vmap`-able and differentiable. It computes in the dictionary's
      dtype and gives back the site's. Of a cross-layer transcoder or a crosscoder a dict, from the address of each of
      its layers to the intervention there, as `intervene` takes it.

    Raises:
      ValueError: a transcoder or crosscoder of unknown sites, a crosscoder without `values`; (when applied) another
        site than the dictionary's, a last axis that is not its d_in, a source that is not met before.

    Example:
      >>> import jax, jax.numpy as jnp, interp_jax as ij
      >>> from interp_jax import dictionaries
      >>> from interp_jax.interventions import at, scale
      >>> dictionary = dictionaries.TopK.create(jax.random.key(0), d_in=8, d_sae=32, k=4)
      >>> f = lambda x: ij.site(x, "resid", axes=("position", "d_model"))
      >>> x = jax.random.normal(jax.random.key(1), (5, 8))
      >>> spliced = ij.intervene(f, {"resid": dictionaries.splice(dictionary, keep_error=False)})
      >>> bool(jnp.allclose(spliced(x), dictionary(x)))
      True
      >>> off = dictionaries.splice(dictionary, edit=at(scale(0.0), feature=3))
      >>> change = ij.intervene(f, {"resid": off})(x) - x
      >>> bool(jnp.allclose(change, -dictionary.encode(x)[:, 3:4] * dictionary.W_dec[3], atol=1e-5))
      True
    """
    edit = None if edit is None else as_intervention(edit)
    sites = dictionary.sites if sites is None else sites
    read, written = _pair(dictionary, sites)
    if values is not None and not dictionary.reads_later:
        raise ValueError(f"splice: a {type(dictionary).__name__} encodes what the run itself has; leave values out")
    if not dictionary.is_stacked:
        return Splice(dictionary, edit, None, keep_error, () if read is None else (read,), written)
    n = dictionary.input_shape[0]
    if dictionary.reads_later and (values is None or jnp.shape(values)[0] != n):
        raise ValueError(
            f"splice: a {type(dictionary).__name__} reads sites that come after those it writes; give values=, what "
            f"capture gives at {written!r} of a run without the edit, [{n} ...]"
        )
    sources = [] if dictionary.reads_later else _layers(written if read is None else read, n)
    return {
        address: Splice(dictionary, edit, values, keep_error, tuple(sources[: i + 1]), address, i)
        for i, address in enumerate(_layers(written, n))
    }


def _pair(dictionary: Dictionary, sites: Any) -> tuple[Any, Any]:
    """The address that a dictionary reads, None where it is the one that it writes; and the one that it writes."""
    kind = type(dictionary).__name__
    pair = isinstance(sites, tuple) and len(sites) == 2
    if dictionary.reads_pair and not pair:
        raise ValueError(
            f"splice: a {kind} reads one site and stands in for another; say which, as in "
            f'splice(..., sites=("blocks.2.mlp_in", "blocks.2.mlp_out"))'
        )
    if not dictionary.reads_pair and not isinstance(sites, str | None):
        raise ValueError(f"splice: a {kind} belongs to one site, not to {sites!r}; name it with sites=")
    if sites is None and dictionary.is_stacked:
        raise ValueError(f'splice: a {kind} of unknown sites; say which, as in splice(..., sites="blocks.resid_post")')
    return (sites[0], sites[1]) if isinstance(sites, tuple) else (None, sites)


def _layers(address: str, n: int) -> list[str]:
    """The addresses of n layers, of an address of every layer."""
    name, layer = split_address(address)
    if layer is not None or "." not in name:
        raise ValueError(f"splice: {address!r} is not the address of every layer, such as 'blocks.resid_post'")
    scope, rest = name.split(".", 1)
    return [f"{scope}.{i}.{rest}" for i in range(n)]
