"""Agreement at tiny size: on the microworld's sentences, and on published pairs with a tokenizer that fits them."""

from dataclasses import replace
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from interp_jax import config, models


@pytest.fixture
def script(experiment):
    return experiment("agreement")


@pytest.fixture
def cfg(script, tmp_path: Path):
    cfg = config.load(script.Agreement, "configs/agreement.toml", ())
    return replace(cfg, n_sentences=40, n=6, seeds=(0, 1), out=tmp_path / "out")


@pytest.mark.long
def test_the_sentences_of_the_microworld(script, cfg, capsys) -> None:
    numbers = script.main(cfg)["microworld"]
    assert (numbers["pairs"], numbers["left_out"], numbers["accuracy"]) == (40, {}, 1.0)
    assert set(numbers["by_case"]) <= {f"{a}_{b}" for a in ("singular", "plural") for b in ("singular", "plural")}
    residual, heads = np.array(numbers["residual"]), np.array(numbers["heads"])  # [seed place layer], [seed layer head]
    assert residual.shape == (2, 2, 4) and heads.shape == np.shape(numbers["estimated"]) == (2, 4, 4)
    assert residual[:, 0, 0] == pytest.approx(1, abs=1e-3) and residual[:, 1, 0] == pytest.approx(0, abs=1e-3)
    assert heads.max() > 0.5
    saved = json.loads((cfg.out / "agreement.json").read_text())
    assert saved["sets"]["microworld"] == numbers and saved["config"]["seeds"] == [0, 1]
    assert (cfg.out / "agreement.html").stat().st_size > 1000
    assert "The subject's state before layer 0 brings back 1.00" in capsys.readouterr().out


@pytest.fixture
def folder(real_data: Path, tmp_path: Path) -> Path:
    """A random GPT-2 of two layers that reads text as GPT-2 does."""
    tokenizer = models.Tokenizer.from_folder(real_data / "gpt2-tokenizer")
    sizes = dict(n_layers=2, n_heads=2, d_model=16, d_mlp=16, n_ctx=16)
    model = models.Decoder.create(jax.random.key(0), models.Config(**sizes, d_vocab=tokenizer.d_vocab))
    models.save(tmp_path / "gpt2", model, tokenizer)
    return tmp_path / "gpt2"


@pytest.mark.long
def test_published_pairs_with_a_model_of_ones_own(script, cfg, folder: Path, real_data: Path, capsys) -> None:
    pairs = cfg.out.with_name("pairs")
    pairs.mkdir()
    for name in ("simple_test", "nounpp_test"):
        lines = (real_data / "subject-verb" / f"{name}.json").read_text().splitlines()[:60]
        (pairs / f"{name}.json").write_text("\n".join(lines))
    found = script.main(replace(cfg, model=str(folder), data=(pairs,)))
    assert list(found) == ["nounpp_test", "simple_test"]
    for numbers in found.values():
        assert numbers["pairs"] + numbers["left_out"]["the prompts differ in length"] == 60
        assert np.array(numbers["residual"])[:, 0, 0] == pytest.approx(1, abs=1e-3)  # the subject is all that differs
    assert set(found["simple_test"]["by_case"]) == {"singular", "plural"}
    assert np.array(found["nounpp_test"]["residual"])[:, 1, 0] == pytest.approx(0, abs=1e-3)
    assert "it is the last word" in capsys.readouterr().out


def test_what_does_not_fit_is_told(script, cfg, real_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"simple_test.json: none of 120 pairs fits this tokenizer"):
        script.main(replace(cfg, data=(real_data / "subject-verb" / "simple_test.json",)))
    with pytest.raises(ValueError, match=r"^--data .*: no \*_test.json there; name the files$"):
        script.main(replace(cfg, data=(tmp_path,)))
