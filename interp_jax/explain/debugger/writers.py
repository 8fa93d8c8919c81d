"""What writes to the residual stream: embeddings, heads, neurons, features of dictionaries, their errors, and biases.

    resid = embed + sum over layers of (sum over heads of z W_O + b_O) + (sum over neurons of post W_out + b_out)

A norm after attention or the MLP is linear once its scale is the one of the run, so that each head and neuron still
writes a vector of its own. A dictionary takes the place of what it reconstructs: of the heads or neurons of its layer,
or, in the residual stream, of all that was written before. Elhage et al. 2021, "A mathematical framework".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array
import jax.numpy as jnp

from interp_jax.core import SiteInfo, split_address

EMBEDS = ("embed", "pos_embed")
UNITS = {"head": "blocks.attn.z", "neuron": "blocks.mlp.post"}  # kind of node -> the site of its activations
OUT = {"head": "blocks.attn_out", "neuron": "blocks.mlp_out"}  # where what they write joins the residual stream
BIASES = {"attn_bias": "head", "mlp_bias": "neuron"}
STREAM = {"blocks.resid_pre": -0.25, "blocks.resid_mid": 0.75, "blocks.resid_post": 1.75}
_WEIGHTS = {"head": ("W_O", "b_O", "ln1_post"), "neuron": ("W_out", "b_out", "ln2_post")}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "rows", "gain", "scale"],
    meta_fields=["kind", "site", "layers", "after", "centred", "places"],
)
@dataclass(frozen=True)
class Writers:
    """Nodes of one kind, at some layers and every position.

    Attributes:
      kind: as in `Node`.
      site: the address whose slopes are those of `values`.
      layers: the number of each layer; None of embeddings.
      after: when each layer's writes, as a number: attention of layer l at 2 l + 0.5, its MLP at 2 l + 1.5.
      values: `[layer position unit k]`, what they are multiplied by: 1 number of a neuron, d_head of a head.
      rows: `[layer unit k d_model]`; None: the values are what is written.
      gain, scale: `[layer d_model]` and `[layer position 1]` of a norm after them, or None; `centred`, whether it takes
        the mean away.
      places: which of the site's layers these are; None: all.
    """

    kind: str
    site: str
    layers: tuple[int | None, ...]
    after: tuple[float, ...]
    values: Any
    rows: Any = None
    gain: Any = None
    scale: Any = None
    centred: bool = False
    places: tuple[int, ...] | None = None

    def normed(self, x: Array) -> Array:
        """What a norm that follows makes of vectors `[layer position ... d_model]`."""
        if self.gain is None:
            return x
        x = x - x.mean(-1, keepdims=True) if self.centred else x
        between = (1,) * (x.ndim - 3)
        gain = self.gain.reshape(len(self.gain), 1, *between, -1)
        return x * gain / self.scale.reshape(*self.scale.shape[:2], *between, 1)

    def effects(self, slope: Array) -> Array:
        """What the writes have along a slope of the residual stream `[position d_model]`: `[layer position unit]`."""
        if self.rows is None:
            return jnp.einsum("lpud,pd->lpu", self.values, slope)
        slope = jnp.broadcast_to(slope, (len(self.layers), *slope.shape))
        if self.gain is not None:  # the transpose of `normed`
            slope = slope * self.gain[:, None] / self.scale
            slope = slope - slope.mean(-1, keepdims=True) if self.centred else slope
        return jnp.einsum("lpuk,lpuk->lpu", self.values, jnp.einsum("lukd,lpd->lpuk", self.rows, slope))

    def magnitudes(self) -> Array:
        """The norm of what each node writes, `[layer position unit]`."""
        if self.rows is None:
            return jnp.linalg.norm(self.values, axis=-1)
        rows = self.rows - self.rows.mean(-1, keepdims=True) if self.centred else self.rows
        rows = rows if self.gain is None else rows * self.gain[:, None, None]
        squares = jnp.einsum("lpuk,lukj,lpuj->lpu", self.values, jnp.einsum("lukd,lujd->lukj", rows, rows), self.values)
        norms = jnp.sqrt(jnp.maximum(squares, 0))
        return norms if self.scale is None else norms / self.scale

    def attribution(self, slopes: Mapping[str, Array]) -> Array:
        """Value times slope, `[layer position unit]`; slopes are by site, as `grads` gives them."""
        slope = slopes[self.site].astype(jnp.float32)
        slope = slope if self.places is None else slope[jnp.array(self.places)]
        return (self.values * slope.reshape(self.values.shape)).sum(-1)

    def one(self, place: Any, position: Any, unit: Any) -> "Writers":
        """That of one node, with all axes but the last ones of size 1; `place` is that of its layer."""
        values = self.values[place, position, unit][None, None, None]
        rows = None if self.rows is None else self.rows[place, unit][None, None]
        gain = None if self.gain is None else self.gain[place][None]
        scale = None if self.scale is None else self.scale[place, position][None, None]
        return Writers(self.kind, self.site, (None,), (0.0,), values, rows, gain, scale, self.centred)

    def vectors(self) -> Array:
        """What each node writes, `[layer position unit d_model]`."""
        return self.values if self.rows is None else self.normed(jnp.einsum("lpuk,lukd->lpud", self.values, self.rows))

    def some(self, places: Sequence[int]) -> "Writers":
        """Those of some layers, by their place."""
        there = range(len(self.layers)) if self.places is None else self.places
        index = jnp.array(places, jnp.int32)
        values, rows, gain, scale = (
            None if x is None else x[index] for x in (self.values, self.rows, self.gain, self.scale)
        )
        layers, after = tuple(self.layers[i] for i in places), tuple(self.after[i] for i in places)
        chosen = tuple(there[i] for i in places)
        return Writers(self.kind, self.site, layers, after, values, rows, gain, scale, self.centred, chosen)


def needed(known: Mapping[str, SiteInfo], declared: Sequence[str]) -> tuple[str, ...]:
    """What to capture, and to take slopes at, for `writers`; `declared` are the addresses of dictionaries.

    Raises:
      ValueError: a model without one of the sites.
    """
    wanted = ["embed", *UNITS.values(), *OUT.values(), *(["pos_embed"] if "pos_embed" in known else [])]
    if missing := [name for name in wanted if name not in known]:
        raise ValueError(f"why: no site {missing[0]!r}: the function must declare what each head and neuron writes")
    return (*wanted, *declared, *(f"{address}.{what}" for address in declared for what in ("features", "error")))


def short(address: str) -> str:
    """The name of a dictionary's site as nodes bear it: "mlp_out" of "blocks.2.mlp_out"."""
    return split_address(address)[0].split(".", 1)[1]


