"""BERT's encoder and its head in transformers: logits, padding, token types, folders both ways."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import interp_jax as ij  # noqa: E402
from interp_jax import models  # noqa: E402

pytestmark = pytest.mark.parity

SIZES = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 61,
    "max_position_embeddings": 40,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    torch.manual_seed(0)
    peer = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, attn_implementation="eager"))
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    path = tmp_path_factory.mktemp("bert")
    peer.eval().save_pretrained(path)
    return peer, path


@pytest.fixture(scope="module", params=["loop", "scan"])
def pair(request: pytest.FixtureRequest, folder: tuple[Any, Path]) -> tuple[Any, models.Encoder]:
    peer, path = folder
    return peer, models.load(path, scan_layers=request.param == "scan")[0]


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    mask = np.ones((4, 12), np.int64)
    mask[0, 7:] = mask[1, 10:] = 0
    types = np.cumsum(rng.random((4, 12)) < 0.1, axis=1) > 0
    return {"input_ids": rng.integers(0, 61, (4, 12)), "attention_mask": mask, "token_type_ids": types.astype(np.int64)}


def theirs(peer: Any, inputs: dict[str, np.ndarray], **options: Any) -> Any:
    with torch.no_grad():
        return peer(**{name: torch.tensor(value) for name, value in inputs.items()}, **options)


def ours(model: models.Encoder, inputs: dict[str, np.ndarray]) -> np.ndarray:
    mask, types = inputs["attention_mask"], inputs["token_type_ids"]
    return np.asarray(models.forward(model, inputs["input_ids"], attention_mask=mask, token_types=types))


def test_logits(pair: tuple[Any, models.Encoder], inputs: dict[str, np.ndarray]) -> None:
    peer, model = pair
    real = inputs["attention_mask"] > 0
    np.testing.assert_allclose(ours(model, inputs)[real], theirs(peer, inputs).logits.numpy()[real], atol=1e-4)
    left = {name: value[:, ::-1].copy() for name, value in inputs.items()}
    positions = np.maximum(np.cumsum(left["attention_mask"], axis=1) - 1, 0)
    want = theirs(peer, left | {"position_ids": positions}).logits.numpy()
    np.testing.assert_allclose(ours(model, left)[real[:, ::-1]], want[real[:, ::-1]], atol=1e-4)


def test_layers(pair: tuple[Any, models.Encoder], inputs: dict[str, np.ndarray]) -> None:
    peer, model = pair
    out = theirs(peer, inputs, output_hidden_states=True, output_attentions=True)

    def f(model: models.Encoder, tokens: np.ndarray) -> jax.Array:
        mask, types = inputs["attention_mask"], inputs["token_type_ids"]
        return models.forward(model, tokens, attention_mask=mask, token_types=types)

    names = ["blocks.normalized_resid_post", "blocks.attn.pattern", "blocks.0.resid_pre"]
    acts = ij.capture(f, names, output=False)(model, inputs["input_ids"])
    real = inputs["attention_mask"] > 0
    np.testing.assert_allclose(acts["blocks.0.resid_pre"][real], out.hidden_states[0].numpy()[real], atol=1e-4)
    for layer in range(3):
        got, want = acts["blocks.normalized_resid_post"][layer], out.hidden_states[layer + 1].numpy()
        np.testing.assert_allclose(got[real], want[real], atol=1e-4)
        got, want = acts["blocks.attn.pattern"][layer], out.attentions[layer].numpy()
        np.testing.assert_allclose(np.asarray(got)[2:], want[2:], atol=1e-5)


def test_folders_both_ways(folder: tuple[Any, Path], inputs: dict[str, np.ndarray], tmp_path: Path) -> None:
    peer, path = folder
    model, _ = models.load(path)
    models.save(tmp_path / "ours", model)
    back = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours")
    assert type(back) is type(peer)
    np.testing.assert_allclose(theirs(back, inputs).logits, theirs(peer, inputs).logits, atol=1e-5)


def test_names_of_old_checkpoints(folder: tuple[Any, Path], inputs: dict[str, np.ndarray], tmp_path: Path) -> None:
    import safetensors.numpy

    peer, path = folder
    tensors = safetensors.numpy.load_file(path / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    old |= {"bert.pooler.dense.weight": np.zeros((32, 32), np.float32), "cls.seq_relationship.bias": np.zeros(2)}
    (tmp_path / "config.json").write_text((path / "config.json").read_text())
    safetensors.numpy.save_file(old, tmp_path / "model.safetensors")
    model, _ = models.load(tmp_path)
    real = inputs["attention_mask"] > 0
    np.testing.assert_allclose(ours(model, inputs)[real], theirs(peer, inputs).logits.numpy()[real], atol=1e-4)
