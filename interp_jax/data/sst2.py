"""The Stanford Sentiment Treebank, of two classes: phrases of film reviews, each negative or positive.

Socher et al. 2013, "Recursive deep models for semantic compositionality over a sentiment treebank". A file is the
table of GLUE: a header, then a sentence, a tab, and 0 or 1 a line.
Caveat: phrases of one review may stand in several files; `apart` takes out of one set what another has in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER = ["sentence", "label"]


@dataclass(frozen=True)
class Reviews:
    """Labelled texts.

    Attributes:
      sentences: the texts, lower case, with spaces around marks.
      labels: int32 `[example]`, 1 where the judgement is positive.
    """

    sentences: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.sentences)

    def rows(self, which: Sequence[int] | np.ndarray) -> "Reviews":
        """Those of some indices, in their order."""
        which = np.asarray(which, np.int64)
        return Reviews(tuple(self.sentences[i] for i in which), self.labels[which])


def read(file: str | Path, *, least: int = 1, most: int | None = None) -> Reviews:
    """The sentences of a file and their labels.

    Args:
      file: such as `train.tsv` or `dev.tsv`.
      least, most: how many words a sentence has.

    Raises:
      ValueError: a file without the header, a line that is not a sentence and 0 or 1, or no sentence of that length.
      OSError: the file cannot be read.

    Example:
      >>> import pathlib, tempfile
      >>> from interp_jax.data import sst2
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = pathlib.Path(folder, "dev.tsv")
      ...     _ = file.write_text("sentence\\tlabel\\na warm film \\t1\\ndull \\t0\\n")
      ...     reviews = sst2.read(file, least=2)
      >>> reviews.sentences, reviews.labels.tolist()
      (('a warm film',), [1])
    """
    header, *lines = Path(file).read_text(encoding="utf-8").splitlines() or [""]
    if header.split("\t") != HEADER:
        raise ValueError(f"{file}: begins with {header[:40]!r}, wanted the columns sentence and label, a tab between")
    sentences, labels = [], []
    for number, line in enumerate(lines, start=2):
        sentence, tab, label = line.rpartition("\t")
        if not tab or label not in ("0", "1"):
            raise ValueError(f"{file}, line {number}: {line[:40]!r} is not a sentence, a tab, and 0 or 1")
        if least <= len(sentence.split()) <= (most or len(sentence)):
            sentences.append(sentence.strip())
            labels.append(int(label))
    if not sentences:
        raise ValueError(f"{file}: no sentence of {least} to {most or 'any number of'} words")
    return Reviews(tuple(sentences), np.array(labels, np.int32))


def apart(train: Reviews, held_out: Reviews) -> Reviews:
    """The reviews of `train` without those that are a part of a held-out one, or have one as their part."""
    text = "\n".join(f" {sentence} " for sentence in held_out.sentences)
    shorter = [f" {sentence} " for sentence in held_out.sentences]

    def free(sentence: str) -> bool:
        padded = f" {sentence} "
        return padded not in text and not any(other in padded for other in shorter)

    return train.rows([i for i, sentence in enumerate(train.sentences) if free(sentence)])
