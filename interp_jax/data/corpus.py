"""Text to tokens: a file, any documents, or the microworld's own text, cut to rows that a model reads."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from interp_jax.data import microworld

LINES = 2000  # of a file that are tokenised together: a token seldom spans lines


@dataclass(frozen=True)
class Corpus:
    """Rows of tokens.

    Attributes:
      tokens: int32 `[sequence position]`, each row with the bos token first where the tokenizer has one.
      mask: bool `[sequence position]`, False at special tokens and padding: what counts.
      real: bool `[sequence position]`, False at padding: what a model attends to.
      special: the ids of the special tokens.
      openings: how some of its texts begin, for generation.
    """

    tokens: np.ndarray
    mask: np.ndarray
    real: np.ndarray
    special: tuple[int, ...]
    openings: tuple[str, ...]


def read(
    tokenizer: Any,
    file: str | Path | None = None,
    *,
    n_tokens: int = 400_000,
    n_positions: int = 128,
    seed: int = 0,
) -> Corpus:
    """Tokenises a text file, or the microworld's text if there is none, up to `n_tokens` tokens.

    Args:
      tokenizer: from `models.load`.
      file: a UTF-8 text file, read as a stream; None for the microworld's own text.
      n_tokens: how many tokens are read at most; no text is read beyond them.
      n_positions: the width of a row, the bos token included.
      seed: seed of the microworld's text.

    Returns:
      A `Corpus` of at least 16 rows' worth of tokens.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is a folder, is not UTF-8, or is too short.

    Example:
      >>> from interp_jax import data, models
      >>> _, tokenizer = models.load("microworld")
      >>> text = data.corpus.read(tokenizer, n_tokens=1000, n_positions=32)
      >>> text.tokens.shape[1], int(text.mask.sum()) <= 1000
      (32, True)
    """
    file = None if file is None else Path(file)
    documents = itertools.tee(_microworld(seed) if file is None else _blocks(file))
    tokens, real = pack(tokenizer, documents[0], n_tokens=n_tokens, n_positions=n_positions)
    special = tuple(token for token in (tokenizer.bos_id, tokenizer.eos_id) if token is not None)
    mask = real & ~np.isin(tokens, special)
    found = int(mask.sum())
    where = "the microworld's text" if file is None else str(file)
    least = 16 * n_positions
    if found < least:
        raise ValueError(f"{where}: gives {found} tokens, at least {least} are needed; give a longer text")
    return Corpus(tokens, mask, real, special, tuple(itertools.islice(_openings(documents[1]), 6)))


def pack(tokenizer: Any, documents: Iterable[str], *, n_tokens: int, n_positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts documents to rows of tokens, padded on the right; a row holds tokens of one document only.

    Args:
      tokenizer: from `models.load`; its bos token, if it has one, stands first in every row.
      documents: texts, which are read until there are `n_tokens` tokens.
      n_tokens: how many tokens there are at most, bos tokens not counted.
      n_positions: the width of a row at most, the bos token included.

    Returns:
      int32 tokens `[sequence position]`, and their mask, bool, False at padding.

    Example:
      >>> from interp_jax import data, models
      >>> _, tokenizer = models.load("microworld")
      >>> tokens, mask = data.corpus.pack(tokenizer, ["the dogs sleep .", "the"], n_tokens=9, n_positions=4)
      >>> tokens.shape, mask.sum(1).tolist()
      ((3, 4), [4, 2, 2])
    """
    prefix = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    width, rows, total = n_positions - len(prefix), [], 0
    for document in documents:
        ids = tokenizer.encode(document, bos=False)[: n_tokens - total]
        rows += [prefix + ids[start : start + width] for start in range(0, len(ids), width)]
        total += len(ids)
        if total >= n_tokens:
            break
    tokens = np.full((len(rows), max(map(len, rows), default=0)), tokenizer.pad_id, np.int32)
    mask = np.zeros(tokens.shape, bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
        mask[i, : len(row)] = True
    return tokens, mask


def _blocks(file: Path) -> Iterator[str]:
    if file.is_dir():
        raise ValueError(f"{file}: is a folder; give a text file")
    if not file.exists():
        raise FileNotFoundError(f"{file}: there is no such text file")
    try:
        with file.open(encoding="utf-8") as text:
            for _ in text:
                pass
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not UTF-8 ({error.reason}); convert it, as with iconv -t utf-8") from None
    import datasets

    lines = datasets.load_dataset("text", data_files=str(file), split="train", streaming=True, keep_linebreaks=True)
    for block in lines.batch(LINES):
        yield "".join(block["text"])


def _microworld(seed: int) -> Iterator[str]:
    for part in itertools.count():
        yield from microworld.text(seed + part, 512)


def _openings(documents: Iterable[str], n_words: int = 5) -> Iterator[str]:
    seen: set[str] = set()
    for document in documents:
        lines = [line.split() for line in document.splitlines()]
        for line in [line for line in lines if len(line) > 2 * n_words] or [document.split()]:
            opening = " ".join(line[:n_words])
            if opening not in seen:
                seen.add(opening)
                yield opening
