"""Edge attribution: the edges into a node add up to the attribution of all that it reads."""

import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import patching


@pytest.mark.long
@pytest.mark.parametrize("steps", [0, 3])
def test_edges_into_a_node_add_up(tiny, steps) -> None:
    f, metric, model, clean, corrupted = tiny
    edges = patching.edge_attribution(f, metric, steps=steps)(model, clean, corrupted)
    into = dict(zip(edges.receivers, edges.scores.sum(0), strict=True))
    embed, mlp = "blocks.0.resid_pre", "blocks.mlp_in"
    sites = [embed, mlp, "blocks.q_input", "blocks.resid_post"]
    there, here = (ij.capture(f, sites, output=False)(model, x) for x in (clean, corrupted))
    shares = [k / steps for k in range(1, steps + 1)] or [0.0]
    slopes = []
    for share in shares:
        run = ij.intervene(f, {embed: ij.interventions.replace((1 - share) * here[embed] + share * there[embed])})
        slopes.append(ij.grads(run, sites[1:], lambda out: metric(out).mean())(model, corrupted)[2])
    change = {s: (there[s] - here[s]) * sum(slope[s] for slope in slopes) / len(slopes) for s in sites[1:]}
    np.testing.assert_allclose(into["mlp 1"], change[mlp][1].sum(), atol=1e-5)
    np.testing.assert_allclose(into["logits"], change["blocks.resid_post"][-1].sum(), atol=1e-5)
    np.testing.assert_allclose(into["q 1.1"], change["blocks.q_input"][1, :, :, 1].sum(), atol=1e-5)
    scores = dict(zip(edges.senders, edges.scores, strict=True))
    assert scores["mlp 1"][edges.receivers.index("q 1.0")] == 0 != scores["mlp 0"][edges.receivers.index("q 1.0")]


def test_bad_input(tiny) -> None:
    with pytest.raises(ValueError, match="steps=-1 is negative"):
        patching.edge_attribution(tiny.f, tiny.metric, steps=-1)
    with pytest.raises(ValueError, match="give pairs of the same length"):
        patching.edge_attribution(tiny.f, tiny.metric)(tiny.model, jnp.zeros((3, 2), int), tiny.corrupted)
