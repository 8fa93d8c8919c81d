"""llama.cpp's files of every architecture: what was written is what is loaded; the rest is refused in one line."""

from dataclasses import replace
from pathlib import Path
import struct
import subprocess
import sys
from typing import Any

import chex
import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import models
from interp_jax.models.config import Config
from interp_jax.models.gguf_configs import llama3_scaling
from interp_jax.models.params import paths
from tests.models import llama_cpp
from tests.models.conftest import CONFIGS, GPT2, LLAMA, random_model

QWEN = replace(LLAMA, family="qwen2", attn_bias=True, out_bias=False, d_head=4)
CAPPED = replace(CONFIGS["gemma2"], attn_scale=6**-0.5)
FILES: dict[str, Config] = {
    "llama": replace(LLAMA, rope_theta=500.0),
    "llama, biases, tied": replace(LLAMA, attn_bias=True, mlp_bias=True, tie_embeddings=True, norm_eps=1e-6),
    "llama, linear": replace(LLAMA, rope_scaling="linear", rope_factor=4.0),
    "qwen2": QWEN,
    "qwen3": replace(LLAMA, family="qwen3", qk_norm="head"),
    "gemma": replace(LLAMA, family="gemma", norm_offset=1.0, embed_scale=True, act="gelu_new", tie_embeddings=True),
    "gemma2": replace(CAPPED, local_layers=(0, 2)),
    "gemma3": replace(CONFIGS["gemma"], n_layers=6, local_layers=(0, 1, 2, 3, 4), attn_scale=6**-0.5),
    "phi3": CONFIGS["phi"],
    "gpt2": replace(GPT2, act="gelu_new", tie_embeddings=False),
    "olmo2": CONFIGS["olmo"],
}


def written(file: Path, config: Config, **options: Any) -> tuple[Any, Path]:
    model = random_model(config)
    return model, llama_cpp.write(file, *llama_cpp.tensors_of(model), **options)


def same(got: Any, want: Any, atol: float = 0.0) -> None:
    assert got.config == want.config
    chex.assert_trees_all_close(got, want, rtol=0, atol=atol)


@pytest.fixture
def llama(tmp_path: Path) -> tuple[Any, Path]:
    return written(tmp_path / "a.gguf", FILES["llama"])


@pytest.mark.parametrize("kind", FILES)
def test_every_architecture(kind: str, tmp_path: Path) -> None:
    model, file = written(tmp_path / "a.gguf", FILES[kind])
    again, tokenizer = models.load(file)
    atol = 2e-7 if kind.startswith("gemma") else 0.0  # w + 1 was rounded
    same(again, model, atol)
    assert tokenizer is None and again.dtype == jnp.float32
    scan, _ = models.load(tmp_path, scan_layers=True, dtype="bfloat16")  # a folder with one file
    same(models.unstack_layers(scan), jax.tree.map(lambda x: x.astype(jnp.bfloat16), again))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_types(kind: str, tmp_path: Path) -> None:
    """What `gguf.dequantize` makes of them, in float32."""
    config = replace(LLAMA, d_model=32, d_head=8, d_mlp=64)
    model, file = written(tmp_path / "a.gguf", config, kind=kind)
    again, _ = models.load(file)
    assert again.dtype == jnp.float32
    number = gguf.GGMLQuantizationType[kind]
    for name, part in (("w_out", lambda model: model.blocks[1].mlp.w_out), ("w_e", lambda model: model.w_e)):
        stored = np.asarray(part(model)).T if name == "w_out" else np.asarray(part(model))
        want = gguf.dequantize(gguf.quantize(np.ascontiguousarray(stored), number), number)
        np.testing.assert_array_equal(part(again), want.T if name == "w_out" else want)
    np.testing.assert_array_equal(again.ln_final.w, model.ln_final.w)
    np.testing.assert_allclose(again.blocks[0].attn.w_q, model.blocks[0].attn.w_q, atol=0.2)  # rows where they were


@pytest.mark.parametrize("kind", ["llama", "gpt2", "phi3"])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_on_a_mesh(kind: str, scan_layers: bool, tmp_path: Path) -> None:
    model, file = written(tmp_path / "a.gguf", FILES[kind])
    mesh = jax.make_mesh((2,), ("model",))
    again, _ = models.load(file, mesh=mesh, scan_layers=scan_layers)
    assert any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(again.blocks))
    same(models.unstack_layers(again), model)


SCALINGS = [
    dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192),
    dict(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192),
    dict(factor=4.0, low_freq_factor=1.5, high_freq_factor=9.0, original_max_position_embeddings=512),
    dict(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
]


