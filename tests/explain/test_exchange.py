"""delphi's caches: as its source lays them out, read and written."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from interp_jax import explain, io
from tests.dictionaries.kinds import noisy
from tests.explain.test_records import COUNTS, POSITIONS, TOKENS, check, gather, values


def as_delphi_saves(folder, dense, n_splits):
    """A cache as delphi's `save_splits` writes it, from activations `[sequence position feature]`."""
    folder.mkdir(parents=True)
    locations, width = np.argwhere(np.abs(dense) > 1e-5), dense.shape[-1]
    activations = dense[np.abs(dense) > 1e-5]
    edges = np.linspace(0, width, n_splits + 1).astype(int)
    for start, end in zip(edges[:-1], edges[1:] - 1, strict=True):
        mask = (locations[:, 2] >= start) & (locations[:, 2] <= end)
        here = locations[mask]
        here[:, 2] -= start
        arrays = {"locations": here.astype(np.uint16), "activations": activations[mask].astype(np.float16)}
        save_file(arrays | {"tokens": TOKENS.astype(np.int64)}, folder / f"{start}_{end}.safetensors")
    (folder / "config.json").write_text(json.dumps({"ctx_len": POSITIONS, "model_name": "none"}))


def test_a_cache_of_delphis_becomes_records(tmp_path):
    dense = values("x", noisy("topk"))
    as_delphi_saves(tmp_path / "layers.5", np.moveaxis(dense, 0, -1), n_splits=3)
    assert io.delphi.modules(tmp_path) == ["layers.5"]
    found = explain.from_delphi(tmp_path, "layers.5", skip=(0, 1), window=6, n_top=5)
    np.testing.assert_array_equal(found.mask, COUNTS)
    check(found, np.where(dense > 1e-5, dense, 0).astype(np.float16).astype(np.float32))


def test_records_become_a_cache_as_delphi_lays_it_out(tmp_path):
    found = gather({"x": noisy("topk")}, n_held=10_000)["x"]
    explain.to_delphi(found, tmp_path, module="layers.5", model_name="none")
    files = sorted((tmp_path / "layers.5").glob("*.safetensors"), key=lambda path: int(path.stem.split("_")[0]))
    assert [path.stem for path in files] == ["0_3", "4_8", "9_13", "14_18", "19_23"]
    back = np.zeros((*TOKENS.shape, 24), np.float32)
    for path in files:
        arrays = load_file(path)
        assert arrays["locations"].dtype == np.uint16 and arrays["activations"].dtype == np.float16
        np.testing.assert_array_equal(arrays["tokens"], TOKENS)
        rows, positions, features = arrays["locations"].astype(int).T
        back[rows, positions, features + int(path.stem.split("_")[0])] = arrays["activations"]
    np.testing.assert_allclose(np.moveaxis(back, -1, 0), values("x", noisy("topk")), rtol=1e-3, atol=1e-6)
    config = json.loads((tmp_path / "layers.5" / "config.json").read_text())
    assert config["ctx_len"] == POSITIONS and config["model_name"] == "none"


def test_broken_caches_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no cache of delphi there; modules: none"):
        explain.from_delphi(tmp_path, "layers.5")
    with pytest.raises(ValueError, match="is no name of a folder"):
        explain.from_delphi(tmp_path, "../layers.5")
    as_delphi_saves(tmp_path / "layers.5", np.moveaxis(values("x", noisy("topk")), 0, -1), n_splits=3)
    (tmp_path / "layers.5" / "8_15.safetensors").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="features from 8 on were wanted; a file of the cache is missing"):
        explain.from_delphi(tmp_path, "layers.5")
    (tmp_path / "layers.5" / "8_15.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="is broken"):
        explain.from_delphi(tmp_path, "layers.5")
    save_file({"locations": np.zeros((0, 3), np.uint16)}, tmp_path / "layers.5" / "8_15.safetensors")
    with pytest.raises(ValueError, match="has no tokens"):
        explain.from_delphi(tmp_path, "layers.5")
