"""Graphs as files: the JSON of Neuronpedia and circuit-tracer, as it is written.

A node's `feature` is one number for layer and feature, Cantor's pairing `(l + f)(l + f + 1)/2 + f`; influence is
cumulative, so that a viewer's slider prunes. Ids are those of circuit-tracer but for errors, whose `0_layer_position`
is that of a feature of layer 0 there; sparse heads (`lorsa`) and their errors are named as by Neuronpedia's exporter of
them, their errors likewise. What the format has no place for (weights of nodes, what was left out, constants)
stands under a key of its own, which other readers pass by.
"""

from collections.abc import Iterable, Mapping
import json
from pathlib import Path
import re
import time
from typing import Any

import numpy as np

from interp_jax.io.files import replacing

TYPES = {  # as the format names kinds
    "feature": "cross layer transcoder",
    "error": "mlp reconstruction error",
    "embedding": "embedding",
    "constant": "bias",
    "logit": "logit",
    "direction": "logit",
    "lorsa": "lorsa",
    "lorsa error": "lorsa error",
}
KINDS = tuple(TYPES)
FEATURES, ERRORS = ("feature", "lorsa"), ("error", "lorsa error")  # kinds of MLPs, and of sparse heads
VERSION, OURS = 1, "interp_jax"


def node_id(kind: str, layer: int, index: int, position: int, *, n_layers: int = 0, number: int = 0) -> str:
    """A name for a node that no other node has: `3_17_5` is feature 17 of layer 3 at position 5.

    `n_layers` is asked of a logit alone, the node's number of a direction.

    Example:
      >>> node_id("feature", 3, 17, 5), node_id("error", 0, -1, 5)
      ('3_17_5', 'error_0_5')
    """
    shown = {"embedding": "E", "logit": n_layers + 1, "feature": layer, "lorsa": f"{layer}_lor"}.get(kind)
    if shown is not None:
        return f"{shown}_{index}_{position}"
    if kind in ERRORS:
        return f"error_{'attn_' * (kind != 'error')}{layer}_{position}"
    return kind if kind == "constant" else f"{kind}_{number}_{position}"


def cantor(layer: int, feature: int) -> int:
    """One number for a layer and a feature: Cantor's pairing.

    Example:
      >>> cantor(2, 3)
      18
    """
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def to_json(
    graph: Any,
    path: str | Path,
    *,
    slug: str | None = None,
    scan: str = "interp_jax",
    feature_details: Mapping[str, str] | None = None,
    node_threshold: float = 0.8,
    pins: Any = (),
    looking: Mapping[int, Any] | None = None,
) -> Path:
    """Writes a graph, whole or not at all, and lists it in `graph-metadata.json` beside it.

    Args:
      graph: a `Graph`, best a pruned one, since every edge is written.
      path: of the file, `<slug>.json`; or a folder.
      slug: the graph's name; that of the file by default.
      scan: which model and transcoders it is of, as a viewer knows them.
      feature_details: where a viewer finds features, as `feature_json_base_url` or `neuronpedia_source_set`, and those
        of sparse heads, `neuronpedia_lorsa_source_set`.
      node_threshold: from where a viewer prunes at first.
      pins: numbers of the nodes that are shown.
      looking: by number of a node, the `Looking` that is told with it: what makes a head look that it is about.

    Returns:
      The path of the file.

    Raises:
      ValueError: a slug that is no plain name, a graph with numbers that are not finite.
    """
    path = Path(path)
    if path.suffix != ".json":
        path = path / f"{slug or 'graph'}.json"
    slug = path.stem if slug is None else slug
    if not re.fullmatch(r"[\w.-]+", slug):
        raise ValueError(f"to_json: slug={slug!r}: give letters, digits, '-', '_' and '.' alone")
    if not (np.isfinite(graph.edges.data).all() and np.isfinite(graph.activation).all()):
        raise ValueError("to_json: the graph has numbers that are not finite")
    ids = graph.ids
    metadata = {
        "slug": slug,
        "scan": scan,
        "prompt_tokens": list(graph.tokens),
        "prompt": "".join(graph.tokens),
        "node_threshold": node_threshold,
        "schema_version": VERSION,
        "info": {"generator": {"name": OURS}, "create_time_ms": int(time.time() * 1000)},
        **({} if feature_details is None else {"feature_details": dict(feature_details)}),
    }
    nodes, results = _nodes(graph, ids), {node: one.results() for node, one in (looking or {}).items()}
    for node, one in results.items():
        nodes[node]["qk_tracing_results"] = one
    groups = [[name, *(ids[node] for node in some)] for name, some in graph.groups.items()]
    edges = graph.edges.tocoo()
    made = {
        "metadata": metadata,
        "qParams": {"pinnedIds": [ids[node] for node in pins], "supernodes": groups, "linkType": "both"},
        "nodes": nodes,
        "links": [
            {"source": ids[source], "target": ids[target], "weight": float(weight)}
            for target, source, weight in zip(edges.row, edges.col, edges.data, strict=True)
        ],
        "qk_only_nodes": _beside(results.values(), set(ids)),
        OURS: {
            "n_layers": graph.n_layers,
            "kind": [KINDS[kind] for kind in graph.kind],
            **{name: getattr(graph, name).tolist() for name in ("layer", "position", "index", "weight", "rest")},
            "info": dict(graph.info),
        },
    }
    _write(path, made)
    _list(path.parent / "graph-metadata.json", metadata)
    return path


