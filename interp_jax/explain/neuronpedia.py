"""Records as the rows of Neuronpedia's import: in one go what users of its tools do in ten steps.

An example of the strongest has the bin -1; of an interval it has the interval's ends and the share of firings in it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
import uuid

import numpy as np

from interp_jax import graphs
from interp_jax.explain.explanations.explanations import Explanation
from interp_jax.explain.records import relations
from interp_jax.explain.records.excerpts import Excerpt
from interp_jax.explain.records.records import Records
from interp_jax.explain.records.tallies import EDGES
from interp_jax.io import neuronpedia

BATCH = 128  # features in a file
N_TOP, N_SAMPLED, N_ALIGNED, N_BARS = 20, 5, 3, 50


@dataclass(frozen=True)
class Release:
    """How a dictionary is called on Neuronpedia.

    Attributes:
      model: the model's id there, such as "gemma-2-2b".
      layer: of the dictionary.
      source_set: an id of all dictionaries of this kind, such as "gemmascope-res-16k".
      name: the release's id.
      title: what the release is called.
      creator: who made it.
      urls: of a paper, of the weights.
      creator_id: the user of the database that is to own the rows.
      hook: the site in TransformerLens's spelling, such as "blocks.20.hook_resid_post".
      n_layers, d_mlp: of the model.
    """

    model: str
    layer: int
    source_set: str
    name: str
    title: str
    creator: str
    hook: str
    n_layers: int
    d_mlp: int
    urls: tuple[str, ...] = ()
    creator_id: str = "clkht01d40000jv08hvalcvly"  # Neuronpedia's own default

    @property
    def source(self) -> str:
        """The id of the dictionary: the layer and the source set."""
        return f"{self.layer}-{self.source_set}"


def to_neuronpedia(
    folder: str | Path,
    records: Records,
    dictionary: Any,
    strings: Sequence[str],
    release: Release,
    *,
    effects: Callable[[Any], Any] | None = None,
    explanations: Sequence[Explanation] = (),
    neurons: Records | None = None,
) -> int:
    """Writes the folder that Neuronpedia imports.

    Args:
      folder: where to; it must be empty or not there.
      records: of the dictionary's features, from `record`.
      dictionary: what was recorded, with one decoder row for each feature.
      strings: the text of every token of the vocabulary.
      release: how it is called there.
      effects: as of `record`; None leaves out the histogram of logits.
      explanations: of units, of which those of these records are told.
      neurons: records of neurons of the same pass, whose correlations are told too.

    Returns:
      How many features were written.

    Raises:
      ValueError: a dictionary of another width than the records.
      FileExistsError: the folder holds something.
    """
    rows = relations.Writing.of(dictionary).stream
    if rows is None or len(rows) != records.n_units:
        raise ValueError(
            f"to_neuronpedia: a {type(dictionary).__name__} of {dictionary.feature_shape} features for records of "
            f"{records.n_units} that write one row each; give the dictionary that was recorded"
        )
    now = datetime.now(UTC).isoformat()
    related = {
        "features": _related(records, records),
        "neurons": None if neurons is None else _related(records, neurons),
    }

    def batches() -> Iterator[dict[str, list[dict[str, Any]]]]:
        for start in range(0, records.n_units, BATCH):
            units = range(start, min(start + BATCH, records.n_units))
            logits = None if effects is None else effects(rows[units.start : units.stop])
            features = [
                _feature(records, unit, rows[unit], strings, release, None if logits is None else logits[unit - start])
                | _correlated(related, unit)
                | {"createdAt": now}
                for unit in units
            ]
            examples = (row for unit in units for row in _activations(records, unit, strings, release))
            active = [row | {"createdAt": now} for row in examples]
            said = [one for one in explanations if one.unit in units and one.records == records.name]
            yield {
                "features": features,
                "activations": active,
                "explanations": [_explanation(one, release) | {"createdAt": now, "updatedAt": now} for one in said],
            }

    return neuronpedia.save(folder, _single(records, release, now), batches())


def feature_details(records: Records, unit: int, strings: Sequence[str]) -> graphs.FeatureDetails:
    """What viewers of graphs show of a unit: its examples by interval, and the tokens that it raises and lowers.

    Args:
      records: from `record`.
      unit: its number.
      strings: the text of every token of the vocabulary.
    """
    examples = {"Top": records.top(unit, strings, N_TOP)}
    examples |= {f"{low:.2f} to {high:.2f}": some for low, high, some in records.intervals(unit, strings, N_SAMPLED)}
    shown = {name: [(e.tokens, e.values) for e in some] for name, some in examples.items()}
    tokens = ([] if r is None else [strings[int(t)] for t in r[0][unit]] for r in (records.raised, records.lowered))
    return graphs.FeatureDetails(unit, shown, *tokens)


def _single(records: Records, release: Release, now: str) -> dict[str, dict[str, Any]]:
    owner = {"creatorId": release.creator_id, "createdAt": now}
    urls = list(release.urls)
    return {
        "release": {
            "name": release.name,
            "description": release.title,
            "descriptionShort": release.title,
            "urls": urls,
            "creatorName": release.creator,
            "creatorNameShort": release.creator,
            "defaultSourceSetName": release.source_set,
            **owner,
        },
        "model": {
            "id": release.model,
            "displayName": release.model,
            "displayNameShort": release.model,
            "layers": release.n_layers,
            "neuronsPerLayer": release.d_mlp,
            "owner": release.creator,
            "instruct": False,
            "defaultSourceSetName": release.source_set,
            "updatedAt": now,
            **owner,
        },
        "sourceset": {
            "modelId": release.model,
            "name": release.source_set,
            "description": release.title,
            "creatorName": release.creator,
            "releaseName": release.name,
            "urls": urls,
            "visibility": "PUBLIC",
            **owner,
        },
        "source": {
            "id": release.source,
            "modelId": release.model,
            "setName": release.source_set,
            "visibility": "PUBLIC",
            "hasDashboards": True,
            "num_prompts": len(records.tokens),
            "num_tokens_in_prompt": records.tokens.shape[1],
            **owner,
        },
    }


def _feature(
    records: Records, unit: int, row: np.ndarray, strings: Sequence[str], release: Release, logits: Any
) -> dict[str, Any]:
    aligned = np.argsort(-np.abs(row))[:N_ALIGNED]
    occupied = np.flatnonzero(records.histogram[unit])
    bars = range(occupied[0], occupied[-1] + 1) if len(occupied) else range(0)
    heights, edges = (np.zeros(0), np.zeros(1)) if logits is None else np.histogram(np.asarray(logits), N_BARS)
    told: dict[str, Any] = {}
    for sign, ranked in (("pos", records.raised), ("neg", records.lowered)):
        told[f"{sign}_str"] = [] if ranked is None else [strings[int(token)] for token in ranked[0][unit]]
        told[f"{sign}_values"] = [] if ranked is None else _floats(ranked[1][unit])
    return told | {
        "modelId": release.model,
        "layer": release.source,
        "index": str(unit),
        "sourceSetName": release.source_set,
        "creatorId": release.creator_id,
        "maxActApprox": float(records.maxima[unit]),
        "frac_nonzero": float(records.densities[unit]),
        "hasVector": True,
        "vector": _floats(row),
        "vectorLabel": None,
        "vectorDefaultSteerStrength": float(records.maxima[unit]),
        "hookName": release.hook,
        "topkCosSimIndices": [] if records.nearest is None else _wholes(records.nearest[0][unit]),
        "topkCosSimValues": [] if records.nearest is None else _floats(records.nearest[1][unit]),
        "neuron_alignment_indices": _wholes(aligned),
        "neuron_alignment_values": _floats(row[aligned]),
        "neuron_alignment_l1": _floats(row[aligned] / max(np.abs(row).sum(), 1e-12)),
        "freq_hist_data_bar_heights": [int(records.histogram[unit, i]) for i in bars],
        "freq_hist_data_bar_values": [float((EDGES[i] + EDGES[i + 1]) / 2) for i in bars],
        "logits_hist_data_bar_heights": _wholes(heights),
        "logits_hist_data_bar_values": _floats((edges[:-1] + edges[1:]) / 2),
        "decoder_weights_dist": [],
    }


def _related(records: Records, others: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices, Pearson's r and cosines of the units of others that fire like each, `[unit n]`."""
    ids, r = records.correlated[others.name]
    return ids, r, relations.cosines(records, others, ids)


