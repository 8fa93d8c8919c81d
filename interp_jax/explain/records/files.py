"""Records as a folder.

card.json                    what is recorded: names, shapes, tokens
text.safetensors             tokens and mask, which all records share
<number>.safetensors         the arrays of one site
explanations.jsonl           what was said of its units, where something was
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
import json
from pathlib import Path
from typing import Any

import numpy as np

from interp_jax.explain.records.firings import Firings
from interp_jax.explain.records.records import Records
from interp_jax.explain.records.tallies import Examples
from interp_jax.io.files import replacing

VERSION = 1
CARD, TEXT = "card.json", "text.safetensors"
SHARED = ("tokens", "mask")
PLAIN = ("counts", "sums", "maxima", "histogram", "pairs", "totals", "lost", "held_rows")
RANKED = ("raised", "lowered", "nearest")


def save_records(folder: str | Path, records: Mapping[str, Records], **said: Any) -> None:
    """Writes records to a folder: safetensors, and a card that says what they are.

    Args:
      folder: the folder, which is made; records that are there are replaced.
      records: from `record`, of one corpus.
      **said: what else the card says, such as `model="microworld"`; values that JSON has.

    Raises:
      ValueError: no records.

    Example:
      >>> import tempfile, jax
      >>> from interp_jax import explain, models
      >>> model, _ = models.load("microworld")
      >>> tokens = jax.random.randint(jax.random.key(0), (8, 12), 3, 641)
      >>> found = explain.record(models.forward, {"blocks.2.mlp.post": None})(model, tokens)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     explain.save_records(folder, found)
      ...     same = explain.load_records(folder)
      >>> bool((same["blocks.2.mlp.post"].counts == found["blocks.2.mlp.post"].counts).all())
      True
    """
    from safetensors.numpy import save_file

    if not records:
        raise ValueError(f"{folder}: no records to save")
    folder, one = Path(folder), next(iter(records.values()))
    with replacing(folder / TEXT) as new:
        save_file({name: np.ascontiguousarray(getattr(one, name)) for name in SHARED}, new)
    card: dict[str, Any] = {"version": VERSION, **said, "n_tokens": one.n_tokens, "records": []}
    for number, (name, found) in enumerate(records.items()):
        file = f"{number}.safetensors"
        with replacing(folder / file) as new:
            save_file(_arrays(found), new)
        related = list(found.correlated)
        card["records"].append(
            {"name": name, "file": file, "kind": found.kind, "shape": list(found.shape), "correlated": related}
        )
    with replacing(folder / CARD) as new:  # last: a folder with a card is whole
        new.write_text(json.dumps(card, indent=1), encoding="utf-8")


def load_records(folder: str | Path) -> dict[str, Records]:
    """The records of a folder, by the address of their site.

    Raises:
      FileNotFoundError: there are none in the folder.
      ValueError: it is of another version, or a file is broken.
    """
    card = load_card(folder)
    text: Any = _read(Path(folder) / TEXT)
    found = {}
    for one in card["records"]:
        arrays = _read(Path(folder) / one["file"])
        related = {
            name: (arrays[f"correlated.{i}.0"], arrays[f"correlated.{i}.1"]) for i, name in enumerate(one["correlated"])
        }
        held: Any = {name: arrays[f"held.{name}"] for name in ("places", "values", "starts")}
        n_held = int(text["mask"][arrays["held_rows"]].sum())
        shape = (len(arrays["held_rows"]), text["tokens"].shape[1])
        plain: Any = {field: arrays[field] for field in PLAIN}
        ranked: Any = {
            field: (arrays[f"{field}.0"], arrays[f"{field}.1"]) if f"{field}.0" in arrays else None for field in RANKED
        }
        found[one["name"]] = Records(
            name=one["name"],
            kind=one["kind"],
            shape=tuple(one["shape"]),
            strongest=examples(arrays, "strongest"),
            by_chance=examples(arrays, "by_chance"),
            held=Firings(**held, shape=shape, n_tokens=n_held),
            correlated=related,
            **plain,
            **ranked,
            **text,
        )
    return found


def load_card(folder: str | Path) -> dict[str, Any]:
    """What the card of a folder of records says.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is not a card of this version.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: no records ({CARD}) there; make them with interp-jax records")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        version = card["version"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: is no card of records; make them anew with interp-jax records") from None
    if version != VERSION:
        raise ValueError(f"{path}: version {version}, this reads {VERSION}; make them anew with interp-jax records")
    return card


def flat(prefix: str, value: Any) -> dict[str, np.ndarray]:
    """The arrays in dataclasses, tuples and dicts of them, named by where they stand; what else is there is left out.

    Example:
      >>> import numpy as np
      >>> sorted(flat("a", {"b": (np.zeros(1), np.ones(1)), "c": None}))
      ['a.b.0', 'a.b.1']
    """
    if isinstance(value, np.ndarray):
        return {prefix: np.ascontiguousarray(value)}
    if is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, dict):
        parts = value
    elif isinstance(value, tuple):
        parts = dict(enumerate(value))
    else:
        return {}
    dot = f"{prefix}." if prefix else ""
    return {name: x for key, part in parts.items() for name, x in flat(f"{dot}{key}", part).items()}


def _arrays(records: Records) -> dict[str, np.ndarray]:
    """Those of one site; what it is correlated with goes by number, since names have dots."""
    named = {field.name: getattr(records, field.name) for field in fields(records) if field.name not in SHARED}
    return flat("", named | {"correlated": tuple(records.correlated.values())})


def examples(arrays: Mapping[str, np.ndarray], name: str) -> Examples:
    """Examples whose arrays `flat` named."""
    return Examples(**{field.name: arrays[f"{name}.{field.name}"] for field in fields(Examples)})


def _read(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, FileNotFoundError):
        raise ValueError(f"{path}: is broken or missing; make the records anew with interp-jax records") from None