def scales(known: Mapping[str, SiteInfo]) -> tuple[str, ...]:
    """The scales of the norms after attention and the MLP, where a model has them."""
    return tuple(name for name in ("blocks.ln1_post.scale", "blocks.ln2_post.scale") if name in known)


def reads_at(kind: str, layer: Any, known: Mapping[str, SiteInfo]) -> Any:
    """When attention ("head") or the MLP ("neuron") of a layer reads, as in `Writers.after`."""
    return 2.0 * jnp.float32(layer) + (1.0 if kind == "neuron" and "blocks.resid_mid" in known else 0.0)


def written_at(address: str) -> float:
    """When a dictionary writes, as in `Writers.after`."""
    name, layer = split_address(address)
    kinds = [kind for kind, out in OUT.items() if out == name]
    return _after(kinds[0], layer or 0) if kinds else 2.0 * (layer or 0) + STREAM[name]


def writers(
    weights: Mapping[str, Array],
    acts: Mapping[str, Array],
    known: Mapping[str, SiteInfo],
    dictionaries: Mapping[str, Any],
) -> list[Writers]:
    """Everything that writes to the residual stream, so that their writes add up to it after the last layer.

    Args:
      weights: `models.weights(model)`.
      acts: captures of `needed` and of `scales`, of one prompt without a batch axis.
      known: the catalogue of the model's sites.
      dictionaries: by address, those that stand in the place of what they reconstruct.
    """
    wide = {name: x.astype(jnp.float32) for name, x in acts.items()}
    found = [Writers(name, name, (None,), (-1.0,), wide[name][None, :, None]) for name in EMBEDS if name in acts]
    for kind in UNITS:
        found += _of_layers(kind, weights, wide, known)
    start = -2.0
    for address, dictionary in dictionaries.items():
        (name, layer), place = split_address(address), written_at(address)
        if name in STREAM:
            start = place
        else:
            kind = next(kind for kind, out in OUT.items() if out == name)
            of = (kind, next(bias for bias, owner in BIASES.items() if owner == kind))
            found = [one for part in found for one in _without(part, of, layer)]
        found += _of_dictionary(address, dictionary, wide, place)
    kept = []
    for part in found:
        places = [i for i, after in enumerate(part.after) if after >= start]
        kept += [] if not places else [part] if len(places) == len(part.after) else [part.some(places)]
    return kept


