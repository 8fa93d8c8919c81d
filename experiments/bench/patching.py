"""Activation patching of `resid_pre`, 12 layers x 15 positions, GPT-2-small shapes, beside TransformerLens.

    python experiments/bench/patching.py       (needs the extra `bench`)

TransformerLens runs `patching.get_act_patch_resid_pre`, one forward a patch, from a clean run made before. Ours is
`patching.activation_patch`, one compiled call which makes the clean run too, in its two plans: static layers, whose
patches share the run up to their layer, and the layer as data, in chunks.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
import torch
from transformer_lens import patching as peer_patching

from interp_jax import metrics, models, patching
from side_by_side import gpt2_small, table
from stopwatch import stopwatch

SITE, N_POSITIONS, CHUNK = "blocks.resid_pre", 15, 60

model, peer = gpt2_small()
n_layers = model.config.n_layers
rng = np.random.default_rng(0)
clean, corrupted = rng.integers(0, model.config.d_vocab, (2, 1, N_POSITIONS))
answer, distractor = rng.integers(0, model.config.d_vocab, 2)

_, cache = peer.run_with_cache(torch.tensor(clean))


def peer_metric(logits):
    return logits[:, -1, answer].mean() - logits[:, -1, distractor].mean()


def peer_sweep():
    return peer_patching.get_act_patch_resid_pre(peer, torch.tensor(corrupted), cache, peer_metric)


metric = metrics.logit_diff(jnp.array([answer]), jnp.array([distractor]))
everywhere = models.forward, lambda logits: metric(logits[:, -1])
last_only = partial(models.forward, logits_at=jnp.array([N_POSITIONS - 1])), metric


pair = jnp.asarray(clean, jnp.int32), jnp.asarray(corrupted, jnp.int32)
plans = {"static_layers": "static", "layer_as_data": "data"}
sweeps = {
    f"{name}, {what}": partial(patching.activation_patch(f, score, SITE, plan=plan, chunk=CHUNK), model, *pair)
    for name, plan in plans.items()
    for what, (f, score) in (("every logit", everywhere), ("logits_at", last_only))
}
seconds = stopwatch({"peer": peer_sweep, **sweeps})
reference = peer_sweep().numpy()
off = max(np.abs(sweep() - reference).max() for sweep in sweeps.values())

table(
    f"activation patching of resid_pre, {n_layers} layers x {N_POSITIONS} positions, GPT-2-small shapes",
    [(name, seconds[name], seconds["peer"]) for name in sweeps],
)
print(f"maps differ by at most {off:.1e}; effects range from {reference.min():.3f} to {reference.max():.3f}")
