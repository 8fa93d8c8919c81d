"""Features as files: both forms are read, and what would mislead a viewer is refused."""

import gzip
import json

import pytest

from interp_jax import graphs

SEEN = graphs.FeatureDetails(1, {"Top": [((" a", " dog"), (0.0, 2.5))]}, (" barks",), (" meows",))


def test_what_is_written_is_read(tmp_path) -> None:
    folder = graphs.write_features({(2, 1): SEEN}, tmp_path / "features")
    assert graphs.read_feature(folder, 2, 1) == SEEN


def test_records_of_an_index_are_read(tmp_path) -> None:
    """As published beside transcoders: by layer a file of compressed records, and where in it each begins."""
    folder = graphs.write_features({(2, 1): SEEN}, tmp_path)
    record = gzip.compress((folder / f"{graphs.cantor(2, 1)}.json").read_bytes())
    other = gzip.compress(b"{}")
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "layer_2.bin").write_bytes(other + record)
    offsets = [0, len(other), len(other) + len(record)]
    index = {"2": {"filename": "layer_2.bin", "offsets": offsets}}
    (tmp_path / "published" / "index.json.gz").write_bytes(gzip.compress(json.dumps(index).encode()))
    assert graphs.read_feature(tmp_path / "published", 2, 1) == SEEN
    with pytest.raises(FileNotFoundError, match="no feature 2 of layer 2"):
        graphs.read_feature(tmp_path / "published", 2, 2)
    with pytest.raises(ValueError, match=r"layer_2\.bin: no feature of layer 2 \(KeyError"):
        graphs.read_feature(tmp_path / "published", 2, 0)


def test_bad_features_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) is given feature 1"):
        graphs.write_features({(2, 3): SEEN}, tmp_path / "x")
    for values in ((1.0,), (1.0, float("nan"))):
        with pytest.raises(ValueError, match="give as many, and finite ones"):
            graphs.write_features({(0, 1): graphs.FeatureDetails(1, {"Top": [(("a", "b"), values)]})}, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(FileNotFoundError, match=r"no feature 5 of layer 1: neither 26\.json nor index\.json\.gz"):
        graphs.read_feature(tmp_path, 1, 5)