def _correlated(related: Mapping[str, Any], unit: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for kind, found in related.items():
        ids, r, cosines = ([], [], []) if found is None else (column[unit] for column in found)
        told |= {
            f"correlated_{kind}_indices": _wholes(ids),
            f"correlated_{kind}_pearson": _floats(r),
            f"correlated_{kind}_l1": _floats(cosines),  # which is what the database has under this name
        }
    return told


def _activations(records: Records, unit: int, strings: Sequence[str], release: Release) -> Iterator[dict[str, Any]]:
    for excerpt in records.top(unit, strings, N_TOP):
        yield _activation(excerpt, unit, release, -1.0, float(records.maxima[unit]), -1.0)
    cumulative = np.append(0, np.cumsum(records.histogram[unit]))
    for low, high, excerpts in records.intervals(unit, strings, N_SAMPLED):
        below = np.interp([max(low, EDGES[0]), max(high, EDGES[0])], EDGES, cumulative)
        share = float((below[1] - below[0]) / max(cumulative[-1], 1))
        for excerpt in excerpts:
            yield _activation(excerpt, unit, release, low, high, share)


def _activation(excerpt: Excerpt, unit: int, release: Release, low: float, high: float, share: float) -> dict[str, Any]:
    values = _floats(np.array(excerpt.values))
    largest = max(range(len(values)), key=values.__getitem__)
    return {
        "id": f"c{uuid.uuid4().hex[:24]}",
        "modelId": release.model,
        "layer": release.source,
        "index": str(unit),
        "creatorId": release.creator_id,
        "tokens": list(excerpt.tokens),
        "values": values,
        "maxValue": values[largest],
        "maxValueTokenIndex": largest,
        "minValue": min(values),
        "binMin": low,
        "binMax": high,
        "binContains": share,
        "qualifyingTokenIndex": excerpt.focus,
        "dfaValues": [],
        "dfaTargetIndex": None,
        "dfaMaxValue": None,
        "lossValues": [],
        "logitContributions": None,
        "dataIndex": None,
        "dataSource": None,
    }


def _explanation(one: Explanation, release: Release) -> dict[str, Any]:
    return {
        "id": f"c{uuid.uuid4().hex[:24]}",
        "modelId": release.model,
        "layer": release.source,
        "index": str(one.unit),
        "description": one.text,
        "authorId": release.creator_id,
        "triggeredByUserId": None,
        "notes": None,
        "typeName": "interp_jax",
        "explanationModelName": one.explainer,
    }


def _floats(values: Any) -> list[float]:
    """With the digits that float32 has."""
    return [float(f"{value:.7g}") for value in np.asarray(values, np.float64)]


def _wholes(values: Any) -> list[int]:
    return [int(value) for value in values]
