"""MIB's causal variables at small size: the other prompts say what they should, and the known place of the name."""

import jax
import numpy as np
import pytest

from interp_jax import config, models

pytestmark = pytest.mark.long

SMALL = {"layers": (0,), "n": 24, "batch_size": 16, "n_steps": 32, "seeds": (0,)}


def test_the_giver_is_told_by_name_early_at_its_second_mention(run, capsys) -> None:
    cfg, found, saved = run("ioi_das", "IOIDAS", **SMALL)
    s2, end = 0, 1
    for variable in ("token", "position"):
        assert set(found[variable]) >= {"whole state", "DAS", "DBM, neurons", "random"}
        for name, scores in found[variable].items():
            assert scores.shape == (1, 1, 2) and saved[variable][name] == scores.tolist()
            assert scores[0, 0, end] == pytest.approx(1 / 3)  # nothing is there yet: the answer stays
    token = {name: scores[0, 0, s2] for name, scores in found["token"].items()}
    assert token["whole state"] > 0.95 and token["DAS"] > 0.8 and token["random"] < 0.5
    assert found["position"]["whole state"][0, 0, s2] < 0.5
    assert "output token" in capsys.readouterr().out


def test_other_prompts_and_their_answers(experiment) -> None:
    """Each other prompt, read as text, has the answer that the target of the token says, at the place that it says."""
    script = experiment("ioi_das")
    model, tokenizer = models.load("microworld", dtype="float32")
    cfg = config.load(script.IOIDAS, "configs/ioi_das.toml", ())
    posed = script.pose(cfg, model, tokenizer, 0, "heldout")
    task, column = posed.task, posed.task.columns
    assert 0.9 * cfg.n < len(task.clean) <= cfg.n
    clean, corrupted = np.asarray(task.clean), np.asarray(task.corrupted)
    rows = np.arange(len(clean))
    low = np.minimum(column["io"], column["s1"])
    high = np.maximum(column["io"], column["s1"])

    def turned(tokens):
        tokens = tokens.copy()
        tokens[rows, low], tokens[rows, high] = tokens[rows, high], tokens[rows, low].copy()
        return tokens

    base = np.stack([clean[rows, low], clean[rows, high]], axis=1)
    for i, tokens in enumerate((turned(clean), corrupted, turned(corrupted))):
        names, giver = np.stack([tokens[rows, low], tokens[rows, high]], axis=1), tokens[rows, column["s2"]]
        place = np.where(names[:, 0] == giver, 1, 0)
        assert (names[rows, place] != giver).all()
        np.testing.assert_array_equal(posed.targets["token"][i], names[rows, place])
        np.testing.assert_array_equal(posed.targets["position"][i], base[rows, place])
        np.testing.assert_array_equal(posed.values["position"][i], place)
        logits = models.forward(model, tokens, attention_mask=task.mask, logits_at=task.last)
        np.testing.assert_array_equal(logits.argmax(-1), names[rows, place])
    one = posed.swaps("position", (1, 0), np.array([3, len(clean) + 5]))
    np.testing.assert_array_equal(one.tokens, clean[[3, 5]])
    np.testing.assert_array_equal(one.source, posed.states[1, [0, 1], [3, 5], 0])
    np.testing.assert_array_equal(one.target, [posed.targets["position"][0, 3], posed.targets["position"][1, 5]])
    assert jax.tree.leaves(one.kwargs)[0].shape[0] == 2