def _after(kind: str, layer: int) -> float:
    return 2.0 * layer + (0.5 if kind == "head" else 1.5)


def _of_layers(
    kind: str, weights: Mapping[str, Array], acts: Mapping[str, Array], known: Mapping[str, SiteInfo]
) -> list[Writers]:
    """Heads or neurons of all layers, and the bias beside them."""
    matrix, bias, norm = _WEIGHTS[kind]
    rows, values = weights[matrix].astype(jnp.float32), acts[UNITS[kind]]
    values, rows = (values, rows) if kind == "head" else (values[..., None], rows[:, :, None])
    layers = tuple(known[UNITS[kind]].layers or ())
    after = tuple(_after(kind, layer) for layer in layers)
    normed: dict[str, Any] = {}
    if f"{norm}_w" in weights:
        normed["gain"] = weights[f"{norm}_w"].astype(jnp.float32)
        normed["scale"], normed["centred"] = acts[f"blocks.{norm}.scale"], f"{norm}_b" in weights
    found = [Writers(kind, UNITS[kind], layers, after, values, rows, **normed)]
    constant = jnp.zeros((len(layers), 1, 1, rows.shape[-1]))
    if bias in weights:
        wide = jnp.broadcast_to(
            weights[bias].astype(jnp.float32)[:, None, None], (*values.shape[:2], 1, rows.shape[-1])
        )
        constant = constant + found[0].normed(wide)
    if f"{norm}_b" in weights:
        constant = constant + weights[f"{norm}_b"].astype(jnp.float32)[:, None, None]
    if bias in weights or f"{norm}_b" in weights:
        constant = jnp.broadcast_to(constant, (*values.shape[:2], *constant.shape[2:]))
        name = next(name for name, owner in BIASES.items() if owner == kind)
        found.append(Writers(name, OUT[kind], layers, after, constant))
    return found


def _without(part: Writers, kinds: tuple[str, ...], layer: int | None) -> list[Writers]:
    """The same nodes but for those of some kinds in one layer."""
    if part.kind not in kinds:
        return [part]
    places = [i for i, here in enumerate(part.layers) if here != layer]
    return [part.some(places)] if places else []


def _of_dictionary(address: str, dictionary: Any, acts: Mapping[str, Array], place: float) -> list[Writers]:
    name, layer, rows = short(address), split_address(address)[1], dictionary.W_dec.astype(jnp.float32)
    features, error = acts[f"{address}.features"], acts[f"{address}.error"]
    constant = acts[address] - features @ rows - error
    one = (layer,), (place,)
    return [
        Writers(f"{name} feature", f"{address}.features", *one, features[None, :, :, None], rows[None, :, None]),
        Writers(f"{name} error", f"{address}.error", *one, error[None, :, None]),
        Writers(f"{name} bias", address, *one, constant[None, :, None]),
    ]
