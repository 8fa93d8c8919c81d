"""The experiments on transcoders and sparse heads, at tiny size: what is saved, told, and goes on where it was."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import config, dictionaries, models

pytestmark = pytest.mark.long

SIZES = {"d_sae": 64, "k": 4, "n_tokens": 3000, "n_text": 6000, "batch_size": 128, "n_scored": 8}


def test_layers_are_trained_once(run, experiment, tmp_path, capsys) -> None:
    cfg, found, saved = run("train_transcoders", "Transcoders", **SIZES, seeds=(0, 1))
    assert found["fvu"].shape == (2, 4) and (found["l0"] <= 4).all() and saved["kept"] == found["kept"].tolist()
    assert "error nodes" in capsys.readouterr().out and not (cfg.out / "unfinished").exists()
    for i in range(4):
        one = dictionaries.load(cfg.out / f"layer_{i}")
        assert one.sites == (f"blocks.{i}.ln2.normalized", f"blocks.{i}.mlp_out") and one.k == 4
        assert float(jnp.abs(one.W_dec - dictionaries.load(cfg.out / f"seeds/1/layer_{i}").W_dec).max()) > 0.1
    script = experiment("train_transcoders")
    with jax.numpy_dtype_promotion("standard"):
        again = script.main(replace(cfg, n_tokens=10**9))  # all is there: nothing is trained
    assert np.allclose(again["fvu"], found["fvu"])


@pytest.mark.parametrize(
    "kind, name, read",
    [("clt", "clt", "blocks.ln2.normalized"), ("skip_transcoder", "layer_2", "blocks.2.ln2.normalized")],
)
def test_other_kinds(run, kind: str, name: str, read: str) -> None:
    cfg, found, _ = run("train_transcoders", "Transcoders", **SIZES | {"d_sae": 32}, kind=kind, seeds=(0,))
    made = dictionaries.load(cfg.out / name)
    assert made.architecture == kind and made.sites == (read, read.replace("ln2.normalized", "mlp_out"))
    assert found["fvu"].shape == (1, 4) and np.isfinite(found["ce replaced"]).all()


def test_scores_are_those_of_evaluate(experiment) -> None:
    """Layer by layer what `dictionaries.evaluate` says of it on the same rows."""
    scored = experiment("transcoder_scores")
    script = experiment("train_transcoders")
    model, tokenizer = models.load("microworld", dtype="float32")
    cfg = replace(config.load(script.Transcoders, "configs/train_transcoders.toml", ()), n_text=3000)
    text = script.rows(cfg, model, tokenizer)
    text = replace(text, tokens=text.tokens[:16], mask=text.mask[:16], real=text.real[:16])
    made = {}
    for i in range(4):
        one = dictionaries.TopKTranscoder.create(jax.random.key(i), 128, 64, 4)
        made[f"layer_{i}"] = replace(one, sites=(f"blocks.{i}.ln2.normalized", f"blocks.{i}.mlp_out"))
    told = scored.scores(cfg.read, model, made, text, text)
    for i, one in enumerate(made.values()):
        score = dictionaries.evaluate(models.forward, None, one, model, text.tokens, skip=text.special)
        assert told["l0"][i] == pytest.approx(score.l0) and told["dead"][i] == pytest.approx(score.dead)
        assert told["fvu"][i] == pytest.approx(score.fvu, rel=0.05)  # about the mean of some of these tokens
        assert told["ce clean"] == pytest.approx(score.ce_clean, abs=1e-4)
    assert told["kept"] < 0.5 and told["ce replaced"] > told["ce clean"]


def test_sparse_heads_and_a_complete_replacement(run, experiment, capsys) -> None:
    """What is saved are heads of each layer, scored as `dictionaries.evaluate` scores them."""
    sizes = {"d_sae": 64, "k": 8, "n_groups": 8, "n_tokens": 10_000, "n_text": 6000, "n_scored": 8}
    sizes |= {"n_graphs": 1, "n_shown": 6, "n_features": 50}
    cfg, found, saved = run("train_lorsa", "SparseHeads", **sizes, seeds=(0, 1))
    assert found["fvu"].shape == (2, 4) and (found["l0"] <= 8).all() and saved["kept"] == found["kept"].tolist()
    assert (found["fvu"] < 0.8).all() and (found["ce both"] > found["ce clean"]).all()
    assert found["graphs, sparse heads"].shape == (2, 1, 2) and np.isfinite(found["graphs, sparse heads"]).all()
    assert "a complete replacement model" in capsys.readouterr().out
    made = [dictionaries.load(cfg.out / f"layer_{i}") for i in range(4)]
    assert [one.sites for one in made] == [(f"blocks.{i}.ln1.normalized", f"blocks.{i}.attn_out") for i in range(4)]
    assert float(jnp.abs(made[2].W_Q - dictionaries.load(cfg.out / "seeds/1/layer_2").W_Q).max()) > 0.01
    model, tokenizer = models.load("microworld", dtype="float32")
    text = experiment("train_transcoders").rows(cfg, model, tokenizer)
    score = dictionaries.evaluate(models.forward, None, made[1], model, text.tokens[-8:], skip=text.special)
    assert found["l0"][0, 1] == pytest.approx(score.l0) and found["fvu"][0, 1] == pytest.approx(score.fvu, rel=0.05)
    with jax.numpy_dtype_promotion("standard"):
        again = experiment("train_lorsa").main(replace(cfg, n_tokens=10**9, transcoders=""))  # nothing is trained
    assert np.allclose(again["fvu"], found["fvu"]) and "ce both" not in again


def test_what_is_refused(run) -> None:
    with pytest.raises(SystemExit, match="give a UTF-8 file as --text"):
        run("train_transcoders", "Transcoders", model="microworld-bert")
