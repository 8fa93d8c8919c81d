"""MIB's table at small size: full circuits are the model, edges of nodes, and the methods beat a random order."""

import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import patching

pytestmark = pytest.mark.long


@pytest.mark.parametrize("level", ["edges", "nodes"])
def test_areas_by_method(run, capsys, level) -> None:
    _, found, saved = run("ioi_mib", "MIB", n=2, seeds=(0,), steps=1, mask_steps=20, level=level)
    assert ("edge pruning" in found) == ("edge patching" in found) == (level == "edges")
    for name, told in found.items():
        for order in ("largest scores", "largest sizes"):
            assert told[order].shape == (1, 10) and told[order][0, 0] == pytest.approx(0, abs=1e-3), name
            assert told[order][0, -1] == pytest.approx(1, abs=1e-3), name
        assert told["CMD"][0] >= 0 and saved[name]["CPR"][0] == pytest.approx(told["CPR"][0])
    for name in ("node patching", "EAP", "EAP-IG, inputs", "EAP-IG, activations"):
        assert found[name]["CMD"][0] < found["random"]["CMD"][0]
    assert "CPR" in capsys.readouterr().out


def test_edges_score_as_the_lower_of_their_nodes(experiment) -> None:
    senders, receivers = ("embed", "head 0.0", "head 0.1", "mlp 0"), ("q 0.0", "q 0.1", "k 0.0", "mlp 0", "logits")
    like = patching.Edges(jnp.zeros((4, 5)), senders, receivers)
    found = experiment("ioi_mib").between(jnp.array([[3.0, 5.0]]), jnp.array([4.0]), like).scores
    wanted = [[3, 5, 5, 4, np.inf], [3, 3, 3, 3, 3], [3, 5, 5, 4, 5], [3, 4, 4, 4, 4]]
    assert np.array_equal(found, wanted)
