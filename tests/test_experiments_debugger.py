"""The transformer debugger's experiment, at tiny size: slopes rank ablations, and scores of other nodes do not."""

import numpy as np
import pytest

pytestmark = pytest.mark.long


def test_scores_beside_ablations(run, capsys) -> None:
    _, found, saved = run("debugger", "Debugger", n_prompts=1, n_reference=4, n_nodes=12, seeds=(0,))
    told = found["agreement"]
    assert told["head, last token | zero | gradient"][0] > 0.8
    assert told["neuron, before | zero | gradient"][0] > 0.5
    assert abs(np.mean([value for key, value in told.items() if key.endswith("shuffled")])) < 0.3
    assert not any("before" in key and key.endswith("direct") for key in told)  # nothing there is direct
    assert found["restored"].shape == (1, 4, 4) and "patching" in saved
    assert "whole heads" in capsys.readouterr().out
