"""How load, forward and an activation-patching sweep grow with depth: 12 and 48 layers, as a loop and as a scan.

    python experiments/bench/depth.py

Random models of GPT-2's kind, d_model 256, on 15 tokens. `compile` is the first call less the steady one. The sweep
patches `resid_pre` at every layer and position, in two plans: the layer as data, or static layers, each of which
shares the run up to it. The second is left out above 16 layers, where `patching` does not choose it: it compiles
O(layers^2) blocks, at 48 layers for more than six minutes.
"""

from functools import partial
from pathlib import Path
import tempfile
import time

import jax
import jax.numpy as jnp

import interp_jax as ij
from interp_jax import models
from interp_jax.interventions import at, replace

SITE, N_POSITIONS, CHUNK, DEEP = "blocks.resid_pre", 15, 60, 16


def timed(run, n=5):
    """(seconds of the first call less the steady ones, median of `n` steady ones)."""
    seconds = []
    for _ in range(n + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    steady = sorted(seconds[1:])[n // 2]
    return seconds[0] - steady, steady


def effect(acts, model, tokens, layer, position):
    edit = at(replace(acts[SITE]), layer=layer, position=position)
    f = partial(models.forward, logits_at=jnp.array([N_POSITIONS - 1]))
    return ij.intervene(f, {SITE: edit})(model, tokens)[0, 0]


@partial(jax.jit, static_argnums=3)
def layer_as_data(acts, model, tokens, n_layers):
    layers, positions = jnp.divmod(jnp.arange(n_layers * N_POSITIONS), N_POSITIONS)
    one = partial(effect, acts, model, tokens)
    return jax.lax.map(lambda index: one(*index), (layers, positions), batch_size=CHUNK).reshape(n_layers, -1)


@partial(jax.jit, static_argnums=3)
def static_layers(acts, model, tokens, n_layers):
    one = partial(effect, acts, model, tokens)
    return jnp.stack([jax.vmap(partial(one, layer))(jnp.arange(N_POSITIONS)) for layer in range(n_layers)])


def measure(folder, scan_layers, clean, corrupted):
    start = time.perf_counter()
    model, _ = models.load(folder, scan_layers=scan_layers)
    jax.block_until_ready(model.w_e)
    load, n_layers = time.perf_counter() - start, model.config.n_layers
    start = time.perf_counter()
    ij.sites(models.forward, model, clean)
    sites = time.perf_counter() - start
    acts = ij.capture(models.forward, SITE, output=False)(model, clean)
    forward = timed(lambda: models.forward(model, clean))
    kinds = (layer_as_data, static_layers) if n_layers <= DEEP else (layer_as_data,)
    plans = [partial(plan, acts, model, corrupted, n_layers) for plan in kinds]
    sweeps = [timed(plan) for plan in plans]
    return load, sites, forward, sweeps, jnp.abs(plans[0]() - plans[-1]()).max()


print(f"{'':10} {'load':>7} {'sites':>7} | {'forward':>9} {'compile':>9} | {'as data':>9} {'compile':>9} | ", end="")
print(f"{'static':>9} {'compile':>9} |   plans differ by")
for n_layers in (12, 48):
    config = models.Config(n_layers=n_layers, n_heads=4, d_model=256, d_mlp=1024, d_vocab=8192, n_ctx=64)
    clean, corrupted = jax.random.randint(jax.random.key(0), (2, 1, N_POSITIONS), 0, config.d_vocab)
    with tempfile.TemporaryDirectory() as folder:
        models.save(Path(folder, "model"), models.Decoder.create(jax.random.key(1), config))
        for scan_layers in (False, True):
            row = measure(Path(folder, "model"), scan_layers, clean, corrupted)
            load, sites, forward, sweeps, off = row
            cells = " | ".join(f"{steady:8.3f}s {first:8.2f}s" for first, steady in (forward, *sweeps))
            name, apart = f"{n_layers} {'scan' if scan_layers else 'loop'}", f" |   {off:.1e}" * (len(sweeps) > 1)
            print(f"{name:10} {load:6.2f}s {sites:6.2f}s | {cells}{apart}", flush=True)
