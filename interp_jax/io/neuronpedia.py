"""The folder that Neuronpedia imports: what is told of a dictionary, its features and their activations.

    release.jsonl model.jsonl sourceset.jsonl source.jsonl      one line each
    features/batch-N.jsonl.gz                                   a line a feature, of a batch of them
    activations/batch-N.jsonl.gz                                a line a text in which one is active
    explanations/batch-N.jsonl.gz                               a line an explanation, where there are some

A row has the columns of Neuronpedia's database (apps/webapp/prisma/schema.prisma there). Numbers that JSON has not are
refused. Every row is checked when it is written and when it is read.
"""

from collections.abc import Iterable, Iterator, Mapping
import gzip
import json
import math
from pathlib import Path
from typing import Any

from interp_jax.io.files import replacing

Row = Mapping[str, Any]

TEXT, WHOLE, NUMBER, YES_NO = str, int, (int, float), bool
TEXTS, WHOLES, NUMBERS = [TEXT], [WHOLE], [NUMBER]  # lists of these

_OF_FEATURES = ("correlated_neurons", "correlated_features", "neuron_alignment")
SCHEMAS: dict[str, dict[str, Any]] = {
    "release": {"name": TEXT, "description": TEXT, "urls": TEXTS, "creatorName": TEXT, "defaultSourceSetName": TEXT},
    "model": {"id": TEXT, "displayName": TEXT, "layers": WHOLE, "neuronsPerLayer": WHOLE, "owner": TEXT},
    "sourceset": {"modelId": TEXT, "name": TEXT, "description": TEXT, "creatorName": TEXT, "releaseName": TEXT},
    "source": {"id": TEXT, "modelId": TEXT, "setName": TEXT, "num_prompts": WHOLE, "num_tokens_in_prompt": WHOLE},
    "features": {
        "modelId": TEXT,
        "layer": TEXT,
        "index": TEXT,
        "maxActApprox": NUMBER,
        "frac_nonzero": NUMBER,
        "hasVector": YES_NO,
        "vector": NUMBERS,
        "topkCosSimIndices": WHOLES,
        "topkCosSimValues": NUMBERS,
        **{f"{kind}_indices": WHOLES for kind in _OF_FEATURES},
        "neuron_alignment_values": NUMBERS,
        "correlated_neurons_pearson": NUMBERS,
        "correlated_features_pearson": NUMBERS,
        **{f"{kind}_l1": NUMBERS for kind in _OF_FEATURES},
        **{f"{sign}_str": TEXTS for sign in ("pos", "neg")},
        **{f"{sign}_values": NUMBERS for sign in ("pos", "neg")},
        **{f"{kind}_hist_data_bar_{part}": NUMBERS for kind in ("freq", "logits") for part in ("heights", "values")},
        "decoder_weights_dist": NUMBERS,
    },
    "activations": {
        "id": TEXT,
        "modelId": TEXT,
        "layer": TEXT,
        "index": TEXT,
        "tokens": TEXTS,
        "values": NUMBERS,
        "maxValue": NUMBER,
        "maxValueTokenIndex": WHOLE,
        "minValue": NUMBER,
        "binMin": NUMBER,
        "binMax": NUMBER,
        "binContains": NUMBER,
        "qualifyingTokenIndex": WHOLE,
    },
    "explanations": {
        "id": TEXT,
        "modelId": TEXT,
        "layer": TEXT,
        "index": TEXT,
        "description": TEXT,
        "authorId": TEXT,
        "typeName": TEXT,
        "explanationModelName": TEXT,
    },
}
SINGLE = ("release", "model", "sourceset", "source")
LONG_AS = {"pos_str": "pos_values", "neg_str": "neg_values", "tokens": "values"}  # columns that go together


