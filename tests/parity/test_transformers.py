"""The same weights in transformers: logits, greedy text, and folders that travel both ways."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from experiments.bench.peers import KINDS, peer_of  # noqa: E402
from interp_jax import models  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of transformers, and the folder that it saved."""
    path = tmp_path_factory.mktemp("peer")
    peer = peer_of(request.param)
    peer.save_pretrained(path)
    return peer, path


@pytest.fixture(scope="module")
def pair(folder: tuple[Any, Path]) -> tuple[Any, models.Decoder]:
    peer, path = folder
    return peer, models.load(path)[0]


def logits_of(peer: Any, tokens: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    inputs = {"input_ids": torch.tensor(tokens)}
    if mask is not None:
        inputs["attention_mask"] = torch.tensor(mask).long()
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        return peer(**inputs).logits.float().numpy()


def tokens_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 61, shape)


def test_logits(pair: tuple[Any, models.Decoder]) -> None:
    peer, model = pair
    tokens = tokens_of((4, 40))
    np.testing.assert_allclose(model(tokens), logits_of(peer, tokens), atol=1e-4)


def test_logits_under_padding(pair: tuple[Any, models.Decoder], folder: tuple[Any, Path]) -> None:
    peer, model = pair
    tokens, mask = tokens_of((4, 12)), np.ones((4, 12), bool)
    mask[0, :5] = mask[1, 8:] = mask[2, :1] = mask[2, 10:] = False
    want = logits_of(peer, tokens, mask)
    scan, _ = models.load(folder[1], scan_layers=True)
    for ours in (model, scan):
        got = np.asarray(models.forward(ours, tokens, attention_mask=mask))
        np.testing.assert_allclose(got[mask], want[mask], atol=1e-4)
    alone = logits_of(peer, tokens[:1, 5:])
    np.testing.assert_allclose(got[0, 5:], alone[0], atol=1e-4)


def test_greedy_generation(pair: tuple[Any, models.Decoder]) -> None:
    peer, model = pair
    tokens, mask = tokens_of((3, 8)), np.ones((3, 8), bool)
    mask[0, :3] = False
    options = {"do_sample": False, "max_new_tokens": 20, "pad_token_id": 0, "eos_token_id": None}
    with torch.no_grad():
        want = peer.generate(torch.tensor(tokens), attention_mask=torch.tensor(mask).long(), **options)
    np.testing.assert_array_equal(models.generate(model, tokens, 20, attention_mask=mask), want.numpy())


def check_saved(peer: Any, model: models.Decoder, path: Path, dtype: str) -> None:
    """transformers reads what we save: every weight, and the logits."""
    model = jax.tree.map(lambda x: x.astype(dtype), model)
    models.save(path, model)
    back = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=getattr(torch, dtype), attn_implementation="eager"
    )
    assert type(back) is type(peer)
    want = {name: value.to(getattr(torch, dtype)) for name, value in peer.state_dict().items()}
    for name, value in back.state_dict().items():
        assert torch.equal(value, want[name]), name
    tokens = tokens_of((2, 9))
    tolerance = 1e-4 if dtype == "float32" else 0.2
    np.testing.assert_allclose(model(tokens).astype(jnp.float32), logits_of(back, tokens), atol=tolerance)


def test_transformers_loads_what_we_save(pair: tuple[Any, models.Decoder], tmp_path: Path) -> None:
    check_saved(*pair, tmp_path / "ours", "float32")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "phi3 window"])
def test_transformers_loads_what_we_save_in_bfloat16(kind: str, tmp_path: Path) -> None:
    peer = peer_of(kind)
    peer.save_pretrained(tmp_path / "theirs")
    check_saved(peer, models.load(tmp_path / "theirs")[0], tmp_path / "ours", "bfloat16")


def test_bfloat16_folders_of_transformers(pair: tuple[Any, models.Decoder], tmp_path: Path) -> None:
    peer, model = pair
    type(peer)(peer.config).to(torch.bfloat16).save_pretrained(tmp_path)
    half, _ = models.load(tmp_path)
    assert half.dtype == jnp.bfloat16
    assert jax.tree.structure(half) == jax.tree.structure(model)


def test_the_trained_model(real_data: Path) -> None:
    folder = real_data / "stories260K"
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    peer_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, tokenizer = models.load(folder)
    prompts = ["Once upon a time", "  Lily's dog, Max,\nran!", "The big red ball", "Café <s> naïve 日本"]
    for prompt in prompts:
        assert tokenizer.encode(prompt) == peer_tokenizer(prompt)["input_ids"]
    tokens, mask, _ = models.tokenize(tokenizer, prompts)
    tokens, mask = np.asarray(tokens), np.asarray(mask)
    got = np.asarray(models.forward(model, tokens, attention_mask=mask))
    np.testing.assert_allclose(got[mask], logits_of(peer, tokens, mask)[mask], atol=1e-4)
    with torch.no_grad():
        ids = torch.tensor(tokenizer.encode(prompts[0]))[None]
        want = peer.generate(ids, do_sample=False, max_new_tokens=200, eos_token_id=None, pad_token_id=0)[0]
    ours = models.generate(model, ids[0].numpy(), 200)
    assert tokenizer.decode(ours) == peer_tokenizer.decode(want)
    assert ours.tolist() == want.tolist()


@pytest.mark.parametrize("name", ["gpt2-tokenizer", "stories260K"])
def test_tokenizers(real_data: Path, name: str) -> None:
    peer = transformers.AutoTokenizer.from_pretrained(real_data / name)
    ours = models.Tokenizer.from_folder(real_data / name)
    assert (ours.bos_id, ours.eos_id, ours.d_vocab) == (peer.bos_token_id, peer.eos_token_id, len(peer))
    for text in ("Hello world", " The  quick\n\nbrown fox", "naïve 日本 🙂", "a<|endoftext|>b"):
        assert ours.encode(text) == peer(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == peer.decode(peer(text)["input_ids"])
