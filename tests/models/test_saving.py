"""Saving: whatever field of a config differs, what is loaded is what was saved, or nothing is saved."""

from dataclasses import fields, replace
import json
from pathlib import Path
from typing import Any
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.models import Config, Tokenizer, hf_folders, saving
from interp_jax.models.families import FAMILIES
from tests.models.conftest import FAMILY, random_model

CHANGES: dict[str, list[dict[str, Any]]] = {  # each field, alone or with what it cannot be without
    "n_layers": [{"n_layers": 3}],
    "n_heads": [{"n_heads": 4, "n_kv_heads": 4, "d_head": 2}, {"n_heads": 3, "n_kv_heads": 3, "d_head": 4}],
    "d_model": [{"d_model": 12}],
    "d_mlp": [{"d_mlp": 0}, {"d_mlp": 10}],
    "d_vocab": [{"d_vocab": 13}],
    "n_ctx": [{"n_ctx": 12}],
    "family": [{"family": "mine"}],
    "n_kv_heads": [{"n_kv_heads": 1}],
    "d_head": [{"d_head": 6}],
    "act": [{"act": act} for act in ("gelu_new", "gelu", "relu", "silu")],
    "gated": [{"gated": True}, {"gated": False}],
    "attn_bias": [{"attn_bias": True}, {"attn_bias": False}],
    "out_bias": [{"out_bias": True}, {"out_bias": False}],
    "mlp_bias": [{"mlp_bias": True}, {"mlp_bias": False}],
    "tie_embeddings": [{"tie_embeddings": True}, {"tie_embeddings": False}],
    "embed_scale": [{"embed_scale": True}, {"embed_scale": False}],
    "unembed_bias": [{"unembed_bias": True}],
    "headless": [{"headless": True}],
    "causal": [{"causal": False}, {"causal": False, "window": 2, "local_layers": (0, 1)}],
    "n_types": [{"n_types": 3}],
    "norm": [{"norm": "none"}, {"norm": "rmsnorm"}, {"norm": "layernorm"}],
    "norm_eps": [{"norm_eps": 1e-3}],
    "norm_offset": [{"norm_offset": 1.0}, {"norm_offset": 0.0}],
    "norms": [{"norms": "pre"}, {"norms": "post"}, {"norms": "both"}],
    "qk_norm": [{"qk_norm": "none"}, {"qk_norm": "head"}, {"qk_norm": "all"}],
    "parallel": [{"parallel": True}, {"parallel": False}],
    "positions": [{"positions": "learned"}, {"positions": "rotary"}],
    "rope_theta": [{"rope_theta": 77.0}],
    "rotary_dim": [{"rotary_dim": 2}],
    "rope_scaling": [{"rope_scaling": "linear", "rope_factor": 3.0}],
    "rope_factor": [{"rope_factor": 3.0}],
    "rope_low_freq_factor": [
        {"rope_scaling": "llama3", "rope_factor": 3.0, "rope_low_freq_factor": 1.5, "rope_original_n_ctx": 8}
    ],
    "rope_high_freq_factor": [
        {"rope_scaling": "llama3", "rope_factor": 3.0, "rope_high_freq_factor": 5.0, "rope_original_n_ctx": 8}
    ],
    "rope_original_n_ctx": [{"rope_original_n_ctx": 8}],
    "window": [{"window": 2, "local_layers": (0, 1)}, {"window": 0, "local_layers": ()}],
    "local_layers": [{"window": 3, "local_layers": (1,)}],
    "rope_local_theta": [{"rope_local_theta": 55.0}, {"rope_local_theta": 0.0}],
    "attn_scale": [{"attn_scale": 0.3}, {"attn_scale": 1.0}],
    "attn_softcap": [{"attn_softcap": 2.0}, {"attn_softcap": 0.0}],
    "logit_softcap": [{"logit_softcap": 2.0}, {"logit_softcap": 0.0}],
}


def test_every_field_is_here() -> None:
    assert set(CHANGES) == {field.name for field in fields(Config)}
    assert set(FAMILY) == set(FAMILIES)


ENCODER = {"n_layers", "d_mlp", "act", "d_vocab", "headless", "norm_eps", "n_types"}


def changed(config: Config, change: dict[str, Any]) -> Config | None:
    """None where the encoder has no such thing, or sizes do not fit."""
    if config.family == "bert" and not set(change) <= ENCODER:
        return None
    try:
        return replace(config, **change)
    except ValueError:
        return None


SHORT = ("llama", "bert")


@pytest.mark.parametrize(
    "family", [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in FAMILY]
)
def test_whatever_differs_is_kept(family: str, tmp_path: Path) -> None:
    """The config, the arrays bit for bit, and so the logits, of every field in turn."""
    saved: dict[str, set[str]] = {"huggingface": set(), "orbax": set()}
    for name, changes in CHANGES.items():
        for i, change in enumerate(changes):
            config = changed(FAMILY[family], change)
            if config is None:
                continue
            model, folder = random_model(config), tmp_path / f"{name}{i}"
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                models.save(folder, model)
            kind = "orbax" if caught else "huggingface"
            assert (folder / "config.json").exists() == (kind == "huggingface")
            saved[kind].add(name)
            again, _ = models.load(folder)
            assert saving._meaning(again.config) == saving._meaning(config), name
            chex.assert_trees_all_equal(jax.tree.leaves(again), jax.tree.leaves(model))
    assert {"n_layers", "d_vocab", "headless", "norm_eps"} <= saved["huggingface"]
    assert "d_mlp" in saved["orbax"]


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llama", {"attn_scale": 0.3, "parallel": True, "attn_softcap": 2.0, "logit_softcap": 3.0}),
        ("gpt2", {"embed_scale": True, "gated": True, "qk_norm": "head"}),
        ("llama", {"norms": "both", "window": 2, "local_layers": (0, 1), "norm_offset": 1.0}),
        ("gpt2", {"d_mlp": 0, "norm": "none", "unembed_bias": True, "tie_embeddings": False}),
        ("llama", {"causal": False, "norm": "none"}),
    ],
)
def test_logits_are_kept(family: str, change: dict[str, Any], tmp_path: Path) -> None:
    model = random_model(replace(FAMILY[family], **change))
    with pytest.warns(
        UserWarning, match=rf"files of family {family} cannot hold .*; saved by Orbax as a checkpoint of "
    ):
        models.save(tmp_path / "model", model)
    for options in ({}, {"scan_layers": True}):
        again, _ = models.load(tmp_path / "model", **options)
        np.testing.assert_allclose(again(np.arange(9)), model(np.arange(9)), atol=1e-5)


