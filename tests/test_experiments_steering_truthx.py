"""TruthX at tiny size: an edit in its space makes a model truthful, backwards a liar; shuffled pairs do not."""

import numpy as np
import pytest

from interp_jax.data import truthfulqa

pytestmark = pytest.mark.long


def test_truth_against_the_user_comes_and_truth_against_others_goes(run) -> None:
    sizes = {"n_train": 96, "n_choose": 48, "n_test": 48, "n_texts": 8, "n_steps": 100, "n_pairs": 32, "n_places": (1,)}
    _, found, saved = run("truthx", "Truths", strengths=(-1.0, 0.0, 1.0), seeds=(0,), **sizes)
    against, otherwise = (found["truthx"][name][0] for name in ("truth against the user", "else"))
    assert against[1] < 0.1 and otherwise[1] > 0.9  # the model as it is
    assert against[2] > against[1] and otherwise[0] < otherwise[1] - 0.5
    null = found["shuffled"]
    assert null["truth against the user"][0, 2] < against[2] and null["else"][0, 0] > otherwise[0]
    for kind in ("truthx", "shuffled", "random", "means"):
        np.testing.assert_allclose(found[kind]["perplexity"][0, 1], found["truthx"]["perplexity"][0, 1], rtol=1e-5)
    assert saved["alpha"] == found["alpha"].tolist()


def test_questions_become_pairs_of_their_own_answers(experiment, monkeypatch) -> None:
    from interp_jax import models

    script = experiment("truthx_pairs")
    some = [truthfulqa.Question("Myths", f"is it {i} ?", "no", ("no", "never"), ("yes", "it is", "so")) for i in "abc"]
    monkeypatch.setattr(script.choices, "questions", lambda *args: some)
    monkeypatch.setattr(
        script, "written", lambda model, tokens, mask: {s: np.asarray(tokens)[None] for s in script.SITES}
    )
    _, tokenizer = models.load("microworld")

    class Sizes:
        n_train = n_choose = n_test = 1
        n_tokens = 9

    positive, negative, groups, _, _ = script.of_questions(Sizes(), None, tokenizer, 0)
    assert groups.tolist() == [0, 0] and positive[script.SITES[0]].shape == negative[script.SITES[0]].shape
