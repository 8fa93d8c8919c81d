"""Vectors saved and loaded: ours, and files as repeng, llama.cpp and vllm-lens write and read them."""

import base64
import json
from pathlib import Path

import gguf
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pyarrow
import pytest
from safetensors.numpy import load_file

from interp_jax import io, steering
from interp_jax.steering import SteeringVector
from tests.steering.conftest import SITE


def same(a: SteeringVector, b: SteeringVector) -> None:
    np.testing.assert_array_equal(a.vectors, b.vectors)
    assert (a.site, a.layers) == (b.site, b.layers)


NAMES = {"safetensors": "folder", "gguf": "a.gguf", "vllm_lens": "a.json"}


@pytest.mark.parametrize("format", NAMES)
def test_round_trip(vector, tmp_path, format) -> None:
    path, vector = tmp_path / "new" / NAMES[format], vector.at_layers(1, 2)
    steering.save(path, vector, format)
    steering.save(path, vector, format)  # what is there is replaced
    assert [p.name for p in path.parent.iterdir()] == [NAMES[format]]
    again = steering.load(path, model="tiny")
    same(again, vector)
    assert again.model == "tiny"


def test_ours_in_full(tmp_path) -> None:
    """The card says everything; the arrays are plain safetensors; one vector without layers is saved too."""
    vector = SteeringVector.create(jnp.arange(3.0), "embed", how="by hand", model="m")
    steering.save(tmp_path / "a", vector)
    again = steering.load(tmp_path / "a", model="m")
    same(again, vector)
    assert (again.how, again.model, again.layers) == ("by hand", "m", None)
    assert json.loads((tmp_path / "a" / "card.json").read_text()) == {
        "format": "interp_jax steering vector 1",
        "model": "m",
        "site": "embed",
        "layers": None,
        "how": "by hand",
        "d_model": 3,
    }
    np.testing.assert_array_equal(load_file(tmp_path / "a" / "vectors.safetensors")["vectors"], [0, 1, 2])


@pytest.mark.parametrize("format", ["safetensors", "gguf"])
def test_a_vector_of_another_model_is_refused_unless_told(vector, tmp_path, format) -> None:
    path = tmp_path / NAMES[format]
    steering.save(path, vector, format)
    with pytest.raises(ValueError, match="was made of 'tiny', not of 'gpt2'; .* say anyway=True") as error:
        steering.load(path, model="gpt2")
    assert "\n" not in str(error.value)
    assert steering.load(path, model="gpt2", anyway=True).model == "tiny"


def as_repeng(path: Path, directions: dict[int, np.ndarray]) -> None:
    """As `ControlVector.export_gguf` of repeng 0.4 writes a file, call by call: layers from the last to the first."""
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(directions))
    for layer in sorted(directions, reverse=True):
        writer.add_tensor(f"direction.{layer}", directions[layer])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_file_of_repeng(tmp_path) -> None:
    directions = {k: np.random.default_rng(k).normal(size=5).astype(np.float32) for k in (1, 2, 11)}
    as_repeng(tmp_path / "a.gguf", directions)
    vector = steering.load(tmp_path / "a.gguf", model="llama")
    assert (vector.layers, vector.site, vector.model) == ((1, 2, 11), SITE, "llama")
    np.testing.assert_array_equal(vector.vectors, np.stack(list(directions.values())))


def test_the_gguf_package_reads_ours(vector, tmp_path) -> None:
    """What llama.cpp asks for: one-dimensional float32 tensors of these names, in a file of this architecture."""
    steering.save(tmp_path / "a.gguf", vector.at_layers(1, 2), "gguf")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    tensors = {t.name: t for t in reader.tensors}
    assert list(tensors) == ["direction.1", "direction.2"]
    for layer in (1, 2):
        tensor = tensors[f"direction.{layer}"]
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32 and tensor.shape.tolist() == [16]
        np.testing.assert_array_equal(tensor.data, vector.vectors[layer])
    fields = {name: reader.get_field(name).contents() for name in ("general.architecture", "controlvector.model_hint")}
    assert list(fields.values()) == ["controlvector", "tiny"]
    assert reader.get_field("controlvector.layer_count").contents() == 2


def as_vllm_lens(x: np.ndarray, **options) -> str:
    """As `SteeringVector.model_dump_json` of vllm-lens 1.2 writes it: zstd, bfloat16 as int16."""
    half = x.dtype == ml_dtypes.bfloat16
    raw = x.view(np.int16) if half else x
    tensor = {
        "data": base64.b64encode(pyarrow.compress(raw.tobytes(), codec="zstd", asbytes=True)).decode(),
        "dtype": str(raw.dtype),
        "original_dtype": f"torch.{x.dtype}",
        "shape": list(x.shape),
        "compression": "zstd",
    }
    held = {"activations": tensor, "layer_indices": [3, 5], "scale": 2.0, "norm_match": False, "position_indices": None}
    return json.dumps({**held, **options})


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_a_file_of_vllm_lens(tmp_path, dtype) -> None:
    x = np.random.default_rng(0).normal(size=(2, 7)).astype(dtype)
    (tmp_path / "a.json").write_text(as_vllm_lens(x))
    vector = steering.load(tmp_path / "a.json", model="mine")
    assert (vector.layers, vector.site, vector.model) == ((3, 5), SITE, "mine")
    np.testing.assert_array_equal(vector.vectors, 2 * x.astype(np.float32))


