"""Long texts beside transformers: seconds and memory of one forward pass, of a capture, and of `generate`'s prompt.

    python experiments/bench/long.py --model SmolLM2-135M-Instruct.Q4_1.gguf     (needs the extra `bench`)

One text of 1,024, 4,096 and 8,192 tokens, float32, logits of the last position; each figure is of its own process.
transformers attends by torch's fused kernel (sdpa). Seconds: the median of three once compiled; GiB: the peak.
"""

import argparse
import statistics
import time

from processes import run, tell, transformers_model

LENGTHS = (1024, 4096, 8192)
WHAT = ("forward", "capture", "generate")


def median(call) -> float:
    call()  # compiles
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def ours(path: str, n: int, what: str) -> None:
    import jax
    import jax.numpy as jnp

    import interp_jax as ij
    from interp_jax import models

    model, _ = models.load(path, dtype="float32")
    tokens, last = jnp.arange(n)[None] % 40000, jnp.array([n - 1])
    forward = jax.jit(lambda model, tokens: models.forward(model, tokens, logits_at=last))
    captured = ij.capture(lambda model, tokens: models.hidden(model, tokens), "blocks.15.resid_post", output=False)
    calls = {
        "forward": lambda: forward(model, tokens).block_until_ready(),
        "capture": lambda: jax.block_until_ready(captured(model, tokens)),
        "generate": lambda: models.generate(model, tokens, 1).block_until_ready(),
    }
    tell(seconds=median(calls[what]))


def peer(path: str, n: int, what: str) -> None:
    import torch

    model, _ = transformers_model(path)
    tokens = torch.arange(n)[None] % 40000
    calls = {
        "forward": lambda: model(tokens, logits_to_keep=1, use_cache=False),
        "capture": lambda: cut(model, tokens),
        "generate": lambda: model.generate(tokens, max_new_tokens=1, do_sample=False),
    }
    tell(seconds=median(calls[what]))


def cut(model, tokens) -> list:
    """The residual stream after block 15, as a harvest by transformers gets it: a hook, and no block beyond it."""
    kept, blocks = [], model.model.layers
    hook = blocks[15].register_forward_hook(lambda module, args, out: kept.append(out))
    model.model.layers = blocks[:16]
    try:
        model.model(tokens, use_cache=False)
    finally:
        model.model.layers = blocks
        hook.remove()
    return kept


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--child", nargs=4)
    args = parser.parse_args()
    if args.child:
        name, path, n, what = args.child
        {"ours": ours, "peer": peer}[name](path, int(n), what)
        return
    print(f"{'':10}{'tokens':>7}{'seconds':>9}{'GiB':>7}{'transformers':>14}{'GiB':>7}{'ratio':>8}")
    for what in WHAT:
        for n in LENGTHS:
            mine, theirs = (run(__file__, "--child", name, args.model, str(n), what) for name in ("ours", "peer"))
            ratio = f"{mine['seconds'] / theirs['seconds']:7.2f}x"
            told = f"{mine['seconds']:9.2f}{mine['memory']:7.2f}{theirs['seconds']:14.2f}{theirs['memory']:7.2f}"
            print(f"{what:10}{n:7d}{told}{ratio}", flush=True)


if __name__ == "__main__":
    main()
