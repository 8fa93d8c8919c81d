"""Pairs of one's own in transformers' tokenizers: the same ids, and the same pairs kept."""

import json
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers")

from interp_jax import models  # noqa: E402
from interp_jax.data import pairs  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("folder", ["gpt2-tokenizer", "pythia-tokenizer"])
@pytest.mark.parametrize("file", ["simple_test", "nounpp_test"])
def test_subject_and_verb(real_data: Path, folder: str, file: str) -> None:
    (tokenizer_file,) = (real_data / folder).glob("*tokenizer.json")
    peer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file))
    source = real_data / "subject-verb" / f"{file}.json"
    task, _ = pairs.task(source, models.Tokenizer.from_folder(real_data / folder))
    expected = []
    for record in map(json.loads, source.read_text().splitlines()):
        clean, corrupted, answer, distractor = (peer(record[key]).input_ids for key in pairs.KEYS)
        if len(clean) == len(corrupted) and len(answer) == len(distractor) == 1:
            expected.append((clean, corrupted, answer[0], distractor[0]))
    found = [
        (clean[real].tolist(), corrupted[real].tolist(), int(answer), int(distractor))
        for clean, corrupted, real, answer, distractor in zip(
            task.clean, task.corrupted, task.mask, task.answers, task.distractors, strict=True
        )
    ]
    assert found == expected
