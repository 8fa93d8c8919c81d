"""Every family as a loop over layers and as a scan, from a folder of its own format, and on a mesh."""

from dataclasses import replace
from functools import partial
from pathlib import Path
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import add, per_layer
from interp_jax.models.checkpoint import model_class
from interp_jax.models.config import Config
from interp_jax.models.families import FAMILIES
from interp_jax.models.params import paths
from tests.models.conftest import CONFIGS, FAMILY, random_model

# Between them every option; the plain ones are long.
KINDS = [
    "gemma",
    "bert",
    *(pytest.param(kind, marks=pytest.mark.long) for kind in ("neox", "gemma2", "qwen3", "olmo", "phi")),
]


@pytest.fixture(scope="module", params=KINDS)
def loop(request: pytest.FixtureRequest) -> Any:
    return random_model(CONFIGS[request.param])


def close(a: Any, b: Any, tolerance: float = 2e-5) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), a, b)


def call(model: Any, prompts: tuple) -> Any:
    return partial(models.forward, attention_mask=prompts[1])


@pytest.mark.long
def test_a_scan_over_layers_is_the_loop(loop: Any, prompts: tuple) -> None:
    scan, f = models.stack_layers(loop), call(loop, prompts)
    assert ij.sites(f, scan, prompts[0]) == ij.sites(f, loop, prompts[0])
    where = ["blocks.resid_pre", "blocks.1.attn.pattern", "blocks.attn.result", "blocks.mlp.post", "logits"]
    captured = jax.jit(ij.capture(f, where))
    close(captured(scan, prompts[0]), captured(loop, prompts[0]))
    vectors = jnp.arange(3.0)[:, None, None, None] * jnp.ones(loop.config.d_model)
    edited = ij.intervene(f, {"blocks.attn_out": per_layer(add(vectors)), "blocks.1.attn.result": jnp.tanh})

    def loss(model: Any) -> jax.Array:
        return (edited(model, prompts[0]) ** 2)[prompts[1]].mean()

    slopes = jax.jit(jax.value_and_grad(loss))
    value, slope = slopes(loop)
    got, got_slope = slopes(scan)
    close(got, value)
    close(paths(got_slope), paths(models.stack_layers(slope)), 1e-4)


def test_a_batch_gives_what_each_sequence_gives_alone(loop: Any, prompts: tuple) -> None:
    together = np.asarray(call(loop, prompts)(loop, prompts[0]))
    for row, (tokens, real) in enumerate(zip(*prompts, strict=True)):
        close(together[row][real], np.asarray(loop(tokens[real])))


@pytest.mark.long
def test_generation_from_a_scan_and_without_a_cache(loop: Any, prompts: tuple) -> None:
    if not loop.causal:
        with pytest.raises(TypeError, match="needs a Decoder, not a Encoder"):
            models.generate(loop, prompts[0], 2)
        return
    got = np.asarray(models.generate(loop, prompts[0], 9, attention_mask=prompts[1]))
    scan = models.stack_layers(loop)
    np.testing.assert_array_equal(models.generate(scan, prompts[0], 9, attention_mask=prompts[1]), got)
    mask = np.concatenate([prompts[1], np.ones((3, 9), bool)], axis=1)
    mask[1] = True  # its padding stands between the prompt and what follows: moved to the left
    tokens = got.copy()
    tokens[1], mask[1, :2] = np.roll(np.concatenate([got[1, :5], got[1, 7:], got[1, :2]]), 2), False
    logits = np.asarray(models.forward(loop, tokens, attention_mask=mask))
    np.testing.assert_array_equal(logits[:, 6:-1].argmax(-1), tokens[:, 7:])


def test_folders(loop: Any, prompts: tuple, tmp_path: Path) -> None:
    models.save(tmp_path / "loop", loop)
    models.save(tmp_path / "scan", models.stack_layers(loop))
    for name in ("loop", "scan"):
        back, _ = models.load(tmp_path / name)
        assert back.config == loop.config
        jax.tree.map(np.testing.assert_array_equal, back, loop)
    scan, _ = models.load(tmp_path / "loop", scan_layers=True, dtype="bfloat16")
    assert scan.scanned and scan.dtype == jnp.bfloat16
    close(scan(prompts[0]).astype(jnp.float32), loop(prompts[0]), 0.4)


