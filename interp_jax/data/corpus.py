"""Text to tokens: a file, any documents, or the microworld's own text, cut to rows that a model reads."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from interp_jax.data import microworld
from interp_jax.data.world import World
from interp_jax.data.worlds import WORLDS

LINES = 2000  # of a file that are one document: one at a time would be slow, and a token seldom spans lines
SEEDS = 1 << 20  # seeds of the microworld's text that one seed of a corpus has for itself


@dataclass(frozen=True)
class Corpus:
    """Rows of tokens, and what of them counts.

    Attributes:
      tokens: int32 `[sequence position]`, each row with the bos token first where the tokenizer has one.
      mask: bool `[sequence position]`, True at tokens of the text, False at special tokens and padding.
      real: bool `[sequence position]`, False at padding alone: the attention mask of a model that reads the rows.
      special: the ids of the bos and the eos token.
      openings: the first words of up to six of its lines, as prompts for generation.
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
    """Reads a text file, or a microworld's own text if there is none, as rows of tokens.

    Args:
      tokenizer: from `models.load`.
      file: a UTF-8 text file, read as a stream; None for a microworld's own text: that of the world whose words the
        tokenizer has, or of the first one.
      n_tokens: how many tokens are read at most; no text is tokenised beyond them.
      n_positions: the width of a row, the bos token included.
      seed: seed of the microworld's text; every seed has other documents.

    Returns:
      A `Corpus` of at least 16 rows' worth of tokens.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is a folder, is not UTF-8, or is too short; or a row has no place for a token of the text.

    Example:
      >>> from interp_jax import data, models
      >>> _, tokenizer = models.load("microworld")
      >>> text = data.corpus.read(tokenizer, n_tokens=1000, n_positions=32)
      >>> text.tokens.shape[1], int(text.mask.sum()) <= 1000
      (32, True)
    """
    file = None if file is None else Path(file)
    documents = itertools.tee(_texts(_world(tokenizer), seed) if file is None else _blocks(file))
    tokens, real = pack(tokenizer, documents[0], n_tokens=n_tokens, n_positions=n_positions)
    special = tuple(token for token in (tokenizer.bos_id, tokenizer.eos_id) if token is not None)
    mask = real & ~np.isin(tokens, special)
    found = int(mask.sum())
    where = "the microworld's text" if file is None else str(file)
    least = 16 * n_positions
    if found < least:
        remedy = "give a longer text" if n_tokens >= least else f"n_tokens={n_tokens} is too small"
        raise ValueError(f"{where}: gives {found} tokens, at least {least} are needed; {remedy}")
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

    Raises:
      ValueError: a row has no place for a token of the text.

    Example:
      >>> from interp_jax import data, models
      >>> _, tokenizer = models.load("microworld")
      >>> tokens, mask = data.corpus.pack(tokenizer, ["the dogs sleep .", "the"], n_tokens=9, n_positions=4)
      >>> tokens.shape, mask.sum(1).tolist()
      ((3, 4), [4, 2, 2])
    """
    prefix = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    width, rows, total = n_positions - len(prefix), [], 0
    if width < 1:
        raise ValueError(f"n_positions={n_positions}: a row has no place for text; give at least {len(prefix) + 1}")
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
    """The file in documents of `LINES` lines, with their line ends. All of it is checked before the first."""
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


def _world(tokenizer: Any) -> World:
    """The world whose vocabulary a tokenizer has; the first one where it has none's."""
    words = tuple(word.strip() for word in tokenizer.to_str_tokens(range(tokenizer.d_vocab)))
    return next((world for world in WORLDS.values() if world.vocabulary == words), microworld.WORLD)


def _texts(world: World, seed: int) -> Iterator[str]:
    """Documents of a world without end."""
    for part in itertools.count(seed * SEEDS):
        yield from world.text(part, 512)


def _openings(documents: Iterable[str], n_words: int = 5) -> Iterator[str]:
    """The first words of lines that are long enough to go on, or of a document that has none, each once."""
    seen: set[str] = set()
    for document in documents:
        lines = [line.split() for line in document.splitlines()]
        for line in [line for line in lines if len(line) > 2 * n_words] or [document.split()]:
            opening = " ".join(line[:n_words])
            if opening not in seen:
                seen.add(opening)
                yield opening
