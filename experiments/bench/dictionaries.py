"""Training dictionaries: a step of each kind beside SAELens's, a sweep in one program beside its runs one by one.

    python experiments/bench/dictionaries.py            (needs the extra `bench`)
    python experiments/bench/dictionaries.py --large    (on an accelerator: d_in 2304, d_sae 65,536, bfloat16)

Steps are whole ones: forward, backward, Adam, unit rows or clipping, dead features counted, as each library's trainer
does it. Median of five turns after the first, which compiles; the libraries take turns.
"""

from functools import partial
import sys
import time

import jax
from jax import lax
import jax.numpy as jnp
from sae_lens_steps import KINDS, peer_step

from interp_jax import dictionaries
from interp_jax.dictionaries import TrainState
from interp_jax.dictionaries.training import sweeps
from stopwatch import stopwatch

LARGE = dict(d_in=2304, d_sae=65_536, k=64, n=4096)


def state(kind, d_in, d_sae, seed=0, **settings):
    dictionary = getattr(dictionaries, kind).create(jax.random.key(seed), d_in, d_sae, **settings)
    return TrainState.create(dictionary, 10_000)


def stepper(step, states, x):
    """A function that takes one step of each of the states with a program, in turn."""
    step, states = jax.jit(step, donate_argnums=0), list(states)

    def run():
        for i, one in enumerate(states):
            states[i], _ = step(one, x)
        return states

    return run


def beside_sae_lens(d_in=512, d_sae=8192, n=2048):
    x = jax.random.normal(jax.random.key(0), (n, d_in))
    print(f"\na step, d_in {d_in}, d_sae {d_sae}, k 32, batch {n}, float32")
    for kind, (settings, peer, theirs) in KINDS.items():
        batch = (x, x[:, ::-1]) if kind == "Transcoder" else x
        runs = {"ours": stepper(dictionaries.train_step, [state(kind, d_in, d_sae, **settings)], batch)}
        try:
            runs |= {"SAELens": peer_step(x, d_sae, peer, theirs)} if peer else {}
        except ImportError as error:
            print(f"SAELens does not run here: {error}")
        seconds = stopwatch(runs)
        for name, (first, steady) in seconds.items():
            ratio = steady / seconds["ours"][1]
            told = f"{steady:8.4f}s   first {first:6.2f}s   {n / steady:9,.0f} tok/s   {ratio:5.2f}x ours"
            print(f"{kind + ', ' + name:28} {told}", flush=True)


def sweep(d_in=128, d_sae=1024, n=1024, ks=(4, 6, 8, 12, 16, 20, 24, 32)):
    """Eight dictionaries that differ in seed, and where they do in k: each its own program, or one program for all."""
    x = jax.random.normal(jax.random.key(0), (n, d_in))
    start = time.perf_counter()
    runs = []
    for i, k in enumerate(ks):  # as many programs as there are values of k, which is static
        runs.append(stepper(dictionaries.train_step, [state("TopK", d_in, d_sae, i, k=k)], x))
        jax.block_until_ready(runs[-1]())
    alone_first = time.perf_counter() - start
    members = [state("TopK", d_in, d_sae, i, k=k) for i, k in enumerate(ks)]
    timed = {"8 runs one after another": lambda: [run() for run in runs]}
    for chunk in (1, len(ks)):
        chunks = sweeps._chunks(members, chunk)
        one = dictionaries.train_step if chunk == 1 else jax.vmap(dictionaries.train_step, (0, None))
        timed[f"train_many, chunk {chunk}"] = stepper(one, chunks, x)
    seconds = stopwatch(timed)
    print(f"\n8 TopK dictionaries, d_in {d_in}, d_sae {d_sae}, k {', '.join(map(str, ks))}, batch {n}; one step of all")
    alone = seconds["8 runs one after another"][1]
    for name, (first, steady) in seconds.items():
        first = alone_first if name.startswith("8 runs") else first
        print(f"{name:28} {steady:8.3f}s   first {first:6.2f}s   {alone / steady:5.2f}x as fast")


def large(d_in, d_sae, k, n):
    """Tokens per second and share of the matrix rate, in bfloat16; the selection by itself."""
    x = jax.random.normal(jax.random.key(0), (n, d_in), jnp.bfloat16)
    W = jax.random.normal(jax.random.key(1), (d_in, d_sae), jnp.bfloat16)
    product, pre = jax.jit(jnp.matmul), x @ W
    select = jax.jit(lambda pre: lax.top_k(pre, k))
    runs = {"x W_enc": partial(product, x, W), f"top_k of {k}": partial(select, pre)}
    seconds = stopwatch(runs)
    for kind, (settings, _, _) in KINDS.items():  # one after the other: their moments would not fit together
        settings = {"k": k} if "k" in settings else {}
        batch = (x, x[:, ::-1]) if kind == "Transcoder" else x
        seconds |= stopwatch(
            {f"{kind} step": stepper(dictionaries.train_step, [state(kind, d_in, d_sae, **settings)], batch)}
        )
    rate = 2 * n * d_in * d_sae / seconds["x W_enc"][1]
    print(f"\nbfloat16, d_in {d_in}, d_sae {d_sae}, batch {n}; matrix rate {rate / 1e12:.1f} TFLOP/s")
    for name, (first, steady) in seconds.items():
        # A step has six products of the encoder's size, a sparse one, of TopK on a CPU, that one.
        share = 2 * n * d_in * d_sae * (6 if "step" in name else 1) / steady / rate
        of = "" if name.startswith("top_k") else f"   {share:5.0%} of the matrix rate"
        print(f"{name:28} {steady:8.4f}s   first {first:6.2f}s   {n / steady:9,.0f} tok/s{of}")
    memory = jax.devices()[0].memory_stats() or {}
    print(f"peak memory {memory.get('peak_bytes_in_use', 0) / 2**30:.1f} GiB")


if __name__ == "__main__":
    print(f"{jax.devices()[0].device_kind}, {jax.default_backend()}; median of five, one run")
    if "--large" in sys.argv[1:]:
        large(**LARGE)
    else:
        beside_sae_lens()
        sweep(ks=(16,) * 8)
        sweep()
