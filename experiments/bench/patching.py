"""Activation patching of `resid_pre`, 12 layers x 15 positions, GPT-2-small shapes, beside TransformerLens.

    python experiments/bench/patching.py       (needs the extra `bench`)

TransformerLens runs `patching.get_act_patch_resid_pre`, one forward a patch. Ours is one compiled program in two plans:
static layers, whose patches share the run up to their layer, and the layer as data, in chunks.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformer_lens import patching

import interp_jax as ij
from interp_jax import metrics, models
from interp_jax.interventions import at, replace
from side_by_side import gpt2_small, stopwatch, table

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
    return patching.get_act_patch_resid_pre(peer, torch.tensor(corrupted), cache, peer_metric)


metric = metrics.logit_diff(jnp.array([answer]), jnp.array([distractor]))
everywhere = models.forward, lambda logits: metric(logits[:, -1])
last_only = partial(models.forward, logits_at=jnp.array([N_POSITIONS - 1])), metric


def effect(f, score, acts, model, tokens, layer, position):
    edit = at(replace(acts[SITE]), layer=layer, position=position)
    return score(ij.intervene(f, {SITE: edit})(model, tokens)).mean()


def static_layers(f, score):
    """Each layer a program of its own inside one: what comes before the patch is run once for all positions."""

    def sweep(model, acts, tokens):
        positions = jnp.arange(N_POSITIONS)
        one = partial(effect, f, score, acts, model, tokens)
        return jnp.stack([jax.vmap(partial(one, layer))(positions) for layer in range(n_layers)])

    return jax.jit(sweep)


def layer_as_data(f, score):
    """One program for every layer and position: compiled once at any depth."""

    def sweep(model, acts, tokens):
        layers, positions = jnp.divmod(jnp.arange(n_layers * N_POSITIONS), N_POSITIONS)
        one = partial(effect, f, score, acts, model, tokens)
        effects = jax.lax.map(lambda index: one(*index), (layers, positions), batch_size=CHUNK)
        return effects.reshape(n_layers, N_POSITIONS)

    return jax.jit(sweep)


ours_clean, ours_corrupted = jnp.asarray(clean, jnp.int32), jnp.asarray(corrupted, jnp.int32)
acts = ij.capture(models.forward, SITE, output=False)(model, ours_clean)

sweeps = {
    f"{plan.__name__}, {what}": partial(plan(f, score), model, acts, ours_corrupted)
    for plan in (static_layers, layer_as_data)
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