def _nodes(graph: Any, ids: tuple[str, ...]) -> list[dict[str, Any]]:
    influence = graph.influence()
    order = np.argsort(-influence)
    total = max(influence.sum(), 1e-300)
    cumulative = np.empty(len(graph))
    cumulative[order] = influence[order].cumsum() / total
    nodes = []
    for number, name in enumerate(ids):
        kind, layer = KINDS[graph.kind[number]], int(graph.layer[number])
        position, index = max(int(graph.position[number]), 0), int(graph.index[number])
        feature = cantor(layer, index) if kind in FEATURES else -1 if kind in ERRORS else index
        shown = {"embedding": "E", "constant": "E", "logit": graph.n_layers + 1, "direction": graph.n_layers + 1}
        node = {
            "node_id": name,
            "jsNodeId": f"{name}-0",
            "feature": feature,
            "layer": str(shown.get(kind, layer)),
            "ctx_idx": position,
            "feature_type": TYPES[kind],
            "clerp": graph.names.get(number, ""),
            "influence": None if graph.weight[number] > 0 else float(cumulative[number]),
            "activation": float(graph.activation[number]) if kind in FEATURES else None,
            "token_prob": float(graph.weight[number]),
            "is_target_logit": kind in ("logit", "direction"),
        }
        nodes.append(node)
    return nodes


def _beside(results: Iterable[Mapping[str, Any]], known: set[str]) -> dict[str, dict[str, Any]]:
    """What is told of contributors that are no nodes of the graph."""
    parts = [part for one in results for some in one.values() for row in some for part in row[:-1]]
    found = {}
    for name in dict.fromkeys(part for part in parts if part not in known):
        kind, layer, index, position = _read(name)
        feature = cantor(int(layer), index) if kind in FEATURES else None
        found[name] = {
            "node_id": name,
            "jsNodeId": f"{name}-0",
            "feature": feature,
            "layer": layer,
            "ctx_idx": position,
            "feature_type": TYPES[kind],
            "clerp": "",
            "activation": None,
        }
    return found


def _read(name: str) -> tuple[str, str, int, int]:
    """The kind, the layer as it is shown, the number and the position that a node's name tells."""
    if name == "constant":
        return "constant", "E", -1, 0
    *first, position = name.split("_")
    if first[0] == "error":
        return ERRORS[first[1] == "attn"], first[-1], -1, int(position)
    kind = "embedding" if first[0] == "E" else FEATURES[first[1] == "lor"]
    return kind, first[0], int(first[-1]), int(position)


def _list(path: Path, metadata: dict[str, Any]) -> None:
    """Adds a graph to the list of those in a folder, in the place of one of its name."""
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["graphs"]
    except FileNotFoundError:
        there = []
    listed = [one for one in there if one.get("slug") != metadata["slug"]]
    _write(path, {"graphs": [*listed, metadata]})


def _write(path: Path, values: Any) -> None:
    with replacing(path) as new:
        new.write_text(json.dumps(values), encoding="utf-8")
