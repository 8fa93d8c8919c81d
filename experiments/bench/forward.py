"""Forward, and forward with every site captured, batch 8 x 128, GPT-2-small shapes, beside TransformerLens.

    python experiments/bench/forward.py        (needs the extra `bench`)

Captured is what TransformerLens caches by default: every site that the plain forward computes, one array a layer; and
the same stacked over layers, as a name without a number gives it, which copies everything. Left out are sites on
demand (per-head results, split inputs), as they are there, and `mlp_in` and `logits`, which repeat others.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch

import interp_jax as ij
from interp_jax import models
from side_by_side import gpt2_small, stopwatch, table

model, peer = gpt2_small()
tokens = np.random.default_rng(0).integers(0, model.config.d_vocab, (8, 128))
ours, theirs = jnp.asarray(tokens, jnp.int32), torch.tensor(tokens)

catalogue = ij.sites(models.forward, model, ours)
names = [n for n, info in catalogue.items() if not info.on_demand and n not in ("blocks.mlp_in", "logits")]
numbered = [n.replace("blocks", f"blocks.{layer}") for n in names for layer in catalogue[n].layers or (0,)]
by_layer, stacked = (jax.jit(ij.capture(models.forward, where)) for where in (numbered, names))

seconds = stopwatch(
    {
        "peer forward": lambda: peer(theirs),
        "forward": lambda: models.forward(model, ours),
        "peer capture": lambda: peer.run_with_cache(theirs),
        "by layer": lambda: by_layer(model, ours),
        "stacked": lambda: stacked(model, ours),
    }
)

logits, acts = by_layer(model, ours)
peer_logits, cache = peer.run_with_cache(theirs)
off = np.abs(logits - peer_logits.numpy()).max(), np.abs(logits).max()
stored = sum(a.nbytes for a in acts.values()) / 2**20

table(
    "forward, batch 8 x 128, GPT-2-small shapes",
    [
        ("forward", seconds["forward"], seconds["peer forward"]),
        ("every site captured", seconds["by layer"], seconds["peer capture"]),
        ("every site captured, stacked over layers", seconds["stacked"], seconds["peer capture"]),
    ],
)
extra = [seconds[name][1] / seconds["forward"][1] - 1 for name in ("by layer", "stacked")]
peer_extra = seconds["peer capture"][1] / seconds["peer forward"][1] - 1
print(f"capture costs {extra[0]:+.0%} over forward, stacked {extra[1]:+.0%} (TransformerLens {peer_extra:+.0%})")
print(f"captured: {len(acts)} arrays, {stored:.0f} MiB; TransformerLens caches {len(cache)}")
print(f"logits differ by at most {off[0]:.1e} (the largest is {off[1]:.1f})")
