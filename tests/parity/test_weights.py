"""Processed weights against those of TransformerLens's model of the same weights, matrix by matrix."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformer_lens = pytest.importorskip("transformer_lens")

from interp_jax import models, weights  # noqa: E402
from tests.models.conftest import GPT2, LLAMA, NEOX, random_model  # noqa: E402

pytestmark = pytest.mark.parity

LAYERNORM = {"normalization_type": "LN", "d_head": 4}
SIZES = {"n_layers": 3, "n_heads": 4, "d_model": 16, "d_mlp": 24, "d_vocab": 37, "n_ctx": 32}
ROTARY = {"positional_embedding_type": "rotary", "rotary_adjacent_pairs": False, "rotary_base": 10000}
RMS = {"normalization_type": "RMS", "act_fn": "silu", "gated_mlp": True, "n_key_value_heads": 2, "d_head": 6, **ROTARY}
KINDS: dict[str, tuple[models.Config, dict[str, Any]]] = {
    "gpt2": (GPT2, {"act_fn": "gelu_new", **LAYERNORM}),
    "neox": (
        replace(NEOX, unembed_bias=True),
        {
            "act_fn": "gelu",
            "normalization_type": "LN",
            "d_head": 4,
            "rotary_dim": 2,
            "parallel_attn_mlp": True,
            **ROTARY,
        },
    ),
    "attention only": (replace(GPT2, d_mlp=0, mlp_bias=False), {"attn_only": True, **LAYERNORM}),
    "llama": (LLAMA, {"rotary_dim": 6, **RMS}),
    "qwen": (replace(LLAMA, attn_bias=True), {"rotary_dim": 6, **RMS}),
    "no norms": (
        replace(GPT2, norm="none", unembed_bias=True),
        {"act_fn": "gelu_new", "normalization_type": None, "d_head": 4},
    ),
}
PLACES = {"W_E": "embed.W_E", "W_pos": "pos_embed.W_pos", "W_U": "unembed.W_U", "b_U": "unembed.b_U"}
PLACES |= {f"ln_final_{x}": f"ln_final.{x}" for x in "wb"}
TOKENS = np.random.default_rng(2).integers(0, 37, (3, 9))


def place(name: str, layer: int, peer: Any) -> str:
    """The name of a weight of one layer in TransformerLens's state dict."""
    if name.startswith("ln"):
        return f"blocks.{layer}.{name[:3]}.{name[4:]}"
    grouped = peer.cfg.n_key_value_heads is not None and name[2:] in ("K", "V")
    part = "mlp" if name[2:] in ("in", "gate", "out") else "attn"
    return f"blocks.{layer}.{part}.{'_' if grouped else ''}{name}"


def peer_of(model: Any, options: dict[str, Any], **processing: bool) -> Any:
    """TransformerLens's model of the same weights, its weights processed or as they are."""
    peer = transformer_lens.HookedTransformer(
        transformer_lens.HookedTransformerConfig(**SIZES | options, eps=model.config.norm_eps)
    )
    made = peer.state_dict()
    state = {name: value for name, value in made.items() if name.endswith(("mask", "IGNORE", "sin", "cos"))}
    state |= {name: torch.zeros_like(value) for name, value in made.items() if ".b_" in name or "._b_" in name}
    for name, value in models.weights(model).items():
        if name in PLACES:
            state[PLACES[name]] = torch.tensor(np.asarray(value))
        elif value.size:
            for layer, one in enumerate(np.asarray(value)):
                state[place(name, layer, peer)] = torch.tensor(one)
    assert state.keys() - made.keys() <= {f"blocks.{i}.ln2.{x}" for i in range(3) for x in "wb"}
    kinds = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
    peer.load_and_process_state_dict(state, **{kind: processing.get(kind, False) for kind in kinds})
    return peer.eval()


def compare(new: dict[str, Any], peer: Any, model: Any) -> None:
    """Every matrix and bias that TransformerLens's model has, and the logits of both."""
    theirs, compared = peer.state_dict(), 0
    for name, value in new.items():
        places = [PLACES[name]] if name in PLACES else [place(name, layer, peer) for layer in range(3)]
        for at, one in zip(places, [value] if name in PLACES else value, strict=True):
            if at in theirs:  # a folded norm has no weights there
                np.testing.assert_allclose(one, theirs[at].numpy(), atol=1e-4, rtol=1e-4, err_msg=at)
                compared += 1
            else:
                assert name.startswith("ln") or not value.size, name
    wanted = {name for name in theirs if ("W_" in name or ".b_" in name) and "IGNORE" not in name}
    absent = wanted - {at for name in new for at in (PLACES.get(name), *(place(name, i, peer) for i in range(3)))}
    assert compared >= 12 and not any(theirs[name].any() for name in absent), absent
    with torch.no_grad():
        logits = peer(torch.tensor(TOKENS)).numpy()
    np.testing.assert_allclose(models.with_weights(model, new)(TOKENS), logits, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    config, options = KINDS[request.param]
    return models.untie(random_model(config)), options


def test_as_they_are(kind: tuple[Any, dict[str, Any]]) -> None:
    model, options = kind
    compare(models.weights(model), peer_of(model, options), model)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("fold_ln", weights.fold_norms),
        ("center_writing_weights", weights.centre_writing_weights),
        ("center_unembed", weights.centre_unembed),
        ("fold_value_biases", weights.fold_value_biases),
    ],
)
def test_one_by_one(kind: tuple[Any, dict[str, Any]], theirs: str, ours: Any) -> None:
    model, options = kind
    peer = peer_of(model, options, **{theirs: True})
    if theirs == "center_writing_weights" and model.config.norm != "layernorm":
        with pytest.raises(ValueError, match="do not subtract the mean"):  # there nothing is done, without a word
            ours(models.weights(model))
        return
    compare(ours(models.weights(model)), peer, model)


def test_all_of_them(kind: tuple[Any, dict[str, Any]]) -> None:
    model, options = kind
    every = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), True)
    new = weights.fold_norms(models.weights(model))
    new = weights.centre_writing_weights(new) if model.config.norm == "layernorm" else new
    compare(weights.fold_value_biases(weights.centre_unembed(new)), peer_of(model, options, **every), model)
