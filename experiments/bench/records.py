"""Records of many features over a long text: tokens a second, and the memory of the process.

    python experiments/bench/records.py [--tokens 1000000] [--d-sae 16384] [--k 32] [--neurons]

A `TopK` dictionary with random weights reads the microworld's residual stream, so that all of its features fire, on the
microworld's own text, from seed 0. `read`: the model, the dictionary, and what is above zero on the host. `gather`:
what is kept of it. `relate`: correlations, decoder rows that are alike, tokens that are raised. With `--neurons` those
of every layer are recorded too, half of which fire on a token.
"""

import argparse
from pathlib import Path
import resource
import tempfile
import time

import jax

from interp_jax import data, dictionaries, explain, models
from interp_jax.explain.records import recording, relations, units

SITE = "blocks.2.resid_post"


def timed(module, name: str, spent: dict[str, float]) -> None:
    """Adds the seconds that a function of a module takes to `spent`."""
    function = getattr(module, name)

    def run(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

    setattr(module, name, run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--d-sae", type=int, default=16_384)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--neurons", action="store_true")
    asked = parser.parse_args()

    model, tokenizer = models.load("microworld")
    read = data.corpus.read(tokenizer, n_tokens=asked.tokens, n_positions=128)
    dictionary = dictionaries.TopK.create(jax.random.key(0), model.config.d_model, asked.d_sae, asked.k)
    W_U = models.weights(model)["W_U"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    spent: dict[str, float] = {}
    timed(recording.Site, "gather", spent)
    timed(units, "firing", spent)
    for name in ("relate", "nearest", "logits"):
        timed(relations, name, spent)

    where = {SITE: dictionary} | ({"blocks.mlp.post": None} if asked.neurons else {})
    start = time.perf_counter()
    record = explain.record(models.forward, where, effects=lambda rows: rows @ W_U, shown=True)
    found = record(model, read.tokens, mask=read.real, skip=read.special)
    whole = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with tempfile.TemporaryDirectory() as folder:
        explain.save_records(folder, found)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20

    related = sum(spent.get(name, 0.0) for name in ("relate", "nearest", "logits"))
    for name, one in found.items():
        print(f"{name}: {one.n_units:,} units, {one.counts.sum():,} firings, {(one.counts == 0).mean():.1%} never fire")
    print(f"{found[SITE].n_tokens:,} tokens in {whole:.0f} s: {found[SITE].n_tokens / whole:,.0f} a second")
    print(f"read {whole - spent['gather'] - related:.0f} s, gather {spent['gather']:.0f} s, relate {related:.0f} s")
    print(f"peak {after:.2f} GiB, of which {before:.2f} GiB before; on disk {size:.0f} MiB")


if __name__ == "__main__":
    main()
