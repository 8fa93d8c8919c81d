"""llama.cpp's files: every type and kind of value, rows on their own, and damage in one line."""

from pathlib import Path
import struct

import gguf
import numpy as np
import pytest

from interp_jax.io import gguf_files

# What the package dequantises; K-quants and the like it cannot write, so their bytes are drawn.
KINDS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"]


def finish(writer: gguf.GGUFWriter) -> None:
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_string("a.string", "é\n日本")
    writer.add_bool("a.bool", True)
    writer.add_int32("a.int", -3)
    writer.add_uint64("a.large", 2**63)
    writer.add_float32("a.float", 0.5)
    writer.add_float64("a.double", 1e-300)
    writer.add_array("a.words", ["x", "", "y z"])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.flags", [True, False])
    writer.add_array("a.floats", [0.5, -1.0])
    writer.add_tensor("w", np.arange(96, dtype=np.float32).reshape(3, 32))
    writer.add_tensor("b", np.arange(5, dtype=np.float32))
    finish(writer)
    return tmp_path / "a.gguf"


def test_values(file: Path) -> None:
    metadata, tensors = gguf_files.read(file)
    assert {key: value for key, value in metadata.items() if key.startswith("a.")} == {
        "a.string": "é\n日本",
        "a.bool": True,
        "a.int": -3,
        "a.large": 2**63,
        "a.float": 0.5,
        "a.double": 1e-300,
        "a.words": ["x", "", "y z"],
        "a.numbers": [1, -2, 3],
        "a.flags": [True, False],
        "a.floats": [0.5, -1.0],
    }
    assert {name: (rows.shape, rows.kind) for name, rows in tensors.items()} == {
        "w": ((3, 32), "F32"),
        "b": ((5,), "F32"),
    }
    np.testing.assert_array_equal(tensors["b"].read(0, 1), [np.arange(5)])
    np.testing.assert_array_equal(tensors["w"].read(1, 3), np.arange(32, 96).reshape(2, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_type(kind: str, tmp_path: Path) -> None:
    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[number]
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 60, (6, max(1, 512 // block) * size)).astype(np.uint8)  # small, so that no half is infinite
    want = gguf.dequantize(raw, number).astype(np.float32)
    writer = gguf.GGUFWriter(str(tmp_path / "a"), "llama")
    values = {"F32": np.float32, "F16": np.float16}  # which it knows by their dtype
    writer.add_tensor("w", raw.view(values[kind]), raw_dtype=None) if kind in values else writer.add_tensor(
        "w", raw, raw_dtype=number
    )
    finish(writer)
    _, tensors = gguf_files.read(tmp_path / "a")
    assert tensors["w"].shape == want.shape and tensors["w"].kind == kind
    for start, stop in ((0, 6), (2, 3), (5, 6)):
        got = tensors["w"].read(start, stop)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, want[start:stop])


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.97])
def test_a_torn_file(file: Path, share: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"^\S*a.gguf: torn or damaged GGUF file .*; download it again$"):
        gguf_files.read(file)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_one_line_or_nothing(file: Path, seed: int) -> None:
    whole, rng = bytearray(file.read_bytes()), np.random.default_rng(seed)
    for at in rng.integers(4, 700, 3):
        whole[at] = rng.integers(256)
    file.write_bytes(whole)
    try:
        gguf_files.read(file)
    except ValueError as error:
        assert "\n" not in str(error) and str(error).startswith(str(file))


def test_arrays_in_arrays_without_end(file: Path) -> None:
    deep = struct.pack("<IQ", 9, 1) * 100_000
    file.write_bytes(struct.pack("<4sIQQQ1sI", b"GGUF", 3, 0, 1, 1, b"a", 9) + deep)
    with pytest.raises(ValueError, match="a.gguf: torn or damaged GGUF file"):
        gguf_files.read(file)


def test_other_files(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing: no such file"):
        gguf_files.read(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="text: is no GGUF file: it does not begin with GGUF"):
        gguf_files.read(tmp_path / "text")
    for version in (1, struct.unpack("<I", struct.pack(">I", 3))[0]):
        file.write_bytes(b"GGUF" + struct.pack("<I", version) + file.read_bytes()[8:])
        with pytest.raises(ValueError, match=rf"GGUF version {version} is not read, only \(2, 3\), in little-endian"):
            gguf_files.read(file)
