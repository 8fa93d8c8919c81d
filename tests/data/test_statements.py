"""Statements whose truth the files themselves say, and conversations turn by turn."""

import csv
import json
from pathlib import Path
import random
import zipfile

import pytest

from interp_jax.data import conversations, lexicon, statements


def test_facts_of_the_microworld() -> None:
    found = statements.of_microworld(random.Random(0), 200)
    assert sum(one.true for one in found) == 100
    for one in found:
        last = one.text.split()[-1]
        assert (lexicon.FACTS[one.topic][one.group] == last) == one.true and one.group in one.text


def test_relations(real_data: Path) -> None:
    file = real_data / "relations" / "landmark_in_country.json"
    samples = json.loads(file.read_text())["samples"]
    known = {(one["subject"], one["object"]) for one in samples}
    found = statements.of_relation(random.Random(0), file, 101)
    assert len(found) == 100 and len({one.group for one in found}) == 50
    for one in found:
        thing = one.text.removeprefix(f"{one.group} is in the country of ").removesuffix(".")
        assert ((one.group, thing) in known) == one.true, one


def test_truthfulqa(real_data: Path) -> None:
    file = real_data / "truthfulqa" / "TruthfulQA.csv"
    with open(file, encoding="utf-8-sig", newline="") as stream:
        rows = {row["Question"]: row for row in csv.DictReader(stream)}
    found = statements.of_truthfulqa(random.Random(0), file, 100)
    assert len(found) == 100
    for one in found:
        answer = one.text.split(" A: ", 1)[1].removesuffix(".")
        assert answer in rows[one.group]["Correct Answers" if one.true else "Incorrect Answers"]


def test_conversations(real_data: Path) -> None:
    for name, n, labels in (
        ("llama_age_1", 600, {"child", "adolescent", "adult", "older adult"}),
        ("openai_gender_1", 500, {"female", "male"}),
    ):
        found = conversations.read(real_data / "talktuner" / f"{name}.zip")
        assert 0.98 * n <= len(found) <= n and {one.label for one in found} == labels
        for one in found:
            roles = [message["role"] for message in one.messages]
            assert roles[0] == "user" and all(a != b for a, b in zip(roles, roles[1:], strict=False))
            assert all(message["content"].strip() for message in one.messages)


def test_turns(tmp_path: Path) -> None:
    text = (
        "### Assistant: Hello\n\n### Human: I say:\nNote: no role\n\n### Human:\nmore\n### Assistant:   \n### User: bye"
    )
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("conversation_7_age_older adult.txt", text)
    (only,) = conversations.read(tmp_path / "a.zip")
    assert only == ([{"role": "user", "content": "I say:\nNote: no role\n\nmore\n\nbye"}], "older adult")


def test_bad_files(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("{}")
    with pytest.raises(ValueError, match="file: not a relation, with name, prompt_templates and samples"):
        statements.of_relation(random.Random(0), file, 4)
    with pytest.raises(ValueError, match="file: not TruthfulQA: there is no column Best Answer, Category, Correct"):
        statements.of_truthfulqa(random.Random(0), file, 4)
    with pytest.raises(ValueError, match="file: not a zip file of texts"):
        conversations.read(file)
    file.write_text('{"name": "r", "prompt_templates": ["{} is"], "samples": [{"subject": "a", "object": "b"}]}')
    with pytest.raises(ValueError, match="nothing false can be said"):
        statements.of_relation(random.Random(0), file, 4)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("conversation_7_age_child.txt", "nobody speaks")
    with pytest.raises(ValueError, match="holds no conversation_<number>"):
        conversations.read(tmp_path / "b.zip")
