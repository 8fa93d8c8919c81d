"""The synthetic bench at tiny size: a record for every architecture of single tokens, its numbers and its files."""

from dataclasses import replace
import json
from pathlib import Path

import numpy as np
import pytest

from interp_jax import config
from tests.dictionaries.kinds import ARCHITECTURES


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_architecture_has_a_record(experiment, tmp_path: Path, capsys) -> None:
    script = experiment("synthetic_dictionaries")
    cfg = config.load(script.Bench, "configs/synthetic_dictionaries.toml", ())
    sizes = {"d_in": 8, "n_features": 32, "d_sae": 32, "n_steps": 4, "batch_size": 32, "n_points": 40, "n_eval": 400}
    cfg = replace(cfg, kinds=("hierarchical",), seeds=(0, 1), weights=(1.0, 2.0), out=tmp_path, **sizes)
    records = script.main(cfg)
    used = {arch.architecture for arch, *_ in script.architectures(cfg, np.zeros((40, 8), np.float32)).values()}
    assert used == {name for name, kind in ARCHITECTURES.items() if not kind.reads_sequence}
    saved = json.loads((tmp_path / "synthetic_dictionaries.json").read_text())["records"]
    assert [each["architecture"] for each in saved] == [each["architecture"] for each in records]
    for each in records:
        for column, values in each["values"].items():
            assert each[column] == pytest.approx(np.mean(values))
            assert each[f"{column}_spread"] == pytest.approx(np.std(values))
        assert 0 < each["cosine"] <= 1 + 1e-6
        assert 0 < each["l0"] <= 64
    assert "RA-SAE" in capsys.readouterr().out
    assert (tmp_path / "synthetic_dictionaries.html").stat().st_size > 1000
