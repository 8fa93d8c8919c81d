"""Attribution graphs of long prompts: the memory that they take, and what a large model's would.

    python experiments/bench/long_graphs.py [--tokens 1500 3000 6000]

A small random model with random transcoders, a process for each length, float32. What a graph holds is counted beside
what the process takes beyond that of a short prompt: attention patterns `[layer head position position]`; of what is
read and written, of errors and of the slopes of the targets that go back, `[layer position d_model]`; of a node's edges
the largest, a number and a place each (`into one`: those from nodes of the graph). `off by`: how far edges and what is
left out are from adding up to a feature. The same count is then made for Gemma 2 2B with 16,384 features a layer, of
which edges and active features are the host's. Circuit-tracer's dense edges fail from 2,300 tokens on 80 GB (issue 92).
"""

import argparse

from processes import now, run, tell

SMALL = {"n_layers": 3, "n_heads": 2, "d_model": 32, "d_mlp": 64, "d_vocab": 64, "d_sae": 256, "weights": 0}
GEMMA = {"n_layers": 26, "n_heads": 8, "d_model": 2304, "d_vocab": 256_000, "d_sae": 16_384, "weights": 2_614_000_000}
L0 = 16  # active features at a token in each layer
N_FEATURES, N_EDGES = 7500, 100_000  # nodes, and edges into each, at most: the defaults
HOST = ("edges", "active features")
TOGETHER = 2**26  # numbers of the slopes of the targets that go back together, where one has fewer: the default
ARRAYS = 4  # of all layers and positions, while rows are made: written, errors, what is read where nothing flows


def counted(n_tokens: int, model: dict[str, int], n_features: int) -> dict[str, float]:
    """GiB by what they are for."""
    layers, d = model["n_layers"], model["d_model"]
    active = layers * n_tokens * L0
    edges = min(N_EDGES, active + (layers + 1) * n_tokens + 1)
    numbers = {
        "weights": model["weights"],
        "transcoders": 4 * layers * model["d_sae"] * d,  # as given, and as tables
        "patterns": layers * model["n_heads"] * n_tokens**2,
        "a layer's scores": 3 * model["n_heads"] * n_tokens**2,
        "reads and writes": ARRAYS * layers * n_tokens * d,
        "slopes of targets": 4 * max(TOGETHER, layers * n_tokens * d),
        "edges": 2 * 2 * n_features * edges,  # and again, as they are put together
        "active features": 8 * active,
    }
    return {name: 4 * n / 2**30 for name, n in numbers.items()}


def child(n_tokens: int, n_features: int) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from interp_jax import dictionaries, graphs, models

    sizes = {name: n for name, n in SMALL.items() if name not in ("d_sae", "weights")}
    model = models.Decoder.create(jax.random.key(0), models.Config(n_ctx=n_tokens, norm="rmsnorm", **sizes))
    keys = jax.random.split(jax.random.key(1), SMALL["n_layers"])
    transcoders = [dictionaries.TopKTranscoder.create(key, SMALL["d_model"], SMALL["d_sae"], L0) for key in keys]
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, SMALL["d_vocab"], n_tokens), jnp.int32)
    start = now()
    made = graphs.attribution_graph(models.forward, model, transcoders, tokens, n_features=n_features)
    seconds = now() - start
    pre = np.asarray(made.edges.sum(1)).ravel() + made.rest
    nodes = made.find("feature")
    kept = np.diff(made.edges.indptr)[nodes].max()
    off = float(np.abs(pre[nodes] - made.activation[nodes]).max() / made.activation[nodes].max())
    tell(seconds=seconds, nodes=len(made), kept=int(kept), off=off)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, nargs="+", default=[1500, 3000, 6000])
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--child", type=int)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.features)
        return
    short = run(__file__, "--child", "64", "--features", str(args.features))["memory"]
    print(f"{args.features} feature nodes; GiB beyond a prompt of 64 tokens, which takes {short:.2f}")
    print(
        f"{'tokens':>8}{'measured':>10}{'counted':>10}{'seconds':>10}{'nodes':>9}{'edges into one':>16}{'off by':>10}"
    )
    for n in args.tokens:
        told = run(__file__, "--child", str(n), "--features", str(args.features))
        expected = sum(counted(n, SMALL, args.features).values())
        print(f"{n:8}{told['memory'] - short:10.2f}{expected:10.2f}{told['seconds']:10.1f}", end="")
        print(f"{told['nodes']:9}{told['kept']:10}{told['off']:10.1e}")
    for n in args.tokens:
        parts = counted(n, GEMMA, N_FEATURES)
        told = ", ".join(f"{name} {size:.1f}" for name, size in parts.items())
        device = sum(size for name, size in parts.items() if name not in HOST)
        print(f"Gemma 2 2B, {n:,} tokens, {N_FEATURES:,} feature nodes: {device:.0f} GiB on the device; {told}")


if __name__ == "__main__":
    main()
