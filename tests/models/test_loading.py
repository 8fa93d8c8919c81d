"""Model folders: written, read, and refused in one line."""

from collections.abc import Callable, Iterator
import http.server
import json
from pathlib import Path
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from interp_jax import data, models
from interp_jax.models import Decoder, Tokenizer


def same(a: Decoder, b: Decoder) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.fixture
def folder(model: Decoder, tmp_path: Path) -> Path:
    models.save(tmp_path / "model", model)
    return tmp_path / "model"


def edit_config(folder: Path, **change: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def refused(folder: Path, kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as caught:
        models.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip_is_exact(model: Decoder, folder: Path) -> None:
    again, tokenizer = models.load(folder)
    assert same(again, model)
    assert again.config == model.config
    assert tokenizer is None
    for needs_one in (
        lambda: models.tokenize(tokenizer, ["a"]),
        lambda: models.locate(tokenizer, ["a"], "a"),
        lambda: data.tasks.ioi(jax.random.key(0), tokenizer, n=1),
        lambda: data.pairs.task([], tokenizer),
        lambda: data.spans.labelled(jax.random.key(0), tokenizer, n=1, kind="roles"),
    ):
        with pytest.raises(ValueError, match="no tokenizer.json"):
            needs_one()


def test_bfloat16_both_ways(model: Decoder, folder: Path, tmp_path: Path) -> None:
    half, _ = models.load(folder, dtype=jnp.bfloat16)
    assert same(half, jax.tree.map(lambda x: x.astype(jnp.bfloat16), model))
    models.save(tmp_path / "half", half)
    assert same(models.load(str(tmp_path / "half"))[0], half)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def shard(folder: Path) -> None:
    """Moves the weights into two files and an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    place = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(place.values()):
        save_file({name: tensors[name] for name in names if place[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))


def test_many_files(model: Decoder, folder: Path) -> None:
    shard(folder)
    assert same(models.load(folder)[0], model)


def test_names_without_the_prefix(model: Decoder, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    prefix = {"gpt2": "transformer.", "llama": "model."}[model.config.family]
    buffers = {"h.0.attn.bias": np.ones(3), "h.0.attn.masked_bias": np.ones(())} if prefix == "transformer." else {}
    save_file({k.removeprefix(prefix): v for k, v in tensors.items()} | buffers, folder / "model.safetensors")
    assert same(models.load(folder)[0], model)


def test_saving_is_whole_or_not_at_all(
    model: Decoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileExistsError, match="there already and not empty"):
        models.save(folder, model)

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        models.save(tmp_path / "other", model)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    assert "tmp_nothing_here'" in refused(tmp_path / "tmp_nothing_here", FileNotFoundError)
    (folder / "model.safetensors").rename(tmp_path / "away")
    assert "model.safetensors: there is no such file" in refused(folder, FileNotFoundError)
    (folder / "config.json").unlink()
    assert "config.json: there is no such file; is " in refused(folder, FileNotFoundError)


def test_a_missing_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors: there is no such file" in refused(folder, FileNotFoundError)


@pytest.mark.parametrize("kept", [0, 5, 300, -10])
def test_a_truncated_file(folder: Path, kept: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert "model.safetensors: is truncated or no safetensors file" in refused(folder)
    assert refused(folder).endswith("download it again")


def test_wrong_weights(model: Decoder, folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    lost = sorted(tensors)[-2:]
    save_file({k: v for k, v in tensors.items() if k not in lost}, file)
    assert "2 weights are missing, such as " in refused(folder)
    save_file(tensors | {"model.layers.0.self_attn.q_norm.weight": np.ones(3)}, file)
    assert "q_norm.weight" in refused(folder)
    embedding = next(name for name in tensors if name.endswith(("wte.weight", "embed_tokens.weight")))
    save_file(tensors | {embedding: tensors[embedding][:-1]}, file)
    assert "has shape (36, 16), which does not fit the config: (37, 16)" in refused(folder)


def test_unsupported_architectures(folder: Path) -> None:
    edit_config(folder, architectures=["T5ForConditionalGeneration"])
    assert refused(folder).startswith(
        f"{folder}/config.json: unsupported architecture T5ForConditionalGeneration; "
        "supported: GPT2LMHeadModel (gpt2), GPTNeoXForCausalLM (gpt_neox), LlamaForCausalLM (llama), "
    )


@pytest.mark.parametrize(
    ("model", "option", "value"),
    [
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "scale_attn_weights", False),
        ("gpt2", "add_cross_attention", True),
        ("gpt2", "activation_function", "tanh"),
        ("gpt2", "quantization_config", {"bits": 4}),
        ("llama", "rope_scaling", {"rope_type": "yarn", "factor": 2.0}),
        ("llama", "rope_parameters", {"rope_type": "llama3", "rope_theta": 1e4}),
        ("llama", "pretraining_tp", 2),
        ("llama", "partial_rotary_factor", 0.5),
        ("llama", "hidden_act", "tanh"),
    ],
    indirect=["model"],
)
def test_options_that_the_decoder_lacks_are_refused_by_name(folder: Path, option: str, value: object) -> None:
    edit_config(folder, **{option: value})
    assert option.replace("rope_parameters", "rope_scaling") in refused(folder)


def test_options_that_change_nothing_are_read_over(model: Decoder, folder: Path) -> None:
    edit_config(folder, transformers_version="9", sliding_window=None, quantization_config=None, use_cache=True)
    assert same(models.load(folder)[0], model)


def test_a_config_that_is_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "config.json: is not JSON" in refused(folder)


def test_shipped_models(folder: Path, tmp_path: Path, model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp_jax.models.loading.SHIPPED", tmp_path)
    monkeypatch.chdir("/")
    assert same(models.load("model")[0], model)


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs: `/owner/name/resolve/main/file` of the folders under `root`."""

    root: Path

    def do_GET(self) -> None:
        owner, name, _, _, file = self.path.lstrip("/").split("?")[0].split("/", 4)
        repo = self.root / owner / name
        content = (repo / file).read_bytes() if (repo / file).is_file() else b""
        self.send_response(200 if content else 404)
        if not content:
            self.send_header("X-Error-Code", "EntryNotFound" if repo.is_dir() else "RepoNotFound")
        else:
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("ETag", f'"{hash((owner, name, file)) & 0xFFFFFFFF:x}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


SCRIPT = """
import sys, jax
from interp_jax import models
for name in sys.argv[1:]:
    try:
        model, tokenizer = models.load(name)
        print(float(sum(abs(x).sum() for x in jax.tree.leaves(model))), tokenizer and tokenizer.bos_id)
    except FileNotFoundError as e:
        print(repr(str(e)))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Loads models in a process that knows only a hub on the loopback, or one that does not answer."""
    Hub.root = tmp_path / "hub"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def load(*names: str, up: bool = True) -> list[str]:
        env = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port if up else 9}",
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": ":".join(sys.path),
        }
        command = [sys.executable, "-c", SCRIPT, *names]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    yield load
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("model", ["gpt2"], indirect=True)
def test_the_hub(model: Decoder, hub: Callable[..., list[str]], tmp_path: Path, word_tokenizer: Tokenizer) -> None:
    models.save(tmp_path / "hub" / "some" / "model", model, word_tokenizer)
    models.save(tmp_path / "hub" / "some" / "sharded", model)
    shard(tmp_path / "hub" / "some" / "sharded")
    (tmp_path / "hub" / "some" / "empty").mkdir()
    total = pytest.approx(float(sum(abs(x).sum() for x in jax.tree.leaves(model))), rel=1e-5)

    whole, sharded, nothing, empty = hub("some/model", "some/sharded", "some/nothing", "some/empty")
    assert float(whole.split()[0]) == float(sharded.split()[0]) == total
    assert (whole.split()[1], sharded.split()[1]) == ("0", "None")
    assert "'some/nothing': no such folder, shipped model or hub model" in nothing
    assert "'some/empty': the hub's model has no config.json" in empty

    cached, offline = hub("some/model", "some/other", up=False)
    assert cached == whole
    assert "'some/other': the hub cannot be reached" in offline
