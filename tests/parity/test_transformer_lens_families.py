"""Every activation that TransformerLens caches for GPT-NeoX and for Llama equals our site of that name."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformer_lens = pytest.importorskip("transformer_lens")

from transformer_lens.pretrained import weight_conversions as convert  # noqa: E402

import interp_jax as ij  # noqa: E402
from interp_jax import models  # noqa: E402

pytestmark = pytest.mark.parity

SIZES = {"n_layers": 3, "n_heads": 4, "d_model": 32, "d_head": 8, "d_mlp": 48, "d_vocab": 61, "n_ctx": 20}
HF = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 61,
    "max_position_embeddings": 20,
}
ROTARY = {"positional_embedding_type": "rotary", "rotary_adjacent_pairs": False, "rotary_base": 10000}
NEOX = {"act_fn": "gelu", "normalization_type": "LN", "rotary_dim": 2, **ROTARY}
LLAMA = {"act_fn": "silu", "normalization_type": "RMS", "rotary_dim": 8, "gated_mlp": True, "eps": 1e-6, **ROTARY}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Any]] = {
    "neox": ("GPTNeoX", {}, {**NEOX, "parallel_attn_mlp": True}, convert.convert_neox_weights),
    "neox sequential": ("GPTNeoX", {"use_parallel_residual": False}, NEOX, convert.convert_neox_weights),
    "llama": ("Llama", {"num_key_value_heads": 2}, {**LLAMA, "n_key_value_heads": 2}, convert.convert_llama_weights),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_cached_activation(kind: str, tmp_path: Any) -> None:
    name, options, lens_options, weights_of = KINDS[kind]
    torch.manual_seed(0)
    peer = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**HF | options)).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    peer.save_pretrained(tmp_path)
    config = transformer_lens.HookedTransformerConfig(**SIZES, **lens_options)
    lens = transformer_lens.HookedTransformer(config)
    lens.load_state_dict(weights_of(peer, config), strict=False)
    tokens = np.random.default_rng(2).integers(0, 61, (3, 9))
    with torch.no_grad():
        _, cache = lens.eval().run_with_cache(torch.tensor(tokens))
    for scan_layers in (False, True):
        model, _ = models.load(tmp_path, scan_layers=scan_layers)
        got = ij.capture(models.forward, list(cache), output=False)(model, tokens)
        assert len(cache) >= 3 * 16
        for address in cache:
            np.testing.assert_allclose(got[address], cache[address].numpy(), atol=2e-5, rtol=1e-4, err_msg=address)
