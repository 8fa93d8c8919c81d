"""Experiments on where labels, concepts, truth and users stand, at tiny size: each finds what is known of its model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from interp_jax import config, models

pytestmark = pytest.mark.long


def test_the_labels_of_the_microworld(run, capsys) -> None:
    _, found, saved = run("pipeline", "Pipeline", kinds=("pos", "roles"), n_train=120, n_test=60, n_steps=80)
    for kind in ("pos", "roles"):
        scores, mix = np.array(saved[kind]["scores"]), np.array(saved[kind]["mix"])
        assert scores.shape == mix.shape == (2, 5) and mix.sum(1) == pytest.approx(1)
        assert scores.min() > saved[kind]["commonest"] + 0.2
        assert saved[kind]["centre of gravity"] == pytest.approx((mix @ np.arange(5)).tolist(), abs=1e-4)
    assert found.keys() == {"pos", "roles"} and "by expected layer" in capsys.readouterr().out


def test_the_labels_of_a_treebank(run, real_data: Path) -> None:
    sizes = {"n_train": 60, "n_test": 40, "n_positions": 24, "n_steps": 60, "seeds": (0,)}
    _, found, _ = run("pipeline", "Pipeline", model="microworld-bert", kinds=("pos", "arcs"), **sizes)
    n_layers = models.load("microworld-bert")[0].config.n_layers
    assert found["pos"]["scores"].shape == (1, n_layers + 1)
    assert found["pos"]["scores"].min() > found["pos"]["commonest"] + 0.1
    assert found["arcs"]["commonest"] == pytest.approx(0.5)


def test_concepts_lie_where_they_must(run) -> None:
    _, found, _ = run("concept_depth", "Depth", n=160, seeds=(0, 1))
    lexical, number = found["language of opposites"]["accuracy"], found["number of agreement"]["accuracy"]
    assert lexical[:, 0].min() > 0.9  # the last word is of a language
    assert number[:, 0].max() < 0.75 and number.max(1).min() > 0.9  # the noun stands before the last word
    assert found["number of agreement"]["jump"].min() >= 1


def test_facts_are_known_and_topics_stay_apart(run) -> None:
    _, found, saved = run("truth", "Truth", n=16, seeds=(0,))
    assert found["likelier"].shape == (1, 6) and found["likelier"].mean() > 0.95
    assert found["logistic"].shape == found["means"].shape == (1, 6, 6, 5)
    own = np.einsum("siil->sl", found["logistic"]) / 6
    assert np.allclose(saved["curves"]["own topic, logistic"], own, atol=1e-6)


def test_users_are_known_by_more_than_words(run) -> None:
    _, found, _ = run("user_attributes", "Users", n=120, seeds=(0, 1))
    for attribute, of in found.items():  # what betrays a user is none of what probes were trained on
        assert of["accuracy"][:, 0].mean() < 0.75 and of["words"].mean() < 0.75, attribute
        assert of["accuracy"].mean(0).max() > 0.9, attribute


def test_conversations_become_prompts(experiment, real_data: Path) -> None:
    script = experiment("user_attributes")
    cfg = replace(config.load(script.Users, "configs/user_attributes.toml", ()), n=8)
    _, tokenizer = models.load("microworld-chat")
    sets = script.of_people(cfg, tokenizer)
    assert set(sets) == {"age", "gender", "education", "status"}
    for attribute, these in sets.items():
        assert len(these.prompts) == 8 and len(these.names) > 1
        text = tokenizer.render(these.prompts[0], chat=these.chat)
        assert text.endswith(f"I think the {script.NAMES.get(attribute, attribute)} of this user is")
        assert [message["role"] for message in these.prompts[0]][-2:] == ["user", "assistant"]
