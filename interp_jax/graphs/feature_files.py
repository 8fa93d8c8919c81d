"""What each feature of a graph fires on, as the JSON that viewers of graphs show beside them.

One file a feature, named by the number that a graph's node has for it (see `cantor`): a viewer is told the folder as
`feature_json_base_url`. Read they are also from the form in which transcoders are published: `index.json.gz` tells by
layer the file and where in it each feature's compressed record stands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from interp_jax.graphs.format import cantor
from interp_jax.io.files import replacing

Example = tuple[Sequence[str], Sequence[float]]  # tokens, and the activation at each


@dataclass(frozen=True)
class FeatureDetails:
    """What is shown of a feature.

    Attributes:
      index: its number in its layer.
      examples: by the name of an interval of activations, texts with the activation at each token.
      top_logits, bottom_logits: the tokens that it makes more and less likely, strongest first.
    """

    index: int
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    top_logits: Sequence[str] = ()
    bottom_logits: Sequence[str] = ()


def write_features(features: Mapping[tuple[int, int], FeatureDetails], folder: str | Path) -> Path:
    """Writes features, `<folder>/<number>.json` each, whole or not at all.

    Args:
      features: by layer and number in it.
      folder: is made where it is not there.

    Returns:
      The folder.

    Raises:
      ValueError: a feature under another's number, an example of other many activations than tokens, or of numbers that
        are not finite.

    Example:
      >>> import tempfile
      >>> from interp_jax import graphs
      >>> seen = graphs.FeatureDetails(7, {"Top": [((" a", " dog"), (0.0, 2.5))]}, top_logits=(" barks",))
      >>> folder = graphs.write_features({(3, 7): seen}, tempfile.mkdtemp())
      >>> graphs.read_feature(folder, 3, 7).top_logits
      (' barks',)
    """
    folder = Path(folder)
    made = {}
    for (layer, index), one in features.items():
        if one.index != index:
            raise ValueError(f"write_features: ({layer}, {index}) is given feature {one.index}")
        made[folder / f"{cantor(layer, index)}.json"] = _told(layer, one)
    folder.mkdir(parents=True, exist_ok=True)
    for path, told in made.items():
        with replacing(path) as new:
            new.write_text(json.dumps(told), encoding="utf-8")
    return folder


def read_feature(folder: str | Path, layer: int, index: int) -> FeatureDetails:
    """Reads a feature, of a folder of files or of an index and its records.

    Raises:
      FileNotFoundError: the folder has neither a file nor a record of it.
      ValueError: it is no feature of this format.
    """
    folder = Path(folder)
    path, listed = folder / f"{cantor(layer, index)}.json", folder / "index.json.gz"
    if path.exists():
        raw = path.read_bytes()
    elif listed.exists():
        path, raw = _record(listed, layer, index)
    else:
        raise FileNotFoundError(f"{folder}: no feature {index} of layer {layer}: neither {path.name} nor index.json.gz")
    try:
        told = json.loads(raw)
        quantiles = told["examples_quantiles"]
        examples = {
            one["quantile_name"]: [(tuple(e["tokens"]), tuple(e["tokens_acts_list"])) for e in one["examples"]]
            for one in quantiles
        }
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no feature of layer {layer} ({type(error).__name__}: {error})") from None
    return FeatureDetails(index, examples, *(tuple(told.get(key, ())) for key in ("top_logits", "bottom_logits")))


def _told(layer: int, one: FeatureDetails) -> dict[str, Any]:
    quantiles = []
    for name, examples in one.examples.items():
        for tokens, values in examples:
            if len(tokens) != len(values) or not np.isfinite(values).all():
                raise ValueError(
                    f"write_features: an example of feature {one.index} of layer {layer} has {len(tokens)} tokens and "
                    f"{len(values)} activations; give as many, and finite ones"
                )
        shown = [{"tokens": list(tokens), "tokens_acts_list": list(map(float, values))} for tokens, values in examples]
        quantiles.append({"quantile_name": name, "examples": shown})
    largest = [value for examples in one.examples.values() for _, values in examples for value in values]
    return {
        "index": cantor(layer, one.index),
        "examples_quantiles": quantiles,
        "top_logits": list(one.top_logits),
        "bottom_logits": list(one.bottom_logits),
        "act_min": 0.0,  # the range of a viewer's colours
        "act_max": float(max(largest, default=1.0)),
    }


def _record(listed: Path, layer: int, index: int) -> tuple[Path, bytes]:
    """The record of a feature, by the offsets in an index."""
    told = json.loads(gzip.decompress(listed.read_bytes()))
    layers = {str(i): one for i, one in enumerate(told)} if isinstance(told, list) else told
    here = layers.get(str(layer), {})
    offsets = here.get("offsets", [])
    if index + 1 >= len(offsets):
        raise FileNotFoundError(f"{listed}: has no feature {index} of layer {layer}")
    path = listed.parent / here["filename"]
    with path.open("rb") as file:
        file.seek(offsets[index])
        raw = file.read(offsets[index + 1] - offsets[index])
    return path, gzip.decompress(raw)
