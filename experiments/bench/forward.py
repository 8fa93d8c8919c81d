"""Forward, and forward with every site captured, batch 8 x 128, GPT-2-small shapes, beside TransformerLens.

    python experiments/bench/forward.py        (needs the extra `bench`)

Captured is every site that the plain forward computes: what TransformerLens caches by default. Sites on demand
(per-head results, split inputs) are left out, as they are there.
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

names = [name for name, info in ij.sites(models.forward, model, ours).items() if not info.on_demand]
everything = jax.jit(ij.capture(models.forward, names))

seconds = stopwatch(
    {
        "peer forward": lambda: peer(theirs),
        "forward": lambda: models.forward(model, ours),
        "peer capture": lambda: peer.run_with_cache(theirs),
        "capture": lambda: everything(model, ours),
    }
)

logits, acts = everything(model, ours)
peer_logits, cache = peer.run_with_cache(theirs)
n_arrays = sum(a.shape[0] if name.startswith("blocks.") else 1 for name, a in acts.items())
off = np.abs(logits - peer_logits.numpy()).max(), np.abs(logits).max()
stored = sum(a.nbytes for a in acts.values()) / 2**20

table(
    "forward, batch 8 x 128, GPT-2-small shapes",
    [
        ("forward", seconds["forward"], seconds["peer forward"]),
        ("forward, every site captured", seconds["capture"], seconds["peer capture"]),
    ],
)
ours_extra = seconds["capture"][1] / seconds["forward"][1] - 1
peer_extra = seconds["peer capture"][1] / seconds["peer forward"][1] - 1
print(f"capture costs {ours_extra:+.0%} over forward (TransformerLens {peer_extra:+.0%})")
print(f"captured: {len(names)} names, {n_arrays} arrays, {stored:.0f} MiB; TransformerLens caches {len(cache)} arrays")
print(f"logits differ by at most {off[0]:.1e} (the largest is {off[1]:.1f})")
