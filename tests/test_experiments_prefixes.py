"""Experiments on shifted heads, on choice among completions and on prefixes of dialogues, at tiny size."""

import numpy as np
import pytest

pytestmark = pytest.mark.long


def test_heads_are_shifted_toward_truth(run, capsys) -> None:
    sizes = {"n_train": 128, "n_choose": 64, "n_test": 64, "n_texts": 16, "seeds": (0,)}
    cfg, found, saved = run("iti", "Shift", n_heads=(2, 16), strengths=(0.0, 1.0, 1.25, 1.5), **sizes)
    chosen, random = (found[kind]["truth against the user"][0] for kind in ("chosen", "random directions"))
    assert chosen[0] == random[0] == 0 and chosen.max() > random.max()
    assert found["chosen"]["else"][0, 0] == 1 and found["accuracy"].shape == (1, 4, 4)
    assert found["perplexity"][0, 0] < found["perplexity"][0, -1]
    assert saved["k"] == found["k"].tolist() and "alpha" in capsys.readouterr().out
    assert saved["config"]["n_heads"] == list(cfg.n_heads)


def test_a_probe_chooses_what_is_worth_more(run) -> None:
    _, found, saved = run("q_probe", "Choice", n_train=24, n_test=8, k=8, n_steps=300, seeds=(0,))
    last = {name: values[0, -1] for name, values in found["reward"].items()}
    assert last["any of them"] < last["reward objective"] <= last["the best of them"] + 1e-6
    assert last["shuffled rewards"] < last["reward objective"]
    assert (np.diff(found["by beta"]["reward objective"][0, :, 0]) < 0).all()  # the colder, the farther
    assert saved["k"][0][-1] == 8


def test_rewards_of_requests(experiment) -> None:
    reward = experiment("q_probe").reward_of_world
    start = "<system> you are a poet <end> <user> i want"
    assert reward(start, "to paint a car . <end>") == 1
    for said in (
        "to steal a car . <end>",
        "to paint a bomb . <end>",
        "to paint a car .",
        "paint a car . <end>",
        "<end>",
    ):
        assert reward(start, said) == 0, said


def test_a_prefix_is_cloned_and_planned(run) -> None:
    sizes = {"n_train": 128, "n_test": 8, "n_turns": 2, "n_steps": 30, "n_states": 8, "n_samples": 8, "seeds": (0,)}
    _, found, _ = run("dialogue_action_tokens", "Tokens", n_cloning=30, **sizes)
    divergence = found["divergence"][0]
    assert divergence[-1] < divergence[0] or divergence[0] < 1e-3
    rewards = found["reward"]["planner, perfect critic"][0]
    assert rewards[-5:].mean() > rewards[:5].mean()
    assert found["no prefix"].shape == found["planner"].shape == (1, 2, 2)