def test_ours_takes_dtype_mesh_scan_and_tokenizer(tmp_path: Path, byte_tokenizer: Tokenizer) -> None:
    model = models.stack_layers(random_model(replace(FAMILY["llama"], attn_scale=0.3)))
    models.save(tmp_path / "model", model, byte_tokenizer, format="orbax")
    mesh = jax.make_mesh((2,), ("model",))
    again, tokenizer = models.load(tmp_path / "model", dtype="bfloat16", mesh=mesh, scan_layers=True)
    assert again.scanned and again.dtype == jnp.bfloat16 and not again.blocks.attn.w_q.is_fully_replicated
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), again, model)
    assert tokenizer.encode("aé") == byte_tokenizer.encode("aé")
    assert tokenizer.templates == byte_tokenizer.templates
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    models.save(tmp_path / "half", again, format="orbax")
    chex.assert_trees_all_equal(models.load(tmp_path / "half", scan_layers=True)[0], again)


def test_the_format_can_be_asked_for(tmp_path: Path) -> None:
    model = random_model(replace(FAMILY["llama"], attn_scale=0.3))
    with pytest.raises(ValueError, match=r"^save: files of family llama cannot hold attn_scale=0.3; leave format out$"):
        models.save(tmp_path / "model", model, format="huggingface")
    assert not any(tmp_path.iterdir())
    models.save(tmp_path / "model", random_model(FAMILY["llama"]), format="huggingface")
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("format", ["huggingface", "orbax"])
def test_what_reads_back_as_something_else_is_not_saved(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(FAMILY["llama"])
    where = "interp_jax.models.hf_folders.write" if format == "huggingface" else "interp_jax.models.orbax_folders.write"
    write = hf_folders.write if format == "huggingface" else saving.orbax_folders.write

    def damage(folder: Path, config: Config, arrays: dict[str, Any], *rest: Any) -> None:
        write(folder, config, arrays | {"w_e": arrays["w_e"].at[3, 2].add(1e-6)}, *rest)

    monkeypatch.setattr(where, damage)
    with pytest.raises(ValueError, match="^save: w_e does not read back as it was; nothing was saved"):
        models.save(tmp_path / "model", model, format=format)

    def other(folder: Path, config: Config, *rest: Any) -> None:
        write(folder, replace(config, norm_eps=0.5), *rest)

    monkeypatch.setattr(where, other)
    with pytest.raises(ValueError, match="^save: what was written reads back as another config; nothing was saved"):
        models.save(tmp_path / "model", model, format=format)
    assert not any(tmp_path.iterdir())


def test_nan_and_minus_zero_are_values_too(tmp_path: Path) -> None:
    model = random_model(FAMILY["llama"])
    odd = jnp.array([jnp.nan, -0.0, 0.0, jnp.inf] * 2, jnp.float32)
    models.save(tmp_path / "model", ij.models.with_weights(model, {"ln_final_w": odd}))
    got = np.asarray(models.load(tmp_path / "model")[0].ln_final.w)
    np.testing.assert_array_equal(got.view(np.int32), np.asarray(odd).view(np.int32))


def test_other_checkpoints_of_ours_are_no_models(tmp_path: Path) -> None:
    from interp_jax import dictionaries, io

    dictionaries.save(tmp_path / "dictionary", dictionaries.TopK.create(jax.random.key(0), 4, 8, 2))
    with pytest.raises(
        ValueError, match="is a checkpoint of something else than a model; interp_jax.dictionaries.load"
    ):
        models.load(tmp_path / "dictionary")
    config = {"n_layers": 1, "n_heads": 1, "d_model": 2, "d_mlp": 0, "d_vocab": 3, "n_ctx": 4}
    for extra, says in (({}, "its parameters are not those of its config"), ({"x": 1}, "its config has x, which this")):
        io.orbax.save(tmp_path / "model", {"w_e": jnp.ones((3, 2))}, {"kind": "model", "config": config | extra})
        with pytest.raises(ValueError, match=says) as caught:
            models.load(tmp_path / "model")
        assert "\n" not in str(caught.value)


def test_depth_is_checked_before_anything_is_made(tmp_path: Path) -> None:
    models.save(tmp_path / "model", random_model(FAMILY["llama"]))
    file = tmp_path / "model" / "config.json"
    for n_layers in (10_000_000, 3, 1):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": n_layers}))
        with pytest.raises(
            ValueError, match=f"the config tells of {n_layers} layers, the weights are of 2; one file is"
        ):
            models.load(tmp_path / "model")
