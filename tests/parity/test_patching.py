"""The maps of TransformerLens's `patching` module, on the same weights."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformer_lens = pytest.importorskip("transformer_lens")

from interp_jax import metrics, models, patching  # noqa: E402

pytestmark = pytest.mark.parity

SIZES = {"n_layers": 2, "n_heads": 4, "d_model": 32, "d_head": 8, "d_mlp": 128, "d_vocab": 61, "n_ctx": 20}
CLEAN, CORRUPTED = np.random.default_rng(0).integers(0, 61, (2, 2, 5))
ANSWERS, DISTRACTORS = [3, 7], [11, 5]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """TransformerLens's model, its weights unprocessed, and ours."""
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_head=4, n_embd=32, vocab_size=61, n_positions=20)
    peer = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    folder = tmp_path_factory.mktemp("gpt2")
    peer.save_pretrained(folder)
    lens_config = transformer_lens.HookedTransformerConfig(**SIZES, act_fn="gelu_new", normalization_type="LN")
    lens = transformer_lens.HookedTransformer(lens_config)
    lens.load_state_dict(convert_gpt2_weights(peer, lens_config), strict=False)
    return lens.eval(), models.load(folder)[0]


@pytest.mark.parametrize(
    ("theirs", "where", "over"),
    [
        ("resid_pre", "blocks.resid_pre", ("layer", "position")),
        ("resid_mid", "blocks.resid_mid", ("layer", "position")),
        ("attn_out", "blocks.attn_out", ("layer", "position")),
        ("mlp_out", "blocks.mlp_out", ("layer", "position")),
        ("attn_head_out_all_pos", "blocks.attn.z", ("layer", "head")),
        ("attn_head_q_all_pos", "blocks.attn.q", ("layer", "head")),
        ("attn_head_k_all_pos", "blocks.attn.k", ("layer", "head")),
        ("attn_head_v_all_pos", "blocks.attn.v", ("layer", "head")),
        ("attn_head_pattern_all_pos", "blocks.attn.pattern", ("layer", "head")),
        ("attn_head_out_by_pos", "blocks.attn.z", ("layer", "position", "head")),
        ("attn_head_q_by_pos", "blocks.attn.q", ("layer", "position", "head")),
        ("attn_head_k_by_pos", "blocks.attn.k", ("layer", "position", "head")),
        ("attn_head_v_by_pos", "blocks.attn.v", ("layer", "position", "head")),
        ("attn_head_pattern_by_pos", "blocks.attn.pattern", ("layer", "head", "query")),
        ("attn_head_pattern_dest_src_pos", "blocks.attn.pattern", ("layer", "head", "query", "key")),
    ],
)
def test_the_same_map(pair: tuple[Any, Any], theirs: str, where: str, over: tuple[str, ...]) -> None:
    lens, model = pair

    def peer_metric(logits: Any) -> Any:
        rows = torch.arange(2)
        return (logits[rows, -1, ANSWERS] - logits[rows, -1, DISTRACTORS]).mean()

    with torch.no_grad():
        _, cache = lens.run_with_cache(torch.tensor(CLEAN))
        sweep = getattr(transformer_lens.patching, f"get_act_patch_{theirs}")
        want = sweep(lens, torch.tensor(CORRUPTED), cache, peer_metric).numpy()
    score = metrics.logit_diff(jnp.array(ANSWERS), jnp.array(DISTRACTORS))
    g = patching.activation_patch(last, score, where, over, plan="data")
    got = g(model, jnp.asarray(CLEAN, jnp.int32), jnp.asarray(CORRUPTED, jnp.int32))
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.ptp(want) > 0.05


def last(model: Any, tokens: Any) -> Any:
    return models.forward(model, tokens)[:, -1]
