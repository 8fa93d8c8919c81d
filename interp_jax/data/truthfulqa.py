"""TruthfulQA: questions that people often answer falsely, with true and false answers.

Reference: Lin, Hilton and Evans (2022), "TruthfulQA: measuring how models mimic human falsehoods",
https://arxiv.org/abs/2109.07958.
"""

import csv
from pathlib import Path
from typing import NamedTuple

_COLUMNS = ("Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers")


class Question(NamedTuple):
    """A question, the best of its true answers, all true ones with it, and false ones."""

    category: str
    text: str
    best: str
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]


def read(file: str | Path) -> list[Question]:
    """The questions of TruthfulQA's CSV file, in their order.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a column is missing.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile("w") as stream:
      ...     _ = stream.write("Category,Question,Best Answer,Correct Answers,Incorrect Answers\\n")
      ...     _ = stream.write("Myths,Is it?,No,No; It is not,Yes\\n")
      ...     stream.flush()
      ...     (only,) = read(stream.name)
      >>> only.text, only.correct, only.incorrect
      ('Is it?', ('No', 'It is not'), ('Yes',))
    """
    with open(file, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        if missing := set(_COLUMNS) - set(reader.fieldnames or ()):
            raise ValueError(f"{file}: not TruthfulQA: there is no column {', '.join(sorted(missing))}")
        rows = list(reader)
    found = []
    for row in rows:
        correct, incorrect = (
            tuple(one.strip() for one in row[column].split(";") if one.strip()) for column in _COLUMNS[3:]
        )
        best = row["Best Answer"].strip()
        found.append(
            Question(row["Category"], row["Question"], best, tuple(dict.fromkeys((best, *correct))), incorrect)
        )
    return found
