"""The sweep of sparsity weights: it runs, and the weight does what it is for, at the config's own rate."""

import importlib.util
from pathlib import Path
import sys

import numpy as np
import pytest

from interp_jax import config

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


@pytest.fixture
def sweep(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    spec = importlib.util.spec_from_file_location("sparsity_sweep", EXPERIMENTS / "sparsity_sweep.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sparsity_sweep", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HELD_OUT", 256)
    return module


def settings(sweep, tmp_path, *words):
    small = ["--out", str(tmp_path), "--n-tokens", "4000", "--peers", "--seeds", "0", "--d-sae", "64", *words]
    return config.load(sweep.Sweep, EXPERIMENTS.parent / "configs" / "sparsity_sweep.toml", small)


def test_every_kind_is_swept(sweep, tmp_path, capsys):
    found = sweep.main(settings(sweep, tmp_path, "--n-steps", "2", "--batch-size", "64", "--factors", "0.1", "10"))
    kinds = ["ReLU april 2024", "ReLU towards", "Tied", "PAnneal", "Gated", "JumpReLU"]
    assert list(found) == [*kinds, "Transcoder", "SkipTranscoder", "Crosscoder", "CLT"]
    assert all(each.shape == (1, 2, 3) and np.isfinite(each[..., :2]).all() for each in found.values())
    assert np.isfinite(found["JumpReLU"]).all() and np.isfinite(found["CLT"]).all()
    assert "L0 falls" in capsys.readouterr().out
    assert (tmp_path / "sparsity_sweep.html").exists() and (tmp_path / "sparsity_sweep.json").exists()


@pytest.mark.long
def test_over_six_decades_thresholds_move_and_features_become_ten_times_fewer(sweep, tmp_path):
    words = ["--kinds", "JumpReLU", "CLT", "--n-steps", "2000", "--batch-size", "128"]
    found = sweep.main(settings(sweep, tmp_path, *words, "--d-sae", "256", "--n-tokens", "20000"))
    for each in found.values():
        l0, moved = each[0, :, 0], each[0, :, 2]
        assert l0.max() > 10 * l0.min()
        assert moved.max() > 0.3
