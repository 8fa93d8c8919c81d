"""Circuit tracing at tiny size: what a graph says is measured, and equal where all else is held."""

import numpy as np
import pytest

pytestmark = pytest.mark.long


def test_what_a_graph_says_is_tried(run, capsys) -> None:
    sizes = {"n_prompts": 1, "n_single": 3, "n_together": 3, "n_features": 60, "seeds": (0,)}
    _, found, saved = run("circuit_tracing", "Tracing", **sizes)
    single = found["single"]
    assert single.shape == (1, 1, 3, 6) and found["together"].shape == (1, 1, 3, 4)
    assert np.allclose(single[..., 0], single[..., 2], atol=1e-4)
    assert 0 < saved["scores"][0][0][0] < 1 and "through features" in capsys.readouterr().out


def test_a_circuit_of_features_is_measured(run, capsys) -> None:
    sizes = {"n": 4, "steps": 2, "sizes": (5, 100_000), "n_nodes": 15, "seeds": (0,)}
    _, found, saved = run("sparse_feature_circuits", "FeatureCircuits", **sizes)
    whole = found["largest effects"]
    assert whole["faithfulness"][0, -1] > 0.9 > whole["faithfulness"][0, 0]  # all that differs in the ranked pairs
    assert whole["completeness"][0, -1] < 0.1 < whole["completeness"][0, 0]
    assert found["features alone"]["faithfulness"][0, -1] < 1 and 0 < saved["errors"][0] < 1
    assert len(found["edges"][0]) == 12 and "-> the difference" in capsys.readouterr().out
