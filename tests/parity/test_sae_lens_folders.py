"""SAELens's folders: what it writes does here what it does there, and what we write does there what it does here."""

from dataclasses import fields, replace
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sae_lens")

from interp_jax import dictionaries  # noqa: E402

pytestmark = pytest.mark.parity

D_IN, D_SAE, D_OUT = 8, 24, 6
CENTERED = {"apply_b_dec_to_input": True}
NOT_CENTERED = {"apply_b_dec_to_input": False}


def theirs(architecture: str, **options: Any) -> Any:
    """An inference dictionary of SAELens's, with every weight random."""
    from sae_lens import SAE

    config = {"architecture": architecture, "d_in": D_IN, "d_sae": D_SAE, "metadata": {}, **options}
    peer_class = SAE.get_sae_class_for_architecture(architecture)
    peer = peer_class(SAE.get_sae_config_class_for_architecture(architecture).from_dict(config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in peer.named_parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
            if name == "threshold":
                weight.abs_()
    peer.cfg.metadata.hook_name = "blocks.2.hook_resid_post"
    peer.cfg.metadata.model_name = "stories260K"
    return peer


def inputs(d: int = D_IN) -> np.ndarray:
    return np.asarray(jax.random.normal(jax.random.key(9), (32, d)) + 0.4)


def same(ours: Any, peer: Any, x: np.ndarray) -> None:
    with torch.no_grad():
        features = peer.encode(torch.tensor(x))
        np.testing.assert_allclose(ours.encode(x), features.numpy(), atol=1e-5)
        np.testing.assert_allclose(ours(x), peer(torch.tensor(x)).numpy(), atol=1e-5)
    assert 0 < float((features > 0).float().mean()) < 1


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("standard", CENTERED),
        ("standard", NOT_CENTERED),
        ("standard", CENTERED | {"normalize_activations": "expected_average_only_in"}),
        ("standard", CENTERED | {"normalize_activations": "layer_norm"}),
        ("topk", NOT_CENTERED | {"k": 4, "normalize_activations": "layer_norm"}),
        ("jumprelu", CENTERED | {"normalize_activations": "layer_norm"}),
        ("gated", NOT_CENTERED | {"normalize_activations": "layer_norm"}),
        ("topk", CENTERED | {"k": 4}),
        ("topk", NOT_CENTERED | {"k": 4, "rescale_acts_by_decoder_norm": True}),
        ("topk", CENTERED | {"k": 4, "rescale_acts_by_decoder_norm": True}),
        ("jumprelu", CENTERED),
        ("jumprelu", NOT_CENTERED),
        ("gated", CENTERED),
        ("gated", NOT_CENTERED),
        ("transcoder", NOT_CENTERED | {"d_out": D_OUT}),
        ("skip_transcoder", NOT_CENTERED | {"d_out": D_OUT}),
    ],
)
def test_what_it_writes_does_here_what_it_does_there(architecture: str, options: dict[str, Any], tmp_path: Any) -> None:
    peer = theirs(architecture, **options)
    peer.save_model(tmp_path)
    ours = dictionaries.load(tmp_path)
    same(ours, peer, inputs())
    about = dictionaries.load_metadata(tmp_path)
    assert (about["site"], about["model"]) == ("blocks.2.resid_post", "stories260K")


def test_a_row_of_zeros_whose_norm_rescales_is_silent(tmp_path: Any) -> None:
    peer = theirs("topk", k=4, rescale_acts_by_decoder_norm=True)
    with torch.no_grad():
        peer.W_dec[3] = 0
    peer.save_model(tmp_path)
    ours = dictionaries.load(tmp_path)  # SAELens's own is NaN everywhere
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves((ours, ours(inputs()))))


@pytest.mark.parametrize("kind", ["TopK", "JumpReLU"])
def test_layer_norm_is_written_as_it_is_read(kind: str, tmp_path: Any) -> None:
    from sae_lens import SAE

    ours = getattr(dictionaries, kind).create(jax.random.key(0), D_IN, D_SAE, **KINDS[kind])
    ours = replace(ours, normalization="layer_norm")
    state = dictionaries.TrainState.create(ours, 5)
    ours = dictionaries.train_step(state, inputs())[0].dictionary
    dictionaries.save(tmp_path / "d", ours, format="sae_lens")
    same(ours, SAE.load_from_disk(tmp_path / "d"), inputs())
    same(ours.fold_scale(3.0), SAE.load_from_disk(tmp_path / "d"), inputs())


