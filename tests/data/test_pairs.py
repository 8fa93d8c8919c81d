"""Pairs of one's own as a task: what is kept, what is left out and why, and one line where none fits."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from interp_jax import models
from interp_jax.data import pairs, tasks

DOGS = {"clean_prefix": "today the dogs near the tree", "patch_prefix": "today the dog near the tree"}
DOGS |= {"clean_answer": " are", "patch_answer": " is"}
SHORT = {"clean_prefix": "today Anna", "patch_prefix": "today Anna and John", "clean_answer": " is"}
SHORT |= {"patch_answer": " are"}


@pytest.fixture(scope="module")
def tokenizer() -> models.Tokenizer:
    return models.load("microworld")[1]


def test_a_pair_is_a_row(tokenizer: models.Tokenizer) -> None:
    cat = DOGS | {"clean_prefix": "today the cat", "patch_prefix": "today the cats", "case": "singular", "note": 1}
    task, left_out = pairs.task([DOGS | {"case": "plural"}, cat], tokenizer)
    assert left_out == {}
    assert [tokenizer.decode(row[real]) for row, real in zip(task.clean, task.mask, strict=True)] == [
        "<bos> today the dogs near the tree",
        "<bos> today the cat",
    ]
    assert task.corrupted[0].tolist() == tokenizer.encode(DOGS["patch_prefix"])
    assert tokenizer.decode(task.answers) == "are are" and tokenizer.decode(task.distractors) == "is is"
    assert task.accepted.tolist() == task.answers[:, None].tolist()
    assert {name: where.tolist() for name, where in task.positions.items()} == {"changed": [3, 3], "end": [6, 3]}
    assert task.columns["changed"].tolist() == [3, 6] and task.columns["end"].tolist() == task.last.tolist() == [6, 6]
    assert list(task.attributes) == ["case"] and task.attributes["case"].tolist() == ["plural", "singular"]
    assert jax.tree.map(lambda x: x[1:], task).clean.shape == (1, 7)


def test_the_same_sentences_as_the_world_says_them(tokenizer: models.Tokenizer) -> None:
    world = tasks.agreement(jax.random.key(0), tokenizer, n=8)
    text = lambda rows: [tokenizer.decode(row[real][1:]) for row, real in zip(rows, world.mask, strict=True)]  # noqa: E731
    columns = text(world.clean), text(world.corrupted), world.answers[:, None], world.distractors[:, None]
    records = [
        {key: tokenizer.decode(x) if i > 1 else x for i, (key, x) in enumerate(zip(pairs.KEYS, row, strict=True))}
        for row in zip(*columns, strict=True)
    ]
    records = [{key: " " * (i > 1) + record[key] for i, key in enumerate(pairs.KEYS)} for record in records]
    task, _ = pairs.task(records, tokenizer)
    for name in ("clean", "corrupted", "mask", "last", "answers", "distractors"):
        assert getattr(task, name).tolist() == getattr(world, name).tolist(), name
    assert task.positions["changed"].tolist() == world.positions["subject"].tolist()


def test_what_is_left_out_is_told(tokenizer: models.Tokenizer) -> None:
    odd = {
        "the prompts differ in length": SHORT,
        "the prompts are the same": DOGS | {"patch_prefix": DOGS["clean_prefix"]},
        "an answer is not one token": DOGS | {"clean_answer": " are not"},
        "the answers are the same": DOGS | {"clean_answer": " is"},
        "a word is unknown": DOGS | {"patch_answer": " xyzzy"},
    }
    task, left_out = pairs.task([*odd.values(), DOGS, SHORT], tokenizer)
    assert left_out == dict.fromkeys(odd, 1) | {"the prompts differ in length": 2}
    assert len(task.last) == 1


def test_an_answer_may_not_change_the_cut_of_its_prompt(real_data: Path) -> None:
    gpt2 = models.Tokenizer.from_folder(real_data / "gpt2-tokenizer")
    pair = {"clean_prefix": "The un", "patch_prefix": "The in", "clean_answer": "cle", "patch_answer": " the"}
    with pytest.raises(ValueError, match="an answer is not one token"):
        pairs.task([pair], gpt2)


@pytest.mark.parametrize(("file", "kept", "left_out"), [("simple_test", 97, 23), ("nounpp_test", 414, 66)])
def test_the_files_of_subject_and_verb(real_data: Path, file: str, kept: int, left_out: int) -> None:
    gpt2 = models.Tokenizer.from_folder(real_data / "gpt2-tokenizer")
    task, reasons = pairs.task(real_data / "subject-verb" / f"{file}.json", gpt2)
    assert len(task.last) == kept and reasons == {"the prompts differ in length": left_out}
    assert {" is", " are", " has", " have"} <= set(gpt2.to_str_tokens(np.unique(task.answers)))
    assert (task.clean != task.corrupted).sum(-1).tolist() == [1] * kept
    assert set(task.positions["changed"].tolist()) == {1}


def test_none_fits_is_one_line(real_data: Path, tokenizer: models.Tokenizer, tmp_path: Path) -> None:
    file = real_data / "subject-verb" / "simple_test.json"
    with pytest.raises(ValueError, match=r"simple_test.json: none of 120 pairs fits .* a word is unknown; take a") as e:
        pairs.task(file, tokenizer)
    assert "\n" not in str(e.value) and "'The uncle has'" in str(e.value)
    letters = models.Tokenizer.from_folder(real_data / "stories260K")
    with pytest.raises(ValueError, match="' u', 'n', 'c', 'le'.*the prompts differ in length"):
        pairs.task(file, letters)
    with pytest.raises(ValueError, match=r"^pairs: has no pairs; give at least one$"):
        pairs.task([], tokenizer)


def test_a_broken_file_is_one_line(tokenizer: models.Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps(DOGS) + "\n[]x\n")
    with pytest.raises(ValueError, match=r"pairs.json, line 2: is no JSON object; give one a line$"):
        pairs.task(file, tokenizer)
    file.write_bytes('{"clean_prefix": "caf\u00e9"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"pairs.json, line 1: is no JSON object"):
        pairs.task(file, tokenizer)
    file.write_text(json.dumps({"clean_prefix": "a", "patch_prefix": 3, "clean_answer": "b"}))
    with pytest.raises(ValueError, match=r"record 1: has no text patch_prefix, patch_answer; a pair has clean_prefix,"):
        pairs.task(str(file), tokenizer)
