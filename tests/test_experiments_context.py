"""The experiments on contexts at small size: what is known of planted models is found, and of a trained one told."""

import numpy as np
import pytest

pytestmark = pytest.mark.long


def test_graph_tracing(run, capsys) -> None:
    _, found, saved = run("graph_tracing", "Trace", n_walks=24, lengths=(10, 72), seeds=(0, 1), n_shuffles=50)
    assert found["stream"]["energy"].shape == (2, 4, 2) and np.shape(saved["neighbours"]) == (2, 2)
    assert (found["neighbours"][:, 1] > found["neighbours"][:, 0]).all()  # the task is learned
    assert (found["reader"] < 1).all()
    for site in ("stream", "stream, any order"):  # so the energy falls, at nodes that stand near one another and not
        early, late = found[site]["energy"][:, -1].T
        assert (late < early).all() and (late < found[site]["shuffled mean"][:, -1, 1]).all()
    assert "Neighbours' probability" in capsys.readouterr().out


@pytest.mark.parametrize(("graph", "n_edges"), [("grid", 12), ("ring", 8)])
def test_graph_tracing_of_one_seed(run, graph: str, n_edges: int) -> None:
    _, found, _ = run("graph_tracing", "Trace", graph=graph, n_walks=16, lengths=(72,), seeds=(0,), n_shuffles=20)
    assert found["adjacency"].sum() == 2 * n_edges and (found["reader"] > 1).all()


def test_binding(run, capsys) -> None:
    _, found, saved = run("binding", "Bind", n=16, n_fit=64, seeds=(0, 1))
    script = {edit: np.mean(shares, 0) for edit, shares in saved["planted"]["shares"].items()}
    for edit in ("shift entities", "shift attributes"):  # answers are exchanged as predicted
        assert script[edit][2] == 1
    assert script["shift both"][0] == script["exchange entities"][0] == script["interchange the entity"][0] == 1
    assert script["interchange the attribute"][1] == 1
    for one in found.values():
        assert all(np.allclose(shares.sum(1), 1) for shares in one["shares"].values())
    assert "after 9 of 9 edits" in capsys.readouterr().out


def test_relational_composition(run, capsys, experiment) -> None:
    _, found, saved = run("relational_composition", "Compose", n=16, n_pairs=2, seeds=(0,))
    planted = experiment("relational_models").FORMS
    for name, form in planted.items():
        assert saved[name]["verdict"] == [[form, "attribute"]]
    assert found["slot 0"]["shares"]["attribute"].shape == (1, 6)
    assert "told right in 4 of 4 runs" in capsys.readouterr().out