def test_a_dictionary_of_scaled_inputs_is_noticed_where_they_are_not(tmp_path: Any) -> None:
    theirs("standard", normalize_activations="expected_average_only_in").save_model(tmp_path)
    ours = dictionaries.load(tmp_path)
    assert float(ours.mean_norm) == np.float32(D_IN**0.5)
    assert ours.sites == "blocks.2.resid_post"


KINDS = {
    "BatchTopK": {"k": 3},
    "Gated": {},
    "JumpReLU": {"threshold": 0.3},
    "Matryoshka": {"k": 3},
    "PAnneal": {},
    "ReLU": {"form": "towards"},
    "SkipTranscoder": {"d_out": D_OUT},
    "Tied": {},
    "TopK": {"k": 4},
    "Transcoder": {"d_out": D_OUT},
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_we_write_does_there_what_it_does_here(kind: str, tmp_path: Any) -> None:
    from sae_lens import SAE

    made = getattr(dictionaries, kind).create(jax.random.key(0), D_IN, D_SAE, **KINDS[kind])
    fixed = ("bandwidth", "threshold", "limit", "mean_norm", "folded_norms")
    names = [f.name for f in fields(made) if not f.metadata.get("static") and f.name not in fixed]
    keys = jax.random.split(jax.random.key(1), len(names))
    arrays = {name: getattr(made, name) for name in names}
    arrays = {n: a + 0.2 * jax.random.normal(k, a.shape) for k, (n, a) in zip(keys, arrays.items(), strict=True)}
    threshold = {"threshold": jnp.full_like(made.threshold, 0.4)} if "threshold" in fields_of(made) else {}
    ours = replace(made, **arrays, **threshold)
    dictionaries.save(tmp_path / "d", ours, format="sae_lens", site="blocks.2.attn.z", model="stories260K")
    peer = SAE.load_from_disk(tmp_path / "d")
    same(ours, peer, inputs())
    assert peer.cfg.metadata.hook_name == "blocks.2.attn.hook_z"
    same(dictionaries.load(tmp_path / "d"), peer, inputs())


def fields_of(dictionary: Any) -> set[str]:
    return {f.name for f in fields(dictionary)}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"architecture": "jumprelu"},
        {"architecture": "gated", "normalize_activations": False},
        {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}},
    ],
)
def test_flat_configs_before_6(changes: dict[str, Any], tmp_path: Any) -> None:
    from sae_lens import SAE

    topk = "activation_fn_kwargs" in changes
    made = theirs("topk" if topk else changes.get("architecture", "standard"), **CENTERED)
    made.save_model(tmp_path)
    old = {
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float32",
        "model_name": "stories260K",
        "hook_point": "blocks.1.hook_resid_pre",
        "activation_fn_str": "relu",
        "finetuning_scaling_factor": False,
        **changes,
    }
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    same(dictionaries.load(tmp_path), SAE.load_from_disk(tmp_path, device="cpu"), inputs())
    assert dictionaries.load_metadata(tmp_path)["site"] == "blocks.1.resid_pre"


def test_sites_with_a_head_axis(tmp_path: Any) -> None:
    peer = theirs("standard", reshape_activations="hook_z")
    peer.cfg.metadata.hook_name = "blocks.0.attn.hook_z"
    peer.save_model(tmp_path)
    same(dictionaries.load(tmp_path), peer, inputs().reshape(32, 2, D_IN // 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize_activations": "covariance_whitening"}, "'covariance_whitening' is not supported"),
        ({"architecture": "temporal"}, "architecture 'temporal' is not supported; supported: standard"),
        ({"apply_b_dec_to_inputs": True}, "unknown key 'apply_b_dec_to_inputs'; near: 'apply_b_dec_to_input'"),
        ({"architecture": "topk", "k": 25}, "k=25 of a topk config must be from 1 to d_sae=24"),
        ({"architecture": "gated"}, r"lacks \['b_gate', 'b_mag', 'r_mag'\] and has \['b_enc'\]"),
        ({"d_in": 9}, "does not fit d_in=9"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Any) -> None:
    theirs("standard").save_model(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message):
        dictionaries.load(tmp_path)


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_a_torn_file_is_one_line(name: str, tmp_path: Any) -> None:
    theirs("standard").save_model(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{name}: torn or damaged: [^\n]*$"):
        dictionaries.load(tmp_path)
