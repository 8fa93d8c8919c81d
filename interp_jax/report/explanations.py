"""What was said of units, and how well it held: lines of `explanations.jsonl` in a folder of records.

A line is `{"records": name, "unit": int, "text": str, "explainer": str, "scores": {name: {"value", "low", "high"}}}`.
"""

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import numpy as np

FILE = "explanations.jsonl"


@dataclass(frozen=True)
class Said:
    """One explanation of a unit.

    Attributes:
      text: in words.
      explainer: who said it, such as the name of a language model.
      scores: name of a score -> its value, and the ends of its interval, or None where it has none.
    """

    text: str
    explainer: str
    scores: dict[str, tuple[float, float | None, float | None]]


def read_explanations(folder: str | Path) -> dict[tuple[str, int], tuple[Said, ...]]:
    """The explanations in a folder of records, by the name of the records and the unit; none where there is no file.

    Raises:
      ValueError: a line is not of that form; the message has its number.

    Example:
      >>> import pathlib, tempfile
      >>> from interp_jax import report
      >>> line = '{"records": "logits", "unit": 3, "text": "dogs", "explainer": "me", "scores": {}}'
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = pathlib.Path(folder, "explanations.jsonl").write_text(line)
      ...     report.read_explanations(folder)
      {('logits', 3): (Said(text='dogs', explainer='me', scores={}),)}
    """
    path = Path(folder) / FILE
    found: dict[tuple[str, int], tuple[Said, ...]] = {}
    if not path.is_file():
        return found
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            key = (str(one["records"]), int(one["unit"]))
            scores = {str(name): _score(score) for name, score in one["scores"].items()}
            said = Said(str(one["text"]), str(one["explainer"]), scores)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path}: line {number} is no explanation; it needs records, unit, text, explainer and scores with a "
                "value each; remove it, or explain anew"
            ) from None
        found[key] = (*found.get(key, ()), said)
    return found


def _score(score: dict[str, Any]) -> tuple[float, float | None, float | None]:
    """A value that is no number is told as none was, and so is an end of an interval."""
    low, high = (_finite(score.get(end)) for end in ("low", "high"))
    return float(score["value"]), low, high


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
