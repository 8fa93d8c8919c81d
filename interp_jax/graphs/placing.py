"""Where the dictionaries of a replacement model stand: which site each reads, which it writes, and in which layer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from interp_jax.core import SiteInfo, split_address

WRITTEN = "blocks.mlp_out"
USUAL = ("blocks.mlp_in", WRITTEN), ("blocks.ln1.normalized", "blocks.attn_out")  # of what does not say: MLPs, heads


class Placed(NamedTuple):
    """A dictionary in its place.

    Attributes:
      dictionary: the dictionary; of a cross-layer transcoder all of it.
      read: name of the site that it encodes, without a number.
      written: name of the site that it stands in for.
      layer: its layer; None of a cross-layer transcoder, which has all of them.
    """

    dictionary: Any
    read: str
    written: str
    layer: int | None

    @property
    def features(self) -> str:
        """The name of the site of its features."""
        return f"{self.written}.features"

    @property
    def pattern(self) -> str:
        """The name of the site of where its heads look, of what reads sequences."""
        return f"{self.written}.pattern"


def placed(transcoders: Any, known: Mapping[str, SiteInfo]) -> list[Placed]:
    """The dictionaries in their places, in the order of the layers.

    Args:
      transcoders: as `replace_mlps` takes them.
      known: the catalogue of the model's sites.

    Raises:
      TypeError: something else than dictionaries.
      ValueError: another number than there are layers, a layer or site that is not there, a dictionary of another layer
        or of another width.
    """
    found = [_placed(key, one) for key, one in _items(transcoders, known)]
    if not found:
        raise ValueError("transcoders: none is given: give one for each layer, or a mapping from layers to them")
    for one in found:
        _check(one, known)
    places = [(one.written, one.layer) for one in found]
    if len(set(places)) < len(places):
        raise ValueError("transcoders: two stand in for the same site and layer: give one")
    return sorted(found, key=lambda one: (one.layer or 0, one.written))


def stacked(found: Sequence[Placed], known: Mapping[str, SiteInfo]) -> Any:
    """The dictionaries of every layer of one pair of sites with a leading layer axis; None where they are not alike."""
    whole = tuple(one.layer for one in found) == known[found[0].written].layers
    return one_stack(found) if whole else None


def one_stack(found: Sequence[Placed]) -> Any:
    """The dictionaries of one pair of sites with a leading layer axis; None where they are not alike."""
    if len({(one.read, one.written) for one in found}) > 1:
        return None
    kinds = {jax.tree.structure(_unplaced(one.dictionary)) for one in found}
    shapes = {tuple((x.shape, x.dtype) for x in jax.tree.leaves(one.dictionary)) for one in found}
    if len(kinds) > 1 or len(shapes) > 1:
        return None
    return jax.tree.map(lambda *x: jnp.stack(x), *(_unplaced(one.dictionary) for one in found))


def _unplaced(dictionary: Any) -> Any:
    """The dictionary without the addresses that it was trained at, which differ by the layer."""
    return replace(dictionary, sites=None)


def _items(transcoders: Any, known: Mapping[str, SiteInfo]) -> list[tuple[Any, Any]]:
    if isinstance(transcoders, Mapping):
        return list(transcoders.items())
    if hasattr(transcoders, "is_stacked"):
        return [(None, transcoders)]
    if not isinstance(transcoders, Sequence) or isinstance(transcoders, str):
        raise TypeError(
            "transcoders are a sequence of one for each layer, a mapping from layers or addresses to them, or a "
            f"cross-layer transcoder, not {type(transcoders).__name__}"
        )
    layers = known[WRITTEN].layers if WRITTEN in known else None
    if layers is not None and len(layers) != len(transcoders):
        raise ValueError(
            f"transcoders: {len(transcoders)} for a model of {len(layers)} layers: give one for each, or a mapping "
            "from layers to those that there are"
        )
    return list(zip(layers or range(len(transcoders)), transcoders, strict=True))


def _placed(key: Any, dictionary: Any) -> Placed:
    """A dictionary that was given for a layer, an address, or (None) by itself."""
    if not hasattr(dictionary, "is_stacked"):
        raise TypeError(f"transcoders: a {type(dictionary).__name__} is no dictionary: load it by dictionaries.load")
    kind, sites = type(dictionary).__name__, dictionary.sites
    if dictionary.reads_pair:
        read, written = sites or USUAL[dictionary.reads_sequence]
    elif isinstance(key, str) or isinstance(sites, str):
        read = written = sites or key
    else:
        raise ValueError(f"transcoders: a {kind} of unknown site: give a mapping from addresses to dictionaries")
    (read, _), (written, trained) = split_address(read), split_address(written)
    if dictionary.is_stacked:
        return Placed(dictionary, read, written, None)
    if isinstance(key, str):
        written, layer = split_address(key)
        read = read if dictionary.reads_pair else written
    else:
        layer = trained if key is None else key
    if layer is None or (trained is not None and trained != layer):
        where = "an unknown layer" if layer is None else f"layer {layer}, and was trained at {dictionary.sites!r}"
        raise ValueError(f"transcoders: a {kind} stands for {where}: give it under its own layer's number")
    return Placed(dictionary, read, written, int(layer))


def _check(one: Placed, known: Mapping[str, SiteInfo]) -> None:
    kind = type(one.dictionary).__name__
    for name in (one.read, one.written):
        if name not in known:
            raise ValueError(f"transcoders: the model has no site {name!r}, at which a {kind} belongs")
    info = known[one.read]
    layers: tuple[int, ...] = info.layers or ()
    if one.layer is not None and one.layer not in layers:
        raise ValueError(f"transcoders: one of layer {one.layer}, and the model has {len(layers)} layers")
    if one.layer is None and one.dictionary.input_shape[0] != len(layers):
        raise ValueError(
            f"transcoders: a {kind} of {one.dictionary.input_shape[0]} layers for a model of {len(layers)}: it belongs "
            "to another model"
        )
    axes = info.axes or ()
    width = info.shape[-1] * (info.shape[-2] if axes[-2:-1] == ("head",) else 1)
    if width != one.dictionary.d_in:
        raise ValueError(
            f"transcoders: a {kind} reads {one.dictionary.d_in} numbers, and {one.read!r} has {width}: it belongs to "
            "another model"
        )
    d_out = one.dictionary.W_dec.shape[-1]
    if one.dictionary.reads_pair and known[one.written].shape[-1] != d_out:
        raise ValueError(
            f"transcoders: a {kind} writes {d_out} numbers, and {one.written!r} has "
            f"{known[one.written].shape[-1]}: it belongs to another model"
        )


def unchecked(transcoders: Any) -> list[Placed]:
    """The dictionaries in their places, before a model is there to check them against."""
    return [_placed(key, one) for key, one in _items(transcoders, {})]
