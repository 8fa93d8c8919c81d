"""Experiments on personas, users and truth at tiny size: each does what it says on a model whose rules are known."""

import jax
import numpy as np
import pytest

from interp_jax import models
from interp_jax.data.worlds.chat_words import PERSONAS

pytestmark = pytest.mark.long


def test_the_persona_drifts_and_split_softmax_turns_it_back(run, capsys) -> None:
    _, found, saved = run("persona_drift", "Drift", n=8, n_turns=3, exponents=(1.0, 0.25), seeds=(0,))
    assert set(found) == {"k 1", "k 0.25", "repeated"} and found["k 1"]["stays"].shape == (1, 3)
    assert found["k 1"]["stays"].mean() > 0.95  # within what was trained
    assert (np.diff(found["k 1"]["mass"][0]) < 0).all()
    assert found["k 0.25"]["perplexity"][0] > found["k 1"]["perplexity"][0]
    assert saved["k 1"]["forced"][0] == pytest.approx(found["k 1"]["forced"][0].tolist())
    assert "right answers so far" in capsys.readouterr().out


def test_dialogs_with_right_answers(experiment) -> None:
    """The places of `answers` are those before a persona's first word and before its last."""
    dialogs = experiment("persona_dialogs")
    _, tokenizer = models.load("microworld-chat")
    assert tokenizer is not None
    some = dialogs.answers("microworld-chat", tokenizer, 6, 5, 0)
    words = [[tokenizer.decode([token]) for token in row] for row in some.texts.tokens.tolist()]
    for row, said, opens, closes, stop in zip(range(6), words, some.opens, some.closes, some.stop, strict=True):
        opener, closer = next(pair for pair in PERSONAS.values() if pair[0] == said[opens[0] + 1])
        assert [said[i + 1] for i in opens] == [opener] * 5 and [said[i + 1] for i in closes] == [closer] * 5
        first = some.texts.mask[row].argmax()
        assert said[first + stop - 1] == "<end>" and "<system>" in said[first : first + stop]
        asked = {said[i] for i in np.flatnonzero(some.texts.predicted[row])}
        assert not asked & {opener, closer, "<end>", "<user>", "<assistant>"}


def test_languages_are_told_apart(experiment) -> None:
    french = experiment("persona_dialogs").language("French")
    assert french("La lune est un satellite de la Terre.") and not french("The moon is a satellite of the Earth.")
    assert not french("...")


def test_what_reads_the_user_controls_the_answer(run) -> None:
    changes = {"n": 100, "n_users": 16, "n_texts": 10, "attributes": ("education",), "strengths": (0.0, 8.0)}
    _, found, saved = run("user_model", "Control", seeds=(0,), **changes)
    of = found["education"]
    assert of["success"].shape == of["kept"].shape == of["perplexity"].shape == (1, 4, 2)
    assert of["success"][..., 0].max() == 0 and of["kept"][..., 0].min() > 0.9  # as it is
    assert of["success"][0, 0, 1] > 0.8 > 0.2 > of["success"][0, 2:, 1].max()  # reading; random, shuffled
    board = saved["education"]["board"]
    assert all(row["read"].split()[0] == row["user"] for row in board)
    assert all(row["read after"].split()[0] == row["set to"].split()[0] for row in board)


def test_the_answers_of_users(experiment) -> None:
    """Without an edit answers are right: what was asked for is shown, and nothing is another's."""
    answers, script = experiment("user_model_answers"), experiment("user_model")
    from interp_jax import config, steering

    cfg = config.load(script.Control, "configs/user_model.toml", ())
    model, tokenizer = models.load("microworld-chat")
    concepts = experiment("concepts")
    these = concepts.concept(["-"] * 3, ["low", "middle", "high"], ["a", "b", "c"])
    users = answers.users(cfg, tokenizer, "status", these, 0)
    edit = steering.SteeringVector.create(jax.numpy.ones((4, 96)), answers.SITE).edit(0.0)
    hit, kept = answers.Run(model, tokenizer, users, "status", "high").judge(edit)
    assert hit == 0 and kept > 0.95


def test_truth_is_told_less(run) -> None:
    sizes = {"n": 64, "n_test": 24, "n_texts": 10, "n_steps": 200, "d_hidden": 64, "d_latent": 32}
    _, found, saved = run("truthx", "TruthX", strengths=(-1.0, 0.0), seeds=(0,), **sizes)
    told = found["told"][0]  # [kind test strength 2]
    assert told.shape == (3, 3, 2, 2) and saved["tests"][0] == "its user errs"
    assert told[:, 0, 1, 1].min() > 0.9 and told[:, 1:, 1, 0].min() > 0.9  # as it is
    assert told[0, 1:, 0, 0].max() < 0.9
    accuracy = found["accuracy"][0]
    assert accuracy[0].max() > 0.95 > 0.8 > accuracy[2].mean()
