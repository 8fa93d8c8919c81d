"""Checkpoint tensors read in slices: every layout, and little more in memory than the slice."""

import math
from pathlib import Path
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from interp_jax.models.families import Rename
from interp_jax.models.tensors import Source, Tensor, join

ATTN = ("blocks.0.attn.w_q", "blocks.0.attn.w_k", "blocks.0.attn.w_v")
CASES = {  # rule, shapes of ours, the axes that a mesh may split
    "transposed": (Rename("a.weight", ("mlp.w_in",), transpose=True), [(6, 16)], (0, 1)),
    "as it is": (Rename("a.weight", ("mlp.w_in",)), [(6, 16)], (0, 1)),
    "output heads": (Rename("a.weight", ("attn.w_o",), transpose=True), [(8, 3, 5)], (0, 2)),
    "fused": (Rename("a.weight", ATTN), [(6, 8, 3), (6, 4, 3), (6, 4, 3)], (0, 1)),
    "fused, transposed": (Rename("a.weight", ATTN, transpose=True), [(6, 8, 3), (6, 4, 3), (6, 4, 3)], (0, 1)),
    "interleaved": (Rename("a.weight", ATTN, transpose=True, interleaved=True), [(6, 8, 3)] * 3, (0, 1)),
    "biases": (Rename("a.bias", ("b_q", "b_k", "b_v"), vector=True), [(8, 3), (4, 3), (4, 3)], (0,)),
    "interleaved biases": (Rename("a.bias", ("b_q", "b_k", "b_v"), interleaved=True, vector=True), [(8, 3)] * 3, (0,)),
    "a norm of heads": (Rename("q_norm.weight", ("q_norm.w",), vector=True), [(8, 3)], (0,)),
}


def written(folder: Path, rename: Rename, parts: list[np.ndarray]) -> list[Source]:
    safetensors.numpy.save_file({"a": join(parts, rename)}, folder / "a")
    shapes = tuple(part.shape for part in parts)
    found = safetensors.safe_open(folder / "a", "numpy").get_slice("a")
    tensor = Tensor("a", tuple(found.get_shape()), found.__getitem__)
    return [Source(tensor, rename, i, shapes) for i in range(len(parts))]


@pytest.mark.parametrize("case", CASES)
def test_what_is_joined_comes_back_in_slices(case: str, tmp_path: Path) -> None:
    rename, shapes, axes = CASES[case]
    parts = [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)]
    for source, part in zip(written(tmp_path, rename, parts), parts, strict=True):
        np.testing.assert_array_equal(source.read(), part)
        assert source.read(dtype=np.dtype(np.float16)).dtype == np.float16
        for axis in axes:
            half = part.shape[axis] // 2
            for at in (slice(0, half), slice(half, None), slice(1, 2)):
                index = tuple(at if i == axis else slice(None) for i in range(part.ndim))
                np.testing.assert_array_equal(source.read(index), part[index])


def test_layouts_are_those_of_linear_layers() -> None:
    """`join` against products written by hand: x W for ours is x Wᵀ for a tensor [out in], head by head."""
    rng = np.random.default_rng(0)
    x, parts = rng.normal(size=6), [rng.normal(size=(6, 8, 3)) for _ in range(3)]
    heads = [np.einsum("i,ihd->hd", x, part) for part in parts]
    fused = join(parts, Rename("a.weight", ATTN, transpose=True)) @ x
    np.testing.assert_allclose(fused, np.concatenate([h.ravel() for h in heads]))
    mixed = join(parts, Rename("a.weight", ATTN, transpose=True, interleaved=True)) @ x
    np.testing.assert_allclose(mixed.reshape(8, 3, 3), np.stack(heads, axis=1))


@pytest.mark.parametrize("case", ["transposed", "as it is", "output heads", "fused, transposed"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reading_a_shard_takes_little_more_than_the_shard(case: str, dtype: type, tmp_path: Path) -> None:
    rename, shapes, _ = CASES[case]
    big = [(shape[0] * 160, *shape[1:-1], shape[-1] * 160) for shape in shapes]
    parts = [np.ones(shape, np.float32) for shape in big]
    source = written(tmp_path, rename, parts)[0]
    index = (slice(0, big[0][0] // 2), *(slice(None) for _ in big[0][1:]))
    tracemalloc.start()
    shard = source.read(index, np.dtype(dtype))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shard.nbytes == math.prod(big[0]) // 2 * np.dtype(dtype).itemsize
    assert peak <= 1.3 * shard.nbytes + 20_000
