"""The experiments on causes at small size: each writes its figure and numbers, and finds what is known of its model."""

import numpy as np
import pytest

pytestmark = pytest.mark.long


def test_ioi(run, capsys) -> None:
    _, found, saved = run("ioi", "IOI", n=8, seeds=(0, 1), steps=3)
    heads, share = saved["heads"], saved["faithfulness"]
    assert all(np.shape(values) == (2, 4, 4) for values in heads.values())
    for name, values in share.items():
        assert np.array(values)[:, 0] == pytest.approx(0, abs=1e-3), name
    assert np.array(share["nodes by EAP-IG"])[:, -1] == pytest.approx(1, abs=1e-3)
    direct = np.ravel(heads["direct"][0])  # of the whole output, and paths of what the names change in it
    assert np.argmax(heads["to logits"][0]) in np.argsort(-direct)[:3]
    assert np.mean(saved["told"]["Spearman of patching and EAP-IG"]) > 0.5
    assert found["told"].keys() == saved["told"].keys() and "writes the name" in capsys.readouterr().out


def test_induction_is_known(run) -> None:
    _, found, saved = run("induction", "Induction", seeds=(3,))
    assert found["accuracy"] > 0.95
    looks_back, into_keys = np.array(saved["previous"])[0], np.array(saved["to k"])[0]
    assert looks_back[0].max() > 0.8 > 0.4 > looks_back[1].max()
    assert looks_back[0, np.argmax(into_keys[0])] > 0.8 and into_keys[0].sum() > 0.8
    for kind in "qv":
        assert np.abs(saved[f"to {kind}"]).max() < 0.1
    assert np.array(saved["induction"])[0, 1].mean() > 0.5 > np.array(saved["induction"])[0, 0].max()
    assert found["share"][0, 0] == pytest.approx(0, abs=1e-3) and found["share"][0, -1] > 0.8


@pytest.mark.parametrize(
    ("name", "settings", "changes"),
    [
        ("attribution_patching", "Compare", {"tasks": ("ioi",), "n": 4, "steps": 2}),
        ("causal_tracing", "Trace", {"n": 4, "n_samples": 2}),
        ("tuned_lens", "Tune", {"n_tokens": 4000, "n_steps": 20}),
    ],
)
def test_the_others_run(run, name, settings, changes) -> None:
    cfg, found, saved = run(name, settings, seeds=(0, 1), **changes)
    assert saved["config"]["seeds"] == [0, 1] and saved["config"]["model"] == cfg.model and found
