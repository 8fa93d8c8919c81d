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
