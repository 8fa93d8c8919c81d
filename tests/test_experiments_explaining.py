"""The experiments on explanations at tiny size: what is planted is told or not, whoever explains and simulates."""

import numpy as np
import pytest

from tests.chat_server import Server, completion, serving
from tests.explain.test_endpoints import knowing

pytestmark = pytest.mark.long
TRAINING = {"expansion": 1, "k": 4, "n_steps": 20, "batch_size": 64, "n_fit": 300}


def test_planted_units_of_words_are_told_and_contextual_ones_are_not(run, capsys, monkeypatch, experiment) -> None:
    bases = experiment("explain_bases")
    monkeypatch.setattr(bases.dictionaries.ICA, "create", bases.dictionaries.PCA.create)  # a fit of seconds
    sizes = {"depths": (0.4,), "n_tokens": 4000, "n_units": 2, "least": 20, "seeds": (0,)}
    cfg, found, saved = run("explain_features", "ExplainFeatures", training=TRAINING, **sizes)
    for one in found:
        assert np.nanmean(one["tokens"]["scores"][:, :4, 0]) > 0.95
        assert np.nanmean(one["context"]["scores"][:, 0, 0]) < 0.3
        assert set(one) == {"tokens", "context", *(f"{name} 1" for name in bases.BASES)}
        assert abs(np.nanmean(one["tokens"]["scores"][:, -1, 0])) < 0.2
    assert len(saved["found"]) == 1
    said = capsys.readouterr().out
    assert "Of planted units" in said and "dictionary 1" in said


def test_contextual_units_are_those_of_words_moved_on(experiment) -> None:
    """The same words, levels and rates, some tokens later; the words of the text are all there, in another order."""
    bases = experiment("explain_bases")
    of = bases.read("microworld", "", 6000, 64, 0)
    found = bases.planted(of, 3, 0)
    tokens, context = found["tokens"], found["context"]
    assert sorted(tokens.tokens[of.text.mask]) == sorted(of.text.tokens[of.text.mask])
    assert tokens.maxima == pytest.approx(context.maxima)
    assert (context.counts <= tokens.counts).all() and (context.counts > 0.8 * tokens.counts).all()
    for unit in range(3):
        here, later = (records.held.dense(unit) for records in (tokens, context))
        shifts = [
            by
            for by in range(bases.FIRST, bases.LAST + 1)
            if (later[:, by:] == here[:, :-by] * (later[:, by:] > 0)).all()
        ]
        assert len(shifts) == 1


def test_an_endpoint_explains_and_simulates_beside_statistics(run, capsys, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serving(Server(lambda body, _: completion(knowing(body)))) as server:
        names = {"explainers": ("statistics", f"m@{server.url}"), "simulators": ("statistics", f"m@{server.url}")}
        sizes = {"n_tokens": 6000, "n_units": 2, "n_shown": 4, "least": 20, "seeds": (0,)}
        _, found, _ = run("explain_scaling", "ExplainScaling", training=TRAINING, **names, **sizes)
    assert len(found[0]) == 3  # a model's words are not simulated by statistics
    assert np.isfinite(found[0]["microworld | statistics | statistics"]["scores"][:, :3]).all()
    assert found[0][next(key for key in found[0] if key.count("v1") == 2)]["words"] == ["cats and dogs"] * 2
    assert "Spearman's correlation with simulation" in capsys.readouterr().out
