"""The Jacobian lens of one text, beside a plain loop in torch and TransformerLens 4, each a process of its own.

    python experiments/bench/jacobian_lens.py       (needs the extra `bench`)

Random weights of SmolLM2's shapes with `--layers` of its 30, by whose number all of it scales. All do the same d_model
backward passes through the same layers, several at once: the loop as a batch of copies of the text, as TransformerLens
does it, or under torch's `is_grads_batched`; `--widths` are tried. TransformerLens is left out where it is older than
4, which has no such lens. Told are seconds of the first lens and of the next (median of `--runs`), the processor's
seconds of the next, on all cores together, which others' work disturbs least, and seconds of the whole process up to
the first lens.
"""

import argparse
import statistics
import tempfile
import time

import numpy as np
from processes import now, run, tell

FIRST = 16  # the first position that counts; the last one does not


def ours(path: str, tokens: np.ndarray, width: int):
    from interp_jax import lens, models

    model, _ = models.load(path, dtype="float32", scan_layers=True)
    start = lens.JacobianLens.create(model.config.d_model, model.config.n_layers)
    chunk = width or None
    return lambda: np.asarray(lens.fit_jacobian(start, models.forward, model, [tokens[None]], chunk=chunk).J)


def peer_model(path: str):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path).eval()


def loop(way: str):
    def begin(path: str, tokens: np.ndarray, width: int):
        import torch
        import torch_jacobian

        peer, text = peer_model(path), torch.tensor(tokens)[None]
        return lambda: getattr(torch_jacobian, way)(peer, text, FIRST, len(tokens) - 1, width).numpy()

    return begin


def transformer_lens(path: str, tokens: np.ndarray, width: int):
    from tokenizers import Tokenizer, models
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.tools.analysis.jacobian_lens import JacobianLens
    from transformers import PreTrainedTokenizerFast

    peer, words = peer_model(path), Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))  # it asks for a tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="a", eos_token="a", pad_token="a")
    tokenizer.init_kwargs["name_or_path"] = path
    bridge = TransformerBridge.boot_transformers(path, hf_model=peer, tokenizer=tokenizer)
    bridge.to_tokens = lambda text: torch.tensor(tokens)[None]
    n_layers = peer.config.num_hidden_layers
    options = {"corpus": "none", "dim_batch": width, "skip_first_positions": FIRST, "show_progress": False}

    def lens() -> np.ndarray:
        found = JacobianLens.fit(bridge, [""], **options).jacobians
        of_block = [found[layer].numpy() for layer in range(n_layers - 1)]
        return np.stack([np.full_like(of_block[0], np.nan), *of_block])  # what a block gives, the next one is given

    return lens


WAYS = {"ours": ours, "by_batch": loop("by_batch"), "by_vmap": loop("by_vmap"), "transformer_lens": transformer_lens}


def child(way: str, path: str, positions: str, width: str, runs: str, out: str) -> None:
    tokens = np.random.default_rng(0).integers(0, 900, int(positions))
    lens = WAYS[way](path, tokens, int(width))
    loaded, seconds, busy = now(), [], []
    for _ in range(1 + int(runs)):
        start, start_busy = time.perf_counter(), time.process_time()
        found = lens()
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - start_busy)
    np.save(out, found)
    first, *rest = seconds
    tell(load=loaded, first=first, again=statistics.median(rest), busy=statistics.median(busy[1:]), rest=sum(rest))


def random_model(folder: str, layers: int) -> str:
    """A folder of random weights with SmolLM2's shapes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}
    LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, vocab_size=1000, **sizes)).save_pretrained(folder)
    return folder


def new_enough() -> bool:
    from importlib.metadata import version

    return int(version("transformer-lens").split(".")[0]) >= 4


def both(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = random_model(f"{folder}/model", args.layers)
        todo = [("ours", 0)] + [(way, width) for way in ("by_batch", "by_vmap") for width in args.widths]
        todo += [("transformer_lens", 8)] if new_enough() else []  # 8 is its own choice
        told, lenses = {}, {}
        for way, width in todo:
            words = ("--child", way, path, args.positions, width, args.runs, f"{folder}/J.npy")
            told[way, width] = run(__file__, *map(str, words), XDG_CACHE_HOME=folder)
            lenses[way, width] = np.load(f"{folder}/J.npy")
    mine, J = told["ours", 0], lenses["ours", 0]
    print(f"one text of {args.positions} tokens, {len(J)} layers of {J.shape[-1]}, seconds; ratios are theirs to ours")
    columns = ("first", "next", "processor", "process")
    print(f"{'':24}{''.join(f'{name:>11}' for name in columns)}{'ratio of each':>28}{'differs':>10}")
    for (way, width), x in told.items():
        seconds = [(t["first"], t["again"], t["busy"], t["process"] - t["rest"]) for t in (x, mine)]
        cells = "".join(f"{value:11.1f}" for value in seconds[0])
        ratios = "".join(f"{theirs / own:6.1f}x" for theirs, own in zip(*seconds, strict=True))
        name = way if way == "ours" else f"{way}, {width} at once"
        off = np.nanmax(np.abs(lenses[way, width] - J)) / np.abs(J).max()
        print(f"{name:24}{cells}{ratios:>28}{off:10.0e}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--positions", type=int, default=48)
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", nargs="+")
    args = parser.parse_args()
    both(args) if args.child is None else child(*args.child)


if __name__ == "__main__":
    main()
