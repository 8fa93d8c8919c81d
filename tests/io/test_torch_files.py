"""The restricted reader of torch files: what it refuses, on files written byte by byte, without torch."""

import os
from pathlib import Path
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax.io import torch_files


def integer(n: int) -> bytes:
    return b"J" + struct.pack("<i", n)


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def many(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def tensor(shape, strides, offset=0, n=6, kind="FloatStorage", key="0", function="_rebuild_tensor_v2") -> bytes:
    storage = many(text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), integer(n)) + b"Q"
    ordered = b"ccollections\nOrderedDict\n)R"
    sizes = (many(*map(integer, axis)) for axis in (shape, strides))
    return f"ctorch._utils\n{function}\n".encode() + many(storage, integer(offset), *sizes, b"\x89", ordered) + b"R"


def write(path: Path, value: bytes, compression=zipfile.ZIP_STORED, **members: bytes) -> Path:
    members = {"data.pkl": b"\x80\x02" + value + b".", "data/0": np.arange(6, dtype="<f4").tobytes()} | members
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return path


def test_strides_offsets_and_shared_storages(tmp_path: Path) -> None:
    entries = {"all": tensor((2, 3), (3, 1)), "turned": tensor((3, 2), (1, 3)), "last": tensor((), (), offset=5)}
    entries |= {"none": tensor((0, 4), (4, 1)), "repeated": tensor((2, 2), (0, 2), offset=1)}
    pairs = b"".join(text(name) + value for name, value in entries.items())
    got = torch_files.read(write(tmp_path / "a.pt", b"}(" + pairs + b"u"))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    want = {"all": x, "turned": x.T, "last": x[1, 2], "none": np.zeros((0, 4), np.float32), "repeated": [[1, 3]] * 2}
    assert list(got) == list(want)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
    assert np.shares_memory(got["all"], got["turned"]) and not got["all"].flags.writeable


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("HalfStorage", "float16"), ("BFloat16Storage", "bfloat16"), ("LongStorage", "int64"), ("BoolStorage", "bool")],
)
def test_dtypes(tmp_path: Path, kind: str, dtype: str) -> None:
    want = np.array([0, 1, 0, 1, 1, 1]).astype(jnp.dtype(dtype))
    file = write(tmp_path / "a.pt", tensor((6,), (1,), kind=kind), **{"data/0": want.tobytes()})
    got = torch_files.read(file)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))


class Attack:
    """What a pickle may do: call anything."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_an_attack_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        attack = pickle.dumps({"w": Attack(trace)}, protocol)
        with pytest.raises(ValueError, match=r"a\.pt: refused: its pickle (asks for posix\.mkdir|has the operation)"):
            torch_files.read(write(tmp_path / "a.pt", b"", **{"data.pkl": attack}))
        assert not trace.exists()
        pickle.loads(attack)  # the same bytes do run where they are let
        trace.rmdir()


ORDERED, REBUILD = b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"cbuiltins\neval\n" + many(text("1")) + b"R", r"refused: its pickle asks for builtins\.eval"),
        (tensor((6,), (1,), kind="UntypedStorage"), r"refused: its pickle asks for torch\.UntypedStorage"),
        (
            tensor((6,), (1,), function="_rebuild_tensor"),
            r"refused: its pickle asks for torch\._utils\._rebuild_tensor;",
        ),
        (b"(ios\nsystem\n", "refused: its pickle has the operation INST"),
        (b"\x82\x01", "refused: its pickle has the operation EXT1"),
        (ORDERED, r"refused: it holds collections\.OrderedDict itself"),
        (b"]" + REBUILD + b"a", r"refused: it holds torch\._utils\._rebuild_tensor_v2 itself"),
        (REBUILD + b"}" + text("__code__") + text("x") + b"sb", "a _Name where a dict is wanted"),
        (ORDERED + many(text("x")) + b"R", r"a call of collections\.OrderedDict"),
        (text("x") + b")R", "a call of str"),
        (REBUILD + many(text("x"), integer(0), many(), many()) + b"R", "a tensor without a storage"),
        (tensor((7,), (1,)), "a tensor reaches element 6 of a storage of 6"),
        (tensor((2, 3), (3, 1), offset=1), "a tensor reaches element 6 of a storage of 6"),
        (tensor((2, 3), (2**30, 1)), "a tensor reaches element"),
        (tensor((-1,), (1,)), "where a size is wanted"),
        (tensor((2,), (-1,), offset=3), "where a size is wanted"),
        (tensor((2, 3), (1,)), "damaged"),
        (tensor((6,), (1,), n=7), "buffer"),
        (tensor((6,), (1,), key="1"), "archive/data/1 is missing"),
        (tensor((6,), (1,), key="../data.pkl"), "is missing"),
        (b"", "damaged"),
        (b"K\x01K\x02", "damaged"),
        (b"h\x07", "damaged"),
        (b"]\x94", "refused: its pickle has the operation MEMOIZE"),
    ],
)
def test_refused_in_one_line(tmp_path: Path, value: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        torch_files.read(write(tmp_path / "a.pt", value))
    assert "a.pt: " in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_that_holds_itself_and_one_of_2_to_the_60_leaves_end(tmp_path: Path) -> None:
    cyclic = torch_files.read(write(tmp_path / "a.pt", b"]q\x00h\x00a"))
    assert cyclic[0] is cyclic
    doubled = b"]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 60))
    assert len(torch_files.read(write(tmp_path / "b.pt", b"(" + doubled + b"t"))) == 60


def test_what_is_not_such_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        torch_files.read(tmp_path / "absent.pt")
    whole = write(tmp_path / "a.pt", tensor((2, 3), (3, 1))).read_bytes()
    for torn in (b"", b"\x80\x02}.", whole[:-40], whole[100:], whole.replace(b"\x80\x3f", b"\x80\x3e")):
        (tmp_path / "torn.pt").write_bytes(torn)
        with pytest.raises(ValueError, match=r"torn\.pt: torn, damaged or not a zip") as caught:
            torch_files.read(tmp_path / "torn.pt")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="data.pkl is compressed"):
        torch_files.read(write(tmp_path / "a.pt", b"N", zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="little-endian"):
        torch_files.read(write(tmp_path / "a.pt", b"N", byteorder=b"big"))
    with pytest.raises(ValueError, match="2 members named data.pkl"):
        torch_files.read(write(tmp_path / "a.pt", b"N", **{"b/data.pkl": b"N."}))


def test_the_real_files(real_data: Path) -> None:
    for file in (real_data / "modular-addition").glob("*.pt"):
        params = torch_files.read(file)
        assert params["embed.W_E"].shape == (128, 59) and params["blocks.0.attn.W_Q"].shape == (4, 32, 128)
        assert all(np.isfinite(array).all() for array in params.values())
