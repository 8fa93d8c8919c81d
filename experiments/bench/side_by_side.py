"""What the benchmarks share: one set of GPT-2-small-shaped random weights in two libraries, and a table."""

import os
import tempfile

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2Config, GPT2LMHeadModel

from interp_jax import models


def gpt2_small():
    """(our model, a HookedTransformer without processing), the same weights, float32, on every core."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    config = GPT2Config(initializer_range=0.05)  # wide enough that patches have clear effects
    weights = GPT2LMHeadModel(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        weights.save_pretrained(folder)
        model, _ = models.load(folder)
    peer_config = HookedTransformerConfig(
        n_layers=config.n_layer,
        n_heads=config.n_head,
        d_model=config.n_embd,
        d_head=config.n_embd // config.n_head,
        d_vocab=config.vocab_size,
        n_ctx=config.n_positions,
        act_fn="gelu_new",
        normalization_type="LN",
        eps=config.layer_norm_epsilon,
    )
    peer = HookedTransformer(peer_config)
    peer.load_state_dict(convert_gpt2_weights(weights, peer_config), strict=False)
    return model, peer


def table(title: str, rows: list[tuple]) -> None:
    """Prints rows of (what, ours, TransformerLens's), each of the two as `stopwatch` gives it."""
    print(f"\n{title}; {os.cpu_count()} cores, median of five, one run")
    print(f"{'':40} {'steady':>9} {'compile':>9} {'TransformerLens':>16} {'ratio':>7} {'with compile':>13}")
    for what, (first, steady), (_, peer) in rows:
        ratios = f"{peer / steady:6.1f}x {peer / first:12.1f}x"
        print(f"{what:40} {steady:8.3f}s {first - steady:8.2f}s {peer:15.3f}s {ratios}")
