"""Clamped features at tiny size: what is measured, and that refusal's texts are what the model itself says."""

import numpy as np
import pytest

from interp_jax import models

pytestmark = pytest.mark.long


def test_clamped_features(run, capsys) -> None:
    sizes = {"concepts": ("refusal",), "doses": (0.0, 5.0), "n_steps_dictionary": 100, "n_texts": 64, "n_cost": 8}
    _, found, saved = run("feature_steering", "FeatureSteering", **sizes, n_asked=4, n_random=1, seeds=(0,))
    of = found["refusal"]
    assert of["auroc"][0] > 0.9
    assert of["left alone"]["not asked for"] == 0 and of["left alone"]["asked for"] == 1
    assert of["left alone"]["perplexity"] < 1.1
    for method in ("feature of texts", "feature of beginnings", "random features", "difference of means"):
        assert of[method]["perplexity"].shape == (1, 2)
    vector = of["difference of means"]
    assert vector["perplexity"][0, 0] == pytest.approx(
        of["left alone"]["perplexity"][0], rel=1e-5
    )  # dose 0 adds nothing
    assert saved["refusal"]["answers"][0][0].startswith("sure ,")
    assert "left alone" in capsys.readouterr().out


def test_a_dose_of_zero_is_needed(run) -> None:
    with pytest.raises(SystemExit, match="lack 0"):
        run("feature_steering", "FeatureSteering", doses=(1.0,))


def test_refusal_is_what_the_model_does(experiment) -> None:
    one = experiment("feature_steering_concepts").refusal(20, 6, 8, 0)
    train = {talk[0]["content"] for talk in one.positive + one.negative}
    assert not train & {talk[0]["content"] for talk in sum(one.held.values(), one.instructions + one.prompted)}
    model, tokenizer = models.load("microworld-chat", dtype="float32")
    for talks, word in ((one.instructions, "sure"), (one.prompted, "sorry")):
        tokens, mask, _ = models.tokenize(tokenizer, talks, chat=True)
        first = np.asarray(models.generate(model, tokens, 1, attention_mask=mask))[:, -1]
        assert {tokenizer.decode([token]).strip() for token in first.tolist()} == {word}
