"""Dictionaries of every layer: a folder of them, and the shipped set, which keeps the model as its card says."""

import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, models
from interp_jax.data.microworld import WORLD
from interp_jax.dictionaries.layers import SHIPPED

NAME = "microworld-transcoders"


def test_a_folder_of_layers(tmp_path):
    made = [dictionaries.TopK.create(jax.random.key(i), 8, 16, 2) for i in range(11)]
    for i, one in enumerate(made):
        dictionaries.save(tmp_path / f"layer_{i}", one)
    (tmp_path / "unfinished").mkdir()
    for one, again in zip(made, dictionaries.load_layers(tmp_path, dtype="bfloat16"), strict=True):
        assert again.W_dec.dtype == "bfloat16"
        np.testing.assert_array_equal(again.W_dec, one.W_dec.astype("bfloat16"))
    (tmp_path / "layer_1").rename(tmp_path / "away")
    with pytest.raises(ValueError, match="has layers 0, 2, 3.*give a folder"):
        dictionaries.load_layers(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"'?nothing'?: no such folder.*shipped: {NAME}"):
        dictionaries.load_layers("nothing")
    with pytest.raises(ValueError, match="has layers none"):
        dictionaries.load_layers(tmp_path / "away")


def test_what_is_shipped_is_small_and_in_bfloat16():
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) <= 1_500_000
    for layer, one in enumerate(dictionaries.load_layers(NAME)):
        assert one.W_dec.dtype == "bfloat16" and isinstance(one, dictionaries.TopKTranscoder)
        assert one.sites == (f"blocks.{layer}.ln2.normalized", f"blocks.{layer}.mlp_out")


def test_the_shipped_set_keeps_what_its_card_says():
    """On rows of another seed, all MLPs replaced at once, no error kept."""
    card = json.loads((SHIPPED / NAME / "card.json").read_text())
    model, _ = models.load("microworld", dtype="float32")
    tokens, _ = WORLD.batch(random.Random(9), (32, 64), WORLD.mixture)
    transcoders = dictionaries.load_layers(NAME, dtype="float32")
    clean, acts = jax.jit(ij.capture(models.forward, ["blocks.ln2.normalized", "blocks.mlp_out"]))(model, tokens)
    edits = {one.sites[1]: dictionaries.splice(one, keep_error=False) for one in transcoders}
    replaced = jax.jit(ij.intervene(models.forward, edits))(model, tokens)
    kept = (replaced.argmax(-1) == clean.argmax(-1))[:, 1:].mean()
    assert kept > card["kept"] - 0.05
    for layer, one in enumerate(transcoders):
        x, y = (acts[name][layer, :, 1:].reshape(-1, 128) for name in ("blocks.ln2.normalized", "blocks.mlp_out"))
        fvu = jnp.sum((one(x) - y) ** 2) / jnp.sum((y - y.mean(0)) ** 2)
        assert fvu < 1.3 * card["fvu"][layer] + 0.005
