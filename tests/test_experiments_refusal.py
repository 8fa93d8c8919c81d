"""Experiments on refusal and on agreeing with the user, at tiny size: what the microworld's chat does is known."""

from pathlib import Path

import jax
import numpy as np
import pytest

from interp_jax import models

pytestmark = pytest.mark.long


def test_refusal_goes_and_comes(run, capsys) -> None:
    sizes = {"n_train": 48, "n_validation": 16, "n_test": 12, "n_texts": 16}
    _, found, saved = run("refusal", "Refusing", **sizes, strengths=(0.0, 1.0), seeds=(0,))
    rows = {way: {name: values[0] for name, values in told.items()} for way, told in found["rows"].items()}
    assert rows["as it is"]["harmful refused"] == 1 and rows["as it is"]["harmless helped"] == 1
    for way in ("taken out", "taken out of weights"):
        assert rows[way]["harmful refused"] < 0.1 and rows[way]["harmless helped"] > 0.9
    assert rows["added"]["harmless refused"] > 0.9
    assert rows["random taken out"]["harmful refused"] > 0.9 and rows["shuffled added"]["harmless refused"] < 0.1
    assert found["weights apart"].max() < 1e-4 and found["passed"].all()
    assert np.shape(saved["scores"]["kl"]) == (1, 4, 2)
    assert found["doses"]["harmless refused"].shape == (1, 2) and "as published" in capsys.readouterr().out


def test_requests_are_held_out_and_in_english(experiment) -> None:
    script = experiment("refusal_requests")
    _, tokenizer = models.load("microworld-chat")
    train, test = (
        script.requests(tokenizer, True, True, jax.random.key(0), split, 20) for split in ("train", "heldout")
    )
    assert not set(train.help) & set(test.help)  # which name the pair of verb and object
    asked = script.requests(tokenizer, False, True, jax.random.key(0), "heldout", 4)
    assert len(asked.help) == len(asked.tokens) == 4


def test_where_none_passes_that_which_induces_most_is_told(experiment, capsys) -> None:
    script = experiment("refusal")
    induce = np.arange(10.0).reshape(10, 1) - 20
    scores = script.steering.DirectionScores(np.zeros((10, 1)), induce, np.zeros((10, 1)))
    assert script.chosen(scores) == (7, 0, False)
    assert "no direction below layer 8" in capsys.readouterr().out


def test_accord_with_beliefs_rises(run, capsys) -> None:
    sizes = {"n_train": 64, "n_validation": 16, "n_test": 16, "n_texts": 16}
    _, found, saved = run("sycophancy", "Sycophancy", **sizes, strengths=(-1.0, 0.0, 1.0), seeds=(0,))
    accord = {way: found["beliefs"][way]["accord with others' beliefs"][0] for way in ("vector", "random", "shuffled")}
    assert accord["vector"][1] < 0.1 and accord["vector"][2] > 0.6  # also those who are told the truth are agreed with
    assert accord["random"].max() < 0.3 and accord["shuffled"].max() < 0.1
    own = found["beliefs"]["vector"]["accord with own beliefs"][0]
    assert own[1] > 0.9 and own[0] < 0.3
    assert np.shape(saved["answers"]["layers"]) == (1, 4, 2) and "The vector of beliefs" in capsys.readouterr().out


def test_questions_of_a_persona(experiment, real_data: Path) -> None:
    script = experiment("sycophancy_prompts")
    _, tokenizer = models.load("microworld-chat")
    train, test = script.of_questions(tokenizer, "agreeableness", (6, 4), 1, 0)
    assert train.tokens.shape[0] == 6 and test.matching.shape == (4,)
    assert train.after.tolist() == [False] * (train.tokens.shape[1] - 1) + [True]
    positive, negative, mask, _ = script.answered(train)
    assert positive.shape == negative.shape == mask.shape == (6, train.tokens.shape[1] + 1)
    assert (positive[:, -1] == train.matching).all() and bool(mask[:, -1].all())
