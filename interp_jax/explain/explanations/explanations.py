"""Explanations of units with their scores, and the file that they are kept in, one line each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
import json
import math
import os
from pathlib import Path
from typing import Any

from interp_jax.explain.explanations.estimates import Score

FILE = "explanations.jsonl"
Key = tuple[str, int, str]


@dataclass(frozen=True)
class Explanation:
    """What a unit fires on, in words.

    Attributes:
      records: the name of the records that the unit is of, such as "blocks.2.resid_post".
      unit: its number.
      text: the explanation.
      explainer: what made it.
      scores: how well it tells where the unit fires, by the score's name.
    """

    records: str
    unit: int
    text: str
    explainer: str
    scores: Mapping[str, Score] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Of which there is one: the records, the unit and the explainer."""
        return self.records, self.unit, self.explainer

    def line(self) -> str:
        """As a line of the file. Numbers that are not finite are left out: JSON has none."""
        finite = {name: score for name, score in self.scores.items() if math.isfinite(score.value)}
        scores = {
            name: {end: x for end, x in score._asdict().items() if math.isfinite(x)} for name, score in finite.items()
        }
        said = {"records": self.records, "unit": self.unit, "text": self.text, "explainer": self.explainer}
        return json.dumps({**said, "scores": scores}, ensure_ascii=False)


def save_explanation(path: str | Path, explanation: Explanation) -> None:
    """Appends an explanation to a file, on disk when this returns. A last line that was torn off is dropped first.

    Args:
      path: `explanations.jsonl`, or the folder that it is in, such as that of records.
      explanation: what to append.
    """
    path = _file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        end = _whole(path.read_bytes())
        file.truncate(end)
        file.seek(end)
        file.write(explanation.line().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def load_explanations(path: str | Path) -> dict[Key, Explanation]:
    """The explanations of a file, by `Explanation.key`: the last one of each, without a last line that was torn off.

    Args:
      path: `explanations.jsonl`, or the folder that it is in. Where there is none, there are no explanations.

    Raises:
      ValueError: a line is not an explanation; the message names it.

    Example:
      >>> import pathlib, tempfile
      >>> from interp_jax import explain
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     explain.save_explanation(folder, explain.Explanation("blocks.0.mlp.post", 7, "cats", "marks"))
      ...     with pathlib.Path(folder, "explanations.jsonl").open("a") as file:
      ...         _ = file.write('{"records": "blocks.0.mlp')  # the process was killed here
      ...     list(explain.load_explanations(folder))
      [('blocks.0.mlp.post', 7, 'marks')]
    """
    path = _file(path)
    if not path.exists():
        return {}
    whole = path.read_bytes()
    found = {}
    for i, line in enumerate(whole[: _whole(whole)].splitlines(), 1):
        if not line.strip():
            continue
        try:
            explanation = _parsed(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: line {i} is no explanation ({type(error).__name__}: {error}); remove it"
            ) from None
        found[explanation.key] = explanation
    return found


def _parsed(said: Any) -> Explanation:
    unknown = {"low": math.nan, "high": math.nan}  # of a score that was given without an interval
    scores = {
        name: Score(**{key: float(x) for key, x in (unknown | score).items()}) for name, score in said["scores"].items()
    }
    return Explanation(str(said["records"]), int(said["unit"]), str(said["text"]), str(said["explainer"]), scores)


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".jsonl" else path / FILE


def _whole(text: bytes) -> int:
    """Up to where the lines are whole."""
    return text.rfind(b"\n") + 1