@pytest.mark.parametrize("kind", ["gemma", *(pytest.param(k, marks=pytest.mark.long) for k in ("neox", "bert"))])
@pytest.mark.parametrize(("scan_layers", "axis_type"), [(False, "Explicit"), (True, "Auto")])
def test_on_a_mesh(kind: str, prompts: tuple, tmp_path: Path, scan_layers: bool, axis_type: str) -> None:
    loop = random_model(CONFIGS[kind])
    models.save(tmp_path / "model", loop)
    kinds = (getattr(jax.sharding.AxisType, axis_type),) * 2
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=kinds)
    model, _ = models.load(tmp_path / "model", mesh=mesh, scan_layers=scan_layers)
    split = {path.rsplit(".", 1)[-1] for path, leaf in paths(model).items() if not leaf.is_fully_replicated}
    assert {"w_q", "w_o", "w_in", "w_out"} <= split
    assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves(model))
    f = call(model, prompts)
    close(f(model, prompts[0]), f(loop, prompts[0]))
    captured = jax.jit(ij.capture(f, ["blocks.attn.z", "blocks.mlp.post"], output=False))
    assert "all-gather" not in captured.lower(model, prompts[0]).compile().as_text()
    assert not any(value.is_fully_replicated for value in captured(model, prompts[0]).values())


@pytest.mark.parametrize("kind", CONFIGS)
def test_bfloat16_throughout(kind: str, prompts: tuple) -> None:
    """Every site but the norms' scales, which are float32, in a loop and in a scan."""
    half = model_class(CONFIGS[kind]).abstract(CONFIGS[kind], dtype=jnp.bfloat16)
    for model in (half, model_class(CONFIGS[kind]).abstract(CONFIGS[kind], dtype=jnp.bfloat16, scan_layers=True)):
        sites = ij.sites(call(model, prompts), model, prompts[0])
        assert len(sites) > 20
        for name, info in sites.items():
            assert info.dtype == (jnp.float32 if name.endswith(".scale") else jnp.bfloat16), name


def test_weights_come_back(loop: Any) -> None:
    for model in (loop, models.stack_layers(loop)):
        found = models.weights(model)
        close(paths(models.with_weights(model, found)), paths(model), 1e-6)
    close(found, models.weights(loop))


@pytest.mark.parametrize("kind", ["gpt2", "gemma"])
@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_a_batch_over_devices(kind: str, axis_type: str) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(getattr(jax.sharding.AxisType, axis_type),))
    model, tokens = random_model(CONFIGS[kind]), np.random.default_rng(0).integers(0, 37, (8, 7)).astype(np.int32)
    mask = np.arange(7) >= np.arange(8)[:, None] // 2
    spread = jax.device_put((tokens, mask), jax.sharding.NamedSharding(mesh, jax.P("data")))
    where = ["blocks.attn.z", "logits"]
    want = ij.capture(call(model, (tokens, mask)), where, output=False)(model, tokens)
    got = ij.capture(models.forward, where, output=False)(model, spread[0], attention_mask=spread[1])
    close(got, want)
    assert got["logits"].sharding.spec[0] == "data"


def test_a_mesh_without_the_axis(tmp_path: Path) -> None:
    models.save(tmp_path / "model", random_model(CONFIGS["neox"]))
    with pytest.raises(ValueError, match=r"^load: the mesh has axes \('x',\); weights are split over one named"):
        models.load(tmp_path / "model", mesh=jax.make_mesh((8,), ("x",)))


@pytest.mark.parametrize("family", FAMILIES)
def test_options_that_nobody_knows_are_named_once_and_ignored(family: str) -> None:
    hf = FAMILIES[family].hf_config(FAMILY[family])
    want = FAMILIES[family].config(family, hf | {"new_idea": None, "_note": 3, "use_cache": False, "top_k": 9})
    with pytest.warns(UserWarning) as caught:
        assert FAMILIES[family].config(family, hf | {"new_idea": 3, "another": {"a": 1}, "_note": 3}) == want
    assert [str(warning.message) for warning in caught] == [
        f"config.json of family {family}: nothing here reads another={{'a': 1}}, new_idea=3; ignored, which is right "
        "unless transformers' model of this family reads it"
    ]
    with pytest.raises(ValueError, match=f"^config.json of family {family}: quantization_config=.* is not supported$"):
        FAMILIES[family].config(family, hf | {"quantization_config": {"quant_method": "awq"}})


BAD_VALUES = {
    "n_layers": [("5", "must be a whole number, not '5'"), (2.0, "must be a whole number, not 2.0")],
    "n_heads": [(0, "must be at least 1, not 0")],
    "d_model": [(-16, "must not be negative, not -16")],
    "d_vocab": [(True, "must be a whole number, not True")],
    "norm_eps": [("x", "must be a number, not 'x'")],
    "tie_embeddings": [("no", "must be True or False, not 'no'")],
    "act": [(3, "must be a string, not 3")],
}


