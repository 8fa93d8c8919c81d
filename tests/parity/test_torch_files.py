"""The restricted reader beside `torch.load`, on files that torch writes."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from interp_jax.io import torch_files  # noqa: E402

pytestmark = pytest.mark.parity
DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()


def as_numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def check(path: Path) -> Any:
    got, want = torch_files.read(path), torch.load(path, weights_only=True, map_location="cpu")
    same(got, want)
    return got


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict | list | tuple):
        assert isinstance(theirs, type(ours)) and len(ours) == len(theirs)  # an OrderedDict is read as a dict
        assert not isinstance(ours, dict) or list(ours) == list(theirs)
        for key in theirs if isinstance(theirs, dict) else range(len(theirs)):
            same(ours[key], theirs[key])
    elif isinstance(theirs, torch.Tensor):
        theirs = as_numpy(theirs)
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert ours.tobytes() == theirs.tobytes()
    else:
        assert type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_views(tmp_path: Path, dtype: str) -> None:
    x = (torch.arange(60) % 7 - 2).reshape(3, 4, 5).to(getattr(torch, dtype))
    views = {"x": x, "t": x.permute(2, 0, 1), "part": x[1:, ::2, 3:], "one": x[2, 3, 4], "none": x[:0]}
    views |= {"wide": x[0, 0, :1].expand(6), "half": x.half(), "other": x.reshape(-1)[7:].clone()}
    torch.save(views, tmp_path / "a.pt")
    got = check(tmp_path / "a.pt")
    assert np.shares_memory(got["x"], got["t"]) and not np.shares_memory(got["x"], got["other"])


def test_a_module_and_its_optimizer(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(5, 3)).square().sum().backward()
    optimizer.step()
    saved = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "step": 2**40, "rate": 0.5, "on": True}
    torch.save(saved, tmp_path / "a.pth")
    check(tmp_path / "a.pth")


def test_what_else_torch_writes_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"w": torch.ones(2).to_sparse()}, tmp_path / "sparse.pt")
    refused = {
        "module": "asks for torch.nn.modules.linear.Linear",
        "old": "not a zip file",
        "sparse": "asks for torch._u",
    }
    for name, message in refused.items():
        with pytest.raises(ValueError, match=message):
            torch_files.read(tmp_path / f"{name}.pt")


def test_the_real_files(real_data: Path) -> None:
    for file in (real_data / "modular-addition").glob("*.pt"):
        check(file)