@pytest.mark.parametrize("rope", SCALINGS)
@pytest.mark.parametrize(("theta", "d_head"), [(500000.0, 128), (10000.0, 64), (500.0, 8)])
def test_the_scaling_of_llama_3_is_recovered(rope: dict[str, Any], theta: float, d_head: int) -> None:
    factors = llama_cpp.llama3_factors({"head_dim": d_head, "rope_theta": theta}, rope)
    found = llama3_scaling("here", factors, theta, d_head)
    if found is None or found["rope_type"] == "linear":
        assert len(set(factors)) == 1
        return
    again = llama_cpp.llama3_factors({"head_dim": d_head, "rope_theta": theta}, found)
    np.testing.assert_allclose(again, factors, rtol=2e-5)
    if rope["original_max_position_embeddings"] == 8192:
        assert {key: found[key] for key in rope} == rope


def test_the_scaling_of_llama_3_in_a_file(tmp_path: Path) -> None:
    model, file = written(tmp_path / "a.gguf", replace(CONFIGS["llama3"], attn_bias=False))
    again, _ = models.load(file)
    assert again.config.rope_scaling == "llama3"
    tokens = np.arange(30)
    np.testing.assert_allclose(again(tokens), model(tokens), atol=1e-4)
    with pytest.raises(ValueError, match=r"^here: rope_freqs.weight is not the scaling of Llama 3, and no other is su"):
        llama3_scaling("here", np.array([1, 3, 2, 8], np.float32), 500.0, 8)
    with pytest.raises(ValueError, match=r"must hold 4 numbers above 0, not \(3,\)"):
        llama3_scaling("here", np.ones(3, np.float32), 500.0, 8)


@pytest.mark.long
def test_scales_of_gemmas_scores(tmp_path: Path) -> None:
    """As llama.cpp computes them: by the width of a head, but of a head's share of the stream in the 27B models."""
    for family, depth in (("gemma2", 46), ("gemma3_text", 62)):
        sizes = replace(CONFIGS["gemma" if family == "gemma3_text" else "gemma2"], attn_softcap=0.0, d_model=8, d_mlp=8)
        config = replace(sizes, n_layers=depth, window=0, local_layers=(), rope_local_theta=1e4)
        _, file = written(
            tmp_path / f"{family}.gguf", config, attention__sliding_window=None if family == "gemma3_text" else 4096
        )
        found = models.load(file)[0].config
        assert (found.attn_scale, found.d_head) == (2**-0.5, 6)


def test_windows(tmp_path: Path) -> None:
    config = replace(FILES["gemma3"], local_layers=(0, 2))
    pattern = [True, False, True, False, False, False]
    _, file = written(tmp_path / "a.gguf", config, attention__sliding_window_pattern=pattern)
    assert models.load(file)[0].config.local_layers == (0, 2)
    _, file = written(tmp_path / "a.gguf", config, attention__sliding_window_pattern=2)
    assert models.load(file)[0].config.local_layers == (0, 2, 4)
    _, file = written(tmp_path / "a.gguf", config, attention__sliding_window=None)
    assert models.load(file)[0].config.local_layers == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"block_count": 10_000_000}, "'block_count' is 10000000, the weights are of 3 layers"),
        ({"block_count": "3"}, "'block_count' must be a whole number, not '3'"),
        ({"attention__head_count": [4, 2, 4]}, "'attention.head_count' must be a whole number, not [4, 2, 4]"),
        ({"attention__head_count": None}, "'attention.head_count' is missing"),
        ({"embedding_length": 0}, "'embedding_length' must be at least 1, not 0"),
        ({"rope__freq_base": "x"}, "'rope.freq_base' must be a number, not 'x'"),
        ({"rope__scaling__type": "yarn"}, "rope.scaling.type='yarn' is not supported"),
        ({"rope__dimension_count": 4}, "rope.dimension_count=4 is not supported, only 6"),
        ({"attention__value_length": 4}, "attention.value_length=4 is not supported, only 6"),
        ({"expert_count": 8}, "expert_count=8 is not supported, only 0"),
        ({"feed_forward_length": 25}, "does not fit the config: (25, 16)"),
    ],
)
def test_metadata_is_checked(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    _, file = written(tmp_path / "a.gguf", FILES["llama"], **change)
    with pytest.raises(ValueError) as caught:
        models.load(file)
    assert says in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_keys_that_nobody_knows_are_named(tmp_path: Path) -> None:
    model, file = written(tmp_path / "a.gguf", FILES["llama"], new_idea=3)
    with pytest.warns(UserWarning, match=r"a.gguf, metadata llama: nothing here reads new_idea=3; ignored"):
        same(models.load(file)[0], model)


def test_one_number_for_each_layer(tmp_path: Path) -> None:
    model, file = written(tmp_path / "a.gguf", FILES["llama"], attention__head_count_kv=[2, 2, 2])
    same(models.load(file)[0], model)


def test_what_is_no_model_of_ours(llama: tuple[Any, Path], tmp_path: Path) -> None:
    _, file = llama
    writer = gguf.GGUFWriter(str(tmp_path / "mamba"), "mamba")
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    (tmp_path / "text").write_text("GGUX")
    (tmp_path / "torn").write_bytes(file.read_bytes()[:-100])
    (tmp_path / "two").mkdir()
    for name in "ab":
        (tmp_path / "two" / f"{name}.gguf").write_bytes(file.read_bytes())
    for name, says in (
        ("mamba", "unsupported architecture 'mamba'; supported: llama, qwen2, "),
        ("text", "torn, damaged or not a zip file of torch.save"),
        ("torn", "torn or damaged GGUF file"),
        ("two", "holds 2 GGUF files, such as a.gguf; give the path of one"),
    ):
        with pytest.raises(ValueError) as caught:
            models.load(tmp_path / name)
        assert says in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="'nothing.gguf': there is no such model folder or file"):
        models.load("nothing.gguf")
    with pytest.raises(ValueError, match="load: revision='v1' is of a model of the hub; .*a.gguf' is on this machine"):
        models.load(file, revision="v1")


