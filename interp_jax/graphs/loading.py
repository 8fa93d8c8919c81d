"""Graphs that were written as JSON, by us, circuit-tracer or Neuronpedia, read again."""

from collections.abc import Mapping
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from interp_jax.graphs.format import ERRORS, FEATURES, KINDS, OURS, VERSION
from interp_jax.graphs.graph import Graph

_INT = ("layer", "position", "index")


def from_json(path: str | Path) -> Graph:
    """Reads a graph that `to_json`, circuit-tracer or Neuronpedia wrote, with its labels and supernodes.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no graph of this format, of another version, or has edges between nodes that are not there.
    """
    path = Path(path)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(told, dict) or any(key not in told for key in ("metadata", "nodes", "links")):
        raise ValueError(f"{path}: no attribution graph: it lacks metadata, nodes or links")
    version = told["metadata"].get("schema_version", VERSION)
    if version != VERSION:
        raise ValueError(f"{path}: schema version {version!r}; this reads version {VERSION}")
    nodes, ours = told["nodes"], told.get(OURS, {})
    place = {node["node_id"]: number for number, node in enumerate(nodes)}
    if len(place) < len(nodes):
        raise ValueError(f"{path}: {len(nodes) - len(place)} nodes have the id of another: its graph is ambiguous")
    if lost := [end for link in told["links"] for end in (link["source"], link["target"]) if end not in place]:
        raise ValueError(f"{path}: an edge of {lost[0]!r}, and no such node")
    ends = [(place[link["target"]], place[link["source"]]) for link in told["links"]]
    weights = np.array([link["weight"] for link in told["links"]], np.float32)
    edges = sparse.csr_array((weights, tuple(np.array(ends, int).reshape(-1, 2).T)), (len(nodes),) * 2)
    kinds = ours.get("kind") or [_kind(node) for node in nodes]
    columns = {name: ours.get(name) or [_told(node, name, kinds[i]) for i, node in enumerate(nodes)] for name in _INT}
    layers = [int(node["layer"]) for node in nodes if str(node["layer"]).isdecimal()]
    params = told.get("qParams", {})
    groups = {one[0]: tuple(place[i] for i in one[1:] if i in place) for one in params.get("supernodes") or []}
    return Graph(
        kind=np.array([KINDS.index(kind) for kind in kinds], np.int8),
        **{name: np.array(values, np.int32) for name, values in columns.items()},
        activation=np.array([node.get("activation") or 0.0 for node in nodes], np.float32),
        weight=np.array(ours.get("weight") or [node.get("token_prob") or 0.0 for node in nodes], np.float32),
        rest=np.array(ours.get("rest") or [0.0] * len(nodes), np.float32),
        edges=edges,
        tokens=tuple(told["metadata"]["prompt_tokens"]),
        n_layers=ours.get("n_layers") or max(layers, default=1) - ("logit" in kinds),
        names={number: node["clerp"] for number, node in enumerate(nodes) if node.get("clerp")},
        groups=groups,
        info=ours.get("info", {}),
    )


def _kind(node: Mapping[str, Any]) -> str:
    told = node["feature_type"]
    if told.startswith("lorsa"):
        return "lorsa error" if told.endswith("error") else "lorsa"
    if told == "mlp reconstruction error" or "error" in told:
        return "error"
    return {"embedding": "embedding", "logit": "logit", "bias": "constant"}.get(told, "feature")


def _told(node: Mapping[str, Any], name: str, kind: str) -> int:
    """What a file that is not ours says of a node."""
    if name == "position":
        return int(node["ctx_idx"])
    if name == "layer":
        return int(node["layer"]) if kind in (*FEATURES, *ERRORS) else -1
    feature = node["feature"]
    if kind not in FEATURES or feature is None:
        return -1 if feature is None or kind in ERRORS else int(feature)
    return feature - (w := (math.isqrt(8 * feature + 1) - 1) // 2) * (w + 1) // 2  # Cantor's pairing, back
