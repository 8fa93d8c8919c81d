"""Generation beside transformers with hooks and nnsight: greedy text with all of the residual stream read and one edit.

    python experiments/bench/generation.py --model SmolLM2-135M-Instruct.Q4_1.gguf     (needs the extra `bench`)

Same weights in float32, prompts of 32 tokens of a text, 20 tokens for 1, 8 and 32 streams. "read and edit" captures
`resid_post` of every block at every step and adds a vector to that of the middle one; transformers does both by hooks,
and nnsight, where it is installed, by its own. Seconds are the median of five turns after the first, which compiles.
Then whole processes: what a user waits for the first token, with an empty and with a warm cache of programs. On an
accelerator ours and transformers use it.
"""

import argparse
from importlib.util import find_spec
import tempfile

from processes import now, run, tell, transformers_model

from stopwatch import stopwatch

N_TOKENS, N_PROMPT = 20, 32
SITE = "blocks.resid_post"
TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. Nobody in the house had noticed. "
PEERS = ("transformers", "nnsight")


def ours(path, vector):
    import jax.numpy as jnp
    import numpy as np

    from interp_jax import models
    from interp_jax.interventions import add, at

    model, _ = models.load(path, dtype="float32")
    edits = {SITE: at(add(jnp.asarray(vector)), layer=model.config.n_layers // 2)}

    def plain(tokens):
        return np.asarray(models.generate(model, tokens, N_TOKENS))

    def edited(tokens):
        new, acts = models.generate(model, tokens, N_TOKENS, edits=edits, capture=SITE)
        acts[SITE].block_until_ready()
        return np.asarray(new)

    return {"plain": plain, "read and edit": edited}


def transformers(peer, vector):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = peer.to(device)
    vector, kept = torch.tensor(vector, device=device), []

    def plain(tokens):
        tokens = torch.tensor(tokens, device=device)
        options = {"max_new_tokens": N_TOKENS, "min_new_tokens": N_TOKENS, "do_sample": False, "pad_token_id": 0}
        return model.generate(tokens, attention_mask=torch.ones_like(tokens), **options).cpu().numpy()

    def keep(module, args, out):
        kept.append(out)

    def edit(module, args, out):
        kept.append(out + vector)
        return kept[-1]

    def edited(tokens):
        middle = len(model.model.layers) // 2
        hooks = [layer.register_forward_hook(keep) for i, layer in enumerate(model.model.layers) if i != middle]
        hooks.append(model.model.layers[middle].register_forward_hook(edit))
        try:
            return plain(tokens)
        finally:
            for hook in hooks:
                hook.remove()
            kept.clear()

    return {"plain": plain, "read and edit": edited}


def nnsight(peer, tokenizer, vector):
    import nnsight as nn
    import torch

    lm = nn.LanguageModel(peer, tokenizer=tokenizer)
    vector = torch.tensor(vector)

    def edited(tokens):
        layers, middle = lm.model.layers, len(lm.model.layers) // 2
        options = {"max_new_tokens": N_TOKENS, "min_new_tokens": N_TOKENS, "do_sample": False}
        with lm.generate(torch.tensor(tokens), **options) as tracer:
            kept = nn.save([])
            for _ in tracer.iter[:N_TOKENS]:
                for i, layer in enumerate(layers):
                    if i == middle:
                        layer.output = layer.output + vector
                    kept.append(layer.output)
            out = tracer.result.save()
        assert len(kept) == N_TOKENS * len(layers)
        return out.numpy()

    return {"read and edit": edited}


def first_token(path: str) -> None:
    """A process of its own: load, and one token."""
    from interp_jax import models
    from interp_jax.cli import programs

    programs.keep()
    model, tokenizer = models.load(path, dtype="float32")
    loaded = now()
    models.generate(model, tokenizer.to_tokens(TEXT), 1).block_until_ready()
    tell(load=loaded, token=now())


def peer_first_token(path: str) -> None:
    model, tokenizer = transformers_model(path)
    loaded = now()
    model.generate(tokenizer(TEXT, return_tensors="pt").input_ids, max_new_tokens=1, do_sample=False)
    tell(load=loaded, token=now())


def steady(path: str, n_streams: list[int]) -> None:
    import jax
    import numpy as np

    peer, tokenizer = transformers_model(path)
    rng = np.random.default_rng(0)
    vector = (0.1 * rng.normal(size=peer.config.hidden_size)).astype(np.float32)
    sides = {"ours": ours(path, vector), "transformers": transformers(peer, vector)}
    if find_spec("nnsight"):
        sides["nnsight"] = nnsight(peer, tokenizer, vector)
    print(f"{jax.devices()[0].device_kind}; {N_TOKENS} tokens after {N_PROMPT}; seconds")
    words = np.array(tokenizer(TEXT * 99).input_ids)
    for streams in n_streams:
        tokens = np.stack([words[start : start + N_PROMPT] for start in rng.integers(0, 900, streams)])
        calls = {(side, name): call for side, each in sides.items() for name, call in each.items()}
        seconds = stopwatch({key: (lambda call=call, tokens=tokens: call(tokens)) for key, call in calls.items()})
        for (side, name), (first, again) in seconds.items():
            told = f"{again:8.3f}   first {first:6.2f}"
            if side == "ours":
                against = [f"{seconds[peer, name][1] / again:5.2f}x {peer}" for peer in PEERS if (peer, name) in calls]
                told += "   " + ", ".join(against)
            if (side, "plain") in calls and name != "plain":
                told += f"   {again / seconds[side, 'plain'][1] - 1:+5.0%} over plain"
            print(f"{streams:3} streams  {side + ', ' + name:28} {told}", flush=True)
        said = {key: call(tokens) for key, call in calls.items()}
        same = [
            f"{side}, {name}: {(text == said['transformers', name]).mean():.1%}" for (side, name), text in said.items()
        ]
        print(f"{'':13}tokens as transformers says them: {'; '.join(same)}")


def cold(path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        child = lambda word: run(__file__, "--model", path, "--child", word, XDG_CACHE_HOME=folder)  # noqa: E731
        told = {f"ours, {name}": child("first_token") for name in ("an empty cache", "a warm one")}
        told["transformers"] = child("peer_first_token")
    print(f"\n{'a process, seconds':34}{'to load':>9}{'to the first token':>20}")
    for name, x in told.items():
        print(f"{name:34}{x['load']:9.1f}{x['token']:20.1f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--child")
    args = parser.parse_args()
    if args.child:
        {"first_token": first_token, "peer_first_token": peer_first_token}[args.child](args.model)
        return
    steady(args.model, args.streams)
    cold(args.model)


if __name__ == "__main__":
    main()