@pytest.mark.parametrize(
    ("family", "key", "value", "says"),
    [
        (family, key, value, says)
        for family, known in FAMILIES.items()
        for key, (kind, _) in known.fields.items()
        for value, says in BAD_VALUES.get(kind, [])
    ],
)
def test_values_are_checked_like_keys(family: str, key: str, value: Any, says: str) -> None:
    known = FAMILIES[family]
    hf = known.hf_config(FAMILY[family])
    with pytest.raises(ValueError, match=f"^a/config.json of family {family}: '{key}' {re.escape(says)}$"):
        known.config(family, hf | {key: value}, "a/config.json")


@pytest.mark.parametrize(
    ("family", "option", "value", "says"),
    [
        ("llama", "rope_theta", "x", "'rope_theta' must be a number, not 'x'"),
        ("llama", "rope_theta", 0, "'rope_theta' must be a number above 0, not 0"),
        ("llama", "rope_scaling", "linear", "'rope_scaling' must hold options by name, not 'linear'"),
        ("llama", "rope_scaling", {"rope_type": "linear"}, "rope_scaling of type 'linear': 'factor' is missing"),
        ("llama", "rope_parameters", {"rope_theta": "x"}, "rope_parameters: 'rope_theta' must be a number, not 'x'"),
        ("llama", "num_key_value_heads", 3, "Config: n_heads 2 is not a multiple of n_kv_heads 3"),
        ("llama", "head_dim", 0, "'head_dim' must be at least 1, not 0"),
        ("gemma2", "attn_logit_softcapping", -1.0, "'attn_logit_softcapping' must not be negative, not -1.0"),
        ("gemma3_text", "query_pre_attn_scalar", "x", "'query_pre_attn_scalar' must be a number, not 'x'"),
        ("gemma3_text", "layer_types", ["full_attention"], "layer_types=['full_attention'] is not supported, only"),
        ("qwen3", "use_sliding_window", "no", "'use_sliding_window' must be True or False, not 'no'"),
        ("mistral", "sliding_window", 2.5, "'sliding_window' must be a whole number, not 2.5"),
        ("gpt2", "hidden_size", 99, "n_embd=8 and hidden_size=99 are two names of one option; keep one"),
        ("gpt2", "n_inner", 0, "'n_inner' must be at least 1, not 0"),
        ("bert", "is_decoder", True, "is_decoder=True is not supported, only False"),
        ("bert", "type_vocab_size", 0, "'type_vocab_size' must be at least 1, not 0"),
    ],
)
def test_values_that_take_more_than_a_look_up(family: str, option: str, value: Any, says: str) -> None:
    hf = FAMILIES[family].hf_config(FAMILY[family])
    if isinstance(value, dict):
        hf.pop("rope_scaling")
    with pytest.raises(ValueError) as caught:
        FAMILIES[family].config(family, hf | {option: value})
    assert says in str(caught.value) and str(caught.value).startswith("config.json") and "\n" not in str(caught.value)


def test_what_transformers_model_does_not_read_is_ignored() -> None:
    """A window of a Llama, a decoder's mark of a GPT-2: said by configs that were copied from other families."""
    for config, extra in (
        (CONFIGS["llama"], {"sliding_window": 4, "layer_types": ["sliding_attention"] * 3, "max_window_layers": 1}),
        (CONFIGS["gpt2"], {"is_decoder": True, "summary_type": "cls_index", "num_hidden_layers": 3}),
        (CONFIGS["bert"], {"is_causal": True, "pooler_type": "first_token_transform"}),
    ):
        family = FAMILIES[config.family]
        assert family.config(config.family, family.hf_config(config) | extra) == config


def test_is_causal_is_read() -> None:
    family, config = FAMILIES["llama"], replace(CONFIGS["llama"], causal=False)
    assert family.hf_config(config)["is_causal"] is False
    assert family.config("llama", family.hf_config(config)) == config
    windowed = FAMILIES["mistral"]
    hf = windowed.hf_config(replace(FAMILY["mistral"], window=3, local_layers=(0, 1)))
    with pytest.raises(ValueError, match="is_causal=False beside a sliding window is not supported"):
        windowed.config("mistral", hf | {"is_causal": False})


@pytest.mark.parametrize("config", [*CONFIGS.values(), *FAMILY.values()], ids=lambda config: config.family)
def test_configs_travel_both_ways(config: Config) -> None:
    hf = FAMILIES[config.family].hf_config(config)
    assert FAMILIES[config.family].config(config.family, hf) == config
    assert model_class(config).abstract(config).config == config
