"""The training script at tiny size, and the models that it shipped."""

from dataclasses import replace
import json
from pathlib import Path

import jax
import pytest

from interp_jax import config, data, models
from interp_jax.data.world import World

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "interp_jax" / "models" / "shipped"
CONFIGS = sorted(file.stem.removeprefix("train_") for file in (ROOT / "configs").glob("train_microworld*.toml"))


@pytest.fixture(scope="module")
def script(experiment):
    return experiment("train_microworld")


def tiny(script, folder: Path):
    cfg = config.load(script.Train, "configs/train_microworld_sums.toml", ())
    shape = {"n_layers": 1, "n_heads": 2, "d_model": 16, "d_head": 8, "n_kv_heads": 2, "d_mlp": 16}
    steps = {"n_steps": 6, "warmup_steps": 2, "steps_per_call": 2, "checkpoint_every": 2, "batch_size": 4, "n_eval": 8}
    return replace(cfg, run=folder / "run", out=folder / "model", model=replace(cfg.model, **shape), **steps)


@pytest.fixture
def promotion():
    with jax.numpy_dtype_promotion("standard"):  # optax's Muon raises a Python float to an int32 power
        yield


@pytest.mark.long
def test_a_killed_run_ends_with_the_same_weights(script, promotion, tmp_path: Path, monkeypatch) -> None:
    script.main(tiny(script, tmp_path / "whole"))

    cfg, batch, calls = tiny(script, tmp_path / "killed"), World.batch, []

    def killing_batch(*args):
        calls.append(args)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return batch(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(World, "batch", killing_batch)
        script.main(cfg)
    assert not cfg.out.exists()
    script.main(cfg)
    whole, killed = (tmp_path / name / "model" for name in ("whole", "killed"))
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()
    assert set(json.loads((killed / "card.json").read_text())["heldout"]) == {"sums", "digits", "stories"}
    assert list((tmp_path / "killed" / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_model_has_its_settings(name: str, script) -> None:
    cfg = config.load(script.Train, f"configs/train_{name}.toml", ())
    assert cfg.name.replace("-", "_") == name and cfg.world in data.WORLDS
    card = json.loads((SHIPPED / cfg.name / "card.json").read_text())
    assert card["config"]["seed"] == cfg.seed
    model, tokenizer = models.load(cfg.name)
    assert model.config == cfg.model
    assert tokenizer.backend.get_vocab() == data.WORLDS[cfg.world].tokenizer().get_vocab()


@pytest.mark.parametrize(
    "name", [name if name == "microworld" else pytest.param(name, marks=pytest.mark.long) for name in CONFIGS]
)
def test_a_shipped_model_reaches_its_card(name: str, script) -> None:
    cfg = config.load(script.Train, f"configs/train_{name}.toml", ())
    card = json.loads((SHIPPED / cfg.name / "card.json").read_text())
    model, tokenizer = models.load(cfg.name)
    fresh = data.card.accuracies(models.forward, model, tokenizer, n=400, seed=12345, world=cfg.world)
    for phenomenon, promised in card["heldout"].items():
        assert fresh[phenomenon] >= promised - 0.03, f"{phenomenon}: {fresh[phenomenon]:.3f}, the card: {promised:.3f}"