def test_vllm_lens_can_read_ours(vector, tmp_path) -> None:
    """As its `tensor_from_bytes` reads what is not compressed."""
    steering.save(tmp_path / "a.json", vector, "vllm_lens")
    held = json.loads((tmp_path / "a.json").read_text())
    tensor = held.pop("activations")
    x = np.frombuffer(base64.b64decode(tensor["data"]), np.dtype(tensor["dtype"])).reshape(tensor["shape"])
    np.testing.assert_array_equal(x, vector.vectors)
    assert tensor.get("compression") is None and tensor["original_dtype"] == "torch.float32"
    assert held == {"layer_indices": [0, 1, 2], "scale": 1.0, "norm_match": False, "position_indices": None}


@pytest.mark.parametrize("options", [{"norm_match": True}, {"position_indices": [4]}])
def test_what_is_of_an_edit_is_refused(tmp_path, options) -> None:
    (tmp_path / "a.json").write_text(as_vllm_lens(np.ones((2, 7), np.float32), **options))
    with pytest.raises(ValueError, match="io.vllm_lens.read, then vector.edit"):
        steering.load(tmp_path / "a.json", model="m")
    assert (
        io.vllm_lens.read(tmp_path / "a.json")[2]
        == {"scale": 2.0, "norm_match": False, "position_indices": None} | options
    )


def damaged(folder: Path, name: str, vector: SteeringVector) -> Path:
    """A path at which something is not as it should be."""
    path = folder / "a"
    if name == "nothing":
        return path
    if name == "text":
        path.write_text("hello")
    elif name == "a folder":
        path.mkdir()
    elif name == "another gguf":
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tensor("w", np.ones(4, np.float32))
        writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    elif name == "two widths":
        as_repeng(path, {1: np.ones(3, np.float32), 2: np.ones(4, np.float32)})
    elif name == "torn json":
        path.write_text(as_vllm_lens(np.ones((2, 7), np.float32)).replace('"shape": [2, 7]', '"shape": [2, 9]'))
    elif name == "one layer too few":
        path.write_text(as_vllm_lens(np.ones((2, 7), np.float32), layer_indices=[3]))
    else:
        steering.save(path, vector)
        if name == "torn arrays":
            (path / "vectors.safetensors").write_bytes((path / "vectors.safetensors").read_bytes()[:-9])
        else:
            card = json.loads((path / "card.json").read_text())
            (path / "card.json").write_text(json.dumps({**card, "d_model": 9}))
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "no such steering vector"),
        ("text", "no steering vector of vllm-lens: no JSON"),
        ("a folder", "no steering vector: it has no card.json"),
        ("another gguf", "no control vector: it is a 'llama' with 0 tensors"),
        ("two widths", r"directions of widths \[3, 4\]"),
        ("torn json", "damaged activations"),
        ("one layer too few", r"activations \[2, 7\] for 1 layers"),
        ("torn arrays", "damaged steering vector"),
        ("another width", "the card says d_model 9"),
    ],
)
def test_damage_is_one_line(vector, tmp_path, name, message) -> None:
    path = damaged(tmp_path, name, vector)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        steering.load(path, model="tiny")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("format", NAMES)
def test_what_is_something_else_stays(vector, tmp_path, format) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError, match="is there and is no"):
        steering.save(tmp_path / "a", vector, format)
    assert (tmp_path / "a").read_text() == "mine"


@pytest.mark.parametrize("format", ["gguf", "vllm_lens"])
def test_what_a_format_cannot_hold_is_refused(tmp_path, format) -> None:
    for vector in (SteeringVector.create(jnp.ones(4), SITE), SteeringVector.create(jnp.ones((1, 4)), "blocks.mlp_out")):
        with pytest.raises(ValueError, match="save it as safetensors"):
            steering.save(tmp_path / "a", vector, format)
    with pytest.raises(ValueError, match="format='pickle' is none of"):
        steering.save(tmp_path / "a", vector, "pickle")


def test_a_file_that_cannot_be_written_leaves_the_old_one(vector, tmp_path, monkeypatch) -> None:
    for format in ("gguf", "vllm_lens"):
        path = tmp_path / NAMES[format]
        steering.save(path, vector, format)
        before = path.read_bytes()
        with monkeypatch.context() as patch:

            def refused(self: Path, target: Path) -> Path:
                raise OSError("no")

            patch.setattr(Path, "replace", refused)
            with pytest.raises(OSError, match="no"):
                steering.save(path, vector.at_layers(1), format)
        assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "a.json"]
