"""The training script at tiny size, and the model that it shipped."""

from dataclasses import replace
import importlib.util
import json
from pathlib import Path
import sys

import jax
import pytest

from interp_jax import config, data, models

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "interp_jax" / "models" / "shipped" / "microworld"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_microworld", ROOT / "experiments" / "train_microworld.py")
    module = sys.modules["train_microworld"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(script, folder: Path):
    cfg = config.load(script.Train, "configs/train_microworld.toml", ())
    shape = {"n_layers": 1, "n_heads": 2, "d_model": 16, "d_head": 8, "n_kv_heads": 2, "d_mlp": 16}
    steps = {"n_steps": 6, "warmup_steps": 2, "steps_per_call": 2, "checkpoint_every": 2, "batch_size": 4, "n_eval": 8}
    return replace(cfg, run=folder / "run", out=folder / "model", model=replace(cfg.model, **shape), **steps)


@pytest.fixture
def promotion():
    with jax.numpy_dtype_promotion("standard"):  # optax's Muon raises a Python float to an int32 power
        yield


def test_a_killed_run_ends_with_the_same_weights(script, promotion, tmp_path: Path, monkeypatch) -> None:
    script.main(tiny(script, tmp_path / "whole"))

    cfg, batch, calls = tiny(script, tmp_path / "killed"), data.microworld.batch, []

    def killing_batch(*args):
        calls.append(args)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return batch(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(data.microworld, "batch", killing_batch)
        script.main(cfg)
    assert not cfg.out.exists()
    script.main(cfg)
    whole, killed = (tmp_path / name / "model" for name in ("whole", "killed"))
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    assert set(json.loads((killed / "card.json").read_text())["heldout"]) == set(data.tasks.TASKS)
    assert list((tmp_path / "killed" / "run" / "tensorboard").iterdir())


def test_the_shipped_model_is_small_and_in_bfloat16() -> None:
    assert (SHIPPED / "model.safetensors").stat().st_size <= 8_000_000
    model, tokenizer = models.load("microworld")
    assert model.dtype == "bfloat16" and tokenizer is not None
    assert tokenizer.backend.get_vocab() == data.microworld.tokenizer().get_vocab()


def test_the_shipped_model_reaches_its_card() -> None:
    card = json.loads((SHIPPED / "card.json").read_text())
    model, tokenizer = models.load("microworld")
    fresh = data.card.accuracies(models.forward, model, tokenizer, n=400, seed=12345)
    for name, promised in card["heldout"].items():
        assert fresh[name] >= promised - 0.03, f"{name}: {fresh[name]:.3f}, the card says {promised:.3f}"