@pytest.mark.parametrize("value", [0, 5, 2**31 - 1, 2**32 - 1])
def test_sizes_that_are_damaged(llama: tuple[Any, Path], tmp_path: Path, value: int) -> None:
    """One line, and no memory for what the file has not."""
    whole, said = llama[1].read_bytes(), 0
    for key in ("block_count", "embedding_length", "head_count", "attention.key_length", "feed_forward_length"):
        at = whole.find(key.encode()) + len(key) + 4  # after the key stands the type, then the number
        if at < len(key) + 4:
            continue
        file = tmp_path / f"{key}.gguf"
        file.write_bytes(whole[:at] + struct.pack("<I", value) + whole[at + 4 :])
        with pytest.raises(ValueError) as caught:
            models.load(file)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
        said += 1
    assert said >= 4


def test_weights_that_are_missing_or_left_over(tmp_path: Path) -> None:
    hf, tensors = llama_cpp.tensors_of(random_model(FILES["llama"]))
    less = {name: tensor for name, tensor in tensors.items() if not name.endswith("1.mlp.up_proj.weight")}
    with pytest.raises(ValueError, match=r"a.gguf: 1 weights are missing, such as layers.1.mlp.up_proj.weight"):
        models.load(llama_cpp.write(tmp_path / "a.gguf", hf, less))
    more = tensors | {"model.layers.1.self_attn.q_proj.bias": np.zeros(24, np.float32)}
    with pytest.raises(ValueError, match=r"b.gguf: 1 weights have no place in llama, such as blk.1.attn_q.bias"):
        models.load(llama_cpp.write(tmp_path / "b.gguf", hf, more))


PEAK = """
import jax, resource, sys
from interp_jax import models
jax.device_put(jax.numpy.zeros(3)).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model, _ = models.load(sys.argv[1], dtype=sys.argv[2], scan_layers=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, sum(x.nbytes for x in jax.tree.leaves(model)))
"""


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_loading_takes_the_memory_of_the_result(dtype: str, tmp_path: Path) -> None:
    config = replace(LLAMA, n_layers=4, d_model=512, d_head=128, d_mlp=2048, d_vocab=32768)
    shapes = paths(models.Decoder.abstract(config))
    rng = np.random.default_rng(0)
    rows = jax.tree.map(lambda leaf: rng.random(leaf.shape[-1], np.float32), shapes)
    full = jax.tree.map(lambda leaf, row: np.broadcast_to(row, leaf.shape), shapes, rows)
    model = jax.tree.unflatten(jax.tree.structure(models.Decoder.abstract(config)), list(full.values()))
    llama_cpp.write(tmp_path / "a.gguf", *llama_cpp.tensors_of(model), kind="Q8_0")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "a.gguf"), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, size = map(int, done.stdout.split())
    assert 1024 * peak < 1.2 * size + 30e6, (peak * 1024, size)
