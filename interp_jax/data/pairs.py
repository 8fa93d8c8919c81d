"""Pairs of prompts of one's own as a task: a clean and a corrupted prompt, each with its answer.

A record is what Marks et al. 2024, "Sparse feature circuits", arXiv:2403.19647, publish, one a line of a file:

    {"clean_prefix": "The uncle", "patch_prefix": "The uncles", "clean_answer": " has", "patch_answer": " have"}

It may have more keys, such as "case", which become attributes. A record is text, and each tokenizer cuts it into tokens
in its own way, so that not every pair fits every model.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
import json
from pathlib import Path
from typing import Any

from interp_jax.data.prompts import Encoded, Task, batch, check_tokenizer

KEYS = ("clean_prefix", "patch_prefix", "clean_answer", "patch_answer")
SIDES = tuple(zip(KEYS[:2], KEYS[2:], strict=True))


def task(source: str | Path | Iterable[Mapping[str, Any]], tokenizer: Any) -> tuple[Task, dict[str, int]]:
    """Makes a task of the pairs that fit a tokenizer, in their order.

    A pair fits if its two prompts have as many tokens, and each answer, as it stands after its prompt, is one token.
    Prompts begin with a bos token where the tokenizer's texts do.

    Positions: changed (the first token in which the two differ), end. Attributes: the records' other keys, as text.
    The first 32 pairs, without attributes, are `jax.tree.map(lambda x: x[:32], task)`.

    Args:
      source: a file with a JSON object a line, or the records.
      tokenizer: of the model.

    Returns:
      The task, and how many pairs are left out of it, by reason.

    Raises:
      ValueError: no pair fits, a line is no JSON object, or a record lacks one of the four texts.
      OSError: the file cannot be read.

    Example:
      >>> from interp_jax import data, models
      >>> _, tokenizer = models.load("microworld")
      >>> record = {"clean_prefix": "today the dogs", "patch_prefix": "today the dog", "clean_answer": " are"}
      >>> records = [record | {"patch_answer": answer} for answer in (" is", " is not")]
      >>> task, left_out = data.pairs.task(records, tokenizer)
      >>> tokenizer.decode(task.clean[0]), tokenizer.decode(task.answers), task.positions["changed"].tolist(), left_out
      ('<bos> today the dogs', 'are', [3], {'an answer is not one token': 1})
    """
    check_tokenizer(tokenizer)
    name, records = (source, _read(source)) if isinstance(source, str | Path) else ("pairs", list(source))
    if not records:
        raise ValueError(f"{name}: has no pairs; give at least one")
    rows, reasons = [], []
    for i, record in enumerate(records, start=1):
        if absent := [key for key in KEYS if not isinstance(record.get(key), str)]:
            raise ValueError(f"{name}, record {i}: has no text {', '.join(absent)}; a pair has {', '.join(KEYS)}")
        row = _encode(record, tokenizer)
        (rows if isinstance(row, Encoded) else reasons).append(row)
    if not rows:
        first = [records[0][prompt] + records[0][answer] for prompt, answer in SIDES]
        shown = " and ".join(f"{text!r}, in tokens {tokenizer.to_str_tokens(text)}," for text in first)
        raise ValueError(
            f"{name}: none of {len(records)} pairs fits this tokenizer: of {shown} {reasons[0]}; take a model whose "
            "tokenizer has these words, or other pairs"
        )
    return batch(rows), dict(Counter(reasons))


def _read(path: str | Path) -> list[dict[str, Any]]:
    records = []
    for i, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        try:
            records.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise ValueError(f"{path}, line {i}: is no JSON object; give one a line") from None
    return records


def _encode(record: Mapping[str, Any], tokenizer: Any) -> Encoded | str:
    """A pair in tokens, or why it does not fit."""
    prompts = [tokenizer.encode(record[key]) for key in KEYS[:2]]
    whole = [tokenizer.encode(record[prompt] + record[answer]) for prompt, answer in SIDES]
    n_before = len(tokenizer.encode(""))  # of what stands before every text: a bos token may be the unknown one too
    if any(tokenizer.unk_id in ids[n_before:] for ids in whole):
        return "a word is unknown"
    clean, corrupted = prompts
    if len(clean) != len(corrupted):
        return "the prompts differ in length"
    if clean == corrupted:
        return "the prompts are the same"
    if any(ids[:-1] != prompt for ids, prompt in zip(whole, prompts, strict=True)):
        return "an answer is not one token"
    answer, distractor = (ids[-1] for ids in whole)
    if answer == distractor:
        return "the answers are the same"
    changed = next(i for i, (one, other) in enumerate(zip(clean, corrupted, strict=True)) if one != other)
    positions = {"changed": changed, "end": len(clean) - 1}
    known = {key: str(value) for key, value in record.items() if key not in KEYS}
    return Encoded(clean, corrupted, [answer], distractor, positions, known)