def save(folder: str | Path, single: Mapping[str, Row], batches: Iterable[Mapping[str, Iterable[Row]]]) -> int:
    """Writes a folder, a batch at a time, so that a large dictionary need not be in memory at once.

    Args:
      folder: where to; it must be empty or not there.
      single: "release", "model", "sourceset" and "source" -> the row.
      batches: of each batch "features", "activations" and, where there are some, "explanations" -> rows.

    Returns:
      How many features were written.

    Raises:
      FileExistsError: the folder holds something.
      ValueError: a row lacks a column, or has something else in it than its schema says.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder}: is not empty; Neuronpedia would import what is in it too; give another")
    n_features = 0
    for number, batch in enumerate(batches):
        for kind, rows in batch.items():
            lines = [_line(kind, row) for row in rows]
            n_features += len(lines) if kind == "features" else 0
            if lines:
                with replacing(folder / kind / f"batch-{number}.jsonl.gz") as new:
                    new.write_bytes(gzip.compress("".join(lines).encode(), 5, mtime=0))
    for kind in SINGLE:  # last: what says that the folder is whole
        with replacing(folder / f"{kind}.jsonl") as new:
            new.write_text(_line(kind, single[kind]), encoding="utf-8")
    return n_features


def load(folder: str | Path) -> tuple[dict[str, dict[str, Any]], Iterator[tuple[str, dict[str, Any]]]]:
    """Reads a folder as Neuronpedia does, and checks that its parts belong together.

    Returns:
      "release", "model", "sourceset" and "source" -> the row; and an iterator of `(kind, row)` over all batches, the
      features of each before what is told of them.

    Raises:
      FileNotFoundError: one of the four files is not there.
      ValueError: a line is not JSON, or a row is not what its schema says; of the iterator, also where a row is of
        another model or source, or of a feature that is not there.
    """
    folder = Path(folder)
    single = {}
    for kind in SINGLE:
        path = folder / f"{kind}.jsonl"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: is missing; a folder that Neuronpedia imports has it")
        (single[kind],) = [_row(kind, path, line) for line in path.read_text(encoding="utf-8").splitlines()]
    source, model = single["source"], single["model"]["id"]
    related = {
        "sourceset": (single["sourceset"]["modelId"], single["sourceset"]["releaseName"]),
        "source": (source["modelId"], source["setName"]),
    }
    if related != {"sourceset": (model, single["release"]["name"]), "source": (model, single["sourceset"]["name"])}:
        raise ValueError(f"{folder}: release, model, source set and source are not of one another")
    return single, _batches(folder, model, source["id"])


def _batches(folder: Path, model: str, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    known: set[str] = set()
    paths = sorted(
        (folder / "features").glob("batch-*.jsonl.gz"), key=lambda path: int(path.name.split("-")[1].split(".")[0])
    )
    for path in paths:
        for kind in ("features", "activations", "explanations"):
            here = folder / kind / path.name
            if not here.exists():
                continue
            with gzip.open(here, "rt", encoding="utf-8") as lines:
                for line in lines:
                    row = _row(kind, here, line)
                    if kind == "features":
                        known.add(row["index"])
                    if (row["modelId"], row["layer"]) != (model, source) or row["index"] not in known:
                        raise ValueError(f"{here}: {row['modelId']}/{row['layer']}/{row['index']} is no feature here")
                    yield kind, row


def check(kind: str, row: Row) -> None:
    """Raises ValueError where a row lacks a column, or has something else in it than its schema says."""
    for column, wanted in SCHEMAS[kind].items():
        if column not in row:
            raise ValueError(f"neuronpedia: a row of {kind} without {column!r}")
        if not _is(row[column], wanted):
            raise ValueError(f"neuronpedia: {kind} with {column}={row[column]!r:.60}, which the schema does not allow")
    for column, other in LONG_AS.items():
        if column in SCHEMAS[kind] and len(row[column]) != len(row[other]):
            raise ValueError(f"neuronpedia: {len(row[column])} {column} for {len(row[other])} {other}")


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(value, list) and all(_is(one, wanted[0]) for one in value)
    if isinstance(value, bool) and wanted is not YES_NO:
        return False
    return isinstance(value, wanted) and (not isinstance(value, float) or math.isfinite(value))


def _line(kind: str, row: Row) -> str:
    check(kind, row)
    return json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n"


def _row(kind: str, path: Path, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise ValueError(f"{path}: a line is not JSON") from None
    if not isinstance(row, dict):
        raise ValueError(f"{path}: a line is no object")
    check(kind, row)
    return row
