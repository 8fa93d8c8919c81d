"""Cunningham et al. at tiny size: every layer and kind is scored, pairs are patched, a feature is shown."""

from dataclasses import replace
import json
from pathlib import Path

import numpy as np
import pytest

from interp_jax import config


@pytest.fixture
def script(experiment):
    return experiment("cunningham")


@pytest.mark.long
def test_all_three_parts(script, real_data: Path, tmp_path: Path, capsys) -> None:
    cfg = config.load(script.Study, "configs/cunningham.toml", ())
    cfg = replace(
        cfg,
        **{"n_tokens": 3000, "n_heldout": 8, "ratios": (2,), "n_fit": 300, "out": tmp_path},
        training=replace(cfg.training, n_steps=30, seeds=(0, 1), batch_size=256),
        ioi=replace(cfg.ioi, n_tokens=3000, ratio=1, sparsities=(0.5,), n_pairs=4, n_patched=3),
        model=str(real_data / "stories260K"),
        text=real_data / "tinystories" / "stories.txt",
    )
    numbers = script.main(cfg)
    kinds = {"tied R=2", "neurons", "random", "PCA", "ICA", "NMF"}
    assert len(numbers["layers"]) == 5 and all(set(layer) == kinds for layer in numbers["layers"])
    for layer in numbers["layers"]:
        k = round(np.mean(layer["tied R=2"]["l0"]))
        assert layer["PCA"]["l0"] == layer["neurons"]["l0"] == [min(64, k)]
        assert layer["PCA"]["fvu"][0] < layer["random"]["fvu"][0]
        assert len(layer["tied R=2"]["fvu"]) == 2
    for kind in ("own", "shared"):
        curves = {name: np.asarray(found[kind]) for name, found in numbers["ioi"].items()}
        assert curves["tied 0.5"].shape == (2, 4) and curves["PCA"].shape == (1, 4)
        assert all(curve[:, 0] == pytest.approx(curves["PCA"][0, 0], rel=1e-4) for curve in curves.values())
    assert numbers["ioi"]["PCA"]["all"] == [pytest.approx(0, abs=1e-3)]  # the whole residual stream is swapped
    one = numbers["feature"]
    assert one["density"] > 1 / 200 and len(one["tokens"]) == 10 and len(one["logits"]) == 14
    saved = json.loads((tmp_path / "cunningham.json").read_text())
    assert saved["ioi"] == numbers["ioi"] and saved["config"]["training"]["seeds"] == [0, 1]
    assert (tmp_path / "cunningham.html").stat().st_size > 1000
    assert "fewer features than PCA" in capsys.readouterr().out


def test_a_missing_model_is_told_in_one_line(script, tmp_path: Path) -> None:
    cfg = config.load(script.Study, "configs/cunningham.toml", ("--model", str(tmp_path / "nothing")))
    with pytest.raises(SystemExit, match=r"^--model .*nothing: is not there; give .* or set INTERP_JAX_DATA$"):
        script.main(cfg)


def test_how_many_features_it_takes(script) -> None:
    import cunningham_features  # pyright: ignore[reportMissingImports]

    assert cunningham_features.fewest([[8.0, 7.0, 3.0, 5.0], [8.0, 8.0, 8.0, 8.0]], 0.5) == [2, np.inf]
