"""Forward, and forward with every site captured, batch 8 x 128, GPT-2-small shapes, beside TransformerLens.

    python experiments/bench/forward.py        (needs the extra `bench`)

Captured is every site that is not on demand, the logits among them: what TransformerLens caches by default. Stacked
over layers, as a name without a number gives it, and one array a layer, as TransformerLens has it. The last line says
how long the matrix products of the forward pass alone take here, which is the least that any library can reach.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch

import interp_jax as ij
from interp_jax import models
from side_by_side import gpt2_small, table
from stopwatch import stopwatch

model, peer = gpt2_small()
tokens = np.random.default_rng(0).integers(0, model.config.d_vocab, (8, 128))
ours, theirs = jnp.asarray(tokens, jnp.int32), torch.tensor(tokens)

catalogue = ij.sites(models.forward, model, ours)
names = [name for name, info in catalogue.items() if not info.on_demand]
numbered = [n.replace("blocks", f"blocks.{layer}") for n in names for layer in catalogue[n].layers or (0,)]
stacked, by_layer = (ij.capture(models.forward, where, output=False) for where in (names, numbered))
x, w = jnp.ones((8 * 128, model.config.d_model)), jnp.ones((model.config.d_model, model.config.d_mlp))
product = jax.jit(jnp.matmul)

seconds = stopwatch(
    {
        "peer forward": lambda: peer(theirs),
        "forward": lambda: models.forward(model, ours),
        "peer capture": lambda: peer.run_with_cache(theirs),
        "stacked": lambda: stacked(model, ours),
        "by layer": lambda: by_layer(model, ours),
        "ten products": lambda: [product(x, w) for _ in range(10)],
    }
)

acts = stacked(model, ours)
peer_logits, cache = peer.run_with_cache(theirs)
off = np.abs(acts["logits"] - peer_logits.numpy()).max(), np.abs(acts["logits"]).max()
stored = sum(a.nbytes for a in acts.values()) / 2**20

table(
    "forward, batch 8 x 128, GPT-2-small shapes",
    [
        ("forward", seconds["forward"], seconds["peer forward"]),
        ("every site captured, stacked", seconds["stacked"], seconds["peer capture"]),
        ("every site captured, one array a layer", seconds["by layer"], seconds["peer capture"]),
    ],
)
extra = [seconds[name][1] / seconds["forward"][1] - 1 for name in ("stacked", "by layer")]
peer_extra = seconds["peer capture"][1] / seconds["peer forward"][1] - 1
print(
    f"capture costs {extra[0]:+.0%} over forward, one array a layer {extra[1]:+.0%} (TransformerLens {peer_extra:+.0%})"
)
print(
    f"captured: {len(names)} sites, {len(numbered)} with their layers, {stored:.0f} MiB; TransformerLens {len(cache)}"
)
print(f"logits differ by at most {off[0]:.1e} (the largest is {off[1]:.1f})")
weights = 12 * model.config.n_layers * model.config.d_model**2 + model.config.d_model * model.config.d_vocab
least = seconds["ten products"][1] / 10 * weights / w.size
print(f"matrix products alone: {least:.3f}s, {seconds['peer capture'][1] / least:.1f}x the peer's capture")
