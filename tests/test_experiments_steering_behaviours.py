"""Published behaviours as vectors, at small size: what a script says of held-out words is of held-out words."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from interp_jax import models
from interp_jax.data.worlds.context import TABLES

pytestmark = pytest.mark.long


def test_function_vectors(run, capsys) -> None:
    tasks, sizes = ("french", "plural"), {"n_means": 8, "n_effects": 6, "n_test": 6, "n_texts": 4}
    cfg, found, saved = run("function_vectors", "Functions", tasks=tasks, seeds=(0,), strengths=(0.0, 1.0), **sizes)
    n_layers = models.load(cfg.model)[0].config.n_layers
    assert found["effects"].shape[:3] == (1, 2, n_layers) and 0 <= found["layer"] < n_layers
    vector = found["layers"]["function vector"]
    assert vector.shape == (1, 2, n_layers) and saved["layers"]["function vector"] == vector.tolist()
    assert vector.mean() > found["without"]["zero"].mean() + 0.2  # of words that it was not made of
    for control in ("random heads", "random vector", "shuffled labels", "another task's"):
        assert found["layers"][control].mean() < vector.mean() - 0.2
    third = n_layers // 3  # where strengths are tried: at 0 it is the model as it is, at 1 what the sweep has there
    by_dose = found["doses"][0, 0]
    np.testing.assert_allclose(by_dose[0], found["without"]["zero"].mean(), atol=1e-6)
    np.testing.assert_allclose(by_dose[1], vector[..., third].mean(), atol=1e-6)
    assert "Heads of the largest effects" in capsys.readouterr().out


def test_words_that_are_asked_are_in_no_prompt_of_a_vector(experiment) -> None:
    tasks, (_, tokenizer) = experiment("function_tasks"), models.load("microworld-context")
    pairs = list(TABLES["french"].items())
    train, test = tasks.split(pairs, np.random.default_rng(0), 6)
    assert len(test) == 6 and not set(train) & set(test) and sorted(train + test) == sorted(pairs)
    assert tokenizer is not None
    shown = tasks.prompts(tokenizer, np.random.default_rng(0), train[:4], train, 3, world=True)
    texts = [tokenizer.decode(row[mask]) for row, mask in zip(shown.tokens, np.asarray(shown.mask), strict=True)]
    for text, (asked, answer) in zip(texts, train, strict=False):
        assert answer not in text.split() and not {x for x, _ in test} & set(text.split())
        assert text.split().count(asked) == 1


def test_answers_of_several_tokens_are_left_out_and_told(experiment, monkeypatch, tmp_path) -> None:
    tasks = experiment("function_tasks")
    syllables = SimpleNamespace(encode=lambda text, bos: text.split("-"))
    rows = [{"input": "x", "output": word} for word in ("dog", "ti-ger", "cat", "cro-co-dile", "bee")]
    (tmp_path / "words.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setattr(tasks.depths, "data", lambda name: tmp_path)
    kept, told = tasks.tasks(syllables, ("words",), False, 3)
    assert [y for _, y in kept["words"]] == ["dog", "cat", "bee"] and "words 2 of 5" in told
    with pytest.raises(SystemExit, match="words: 3 of 5 answers are one token, and 4 pairs are needed"):
        tasks.tasks(syllables, ("words",), False, 4)
