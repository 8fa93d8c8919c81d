"""What a user waits for: whole processes from their start, with an empty and with a warm cache of programs.

    python experiments/bench/cold.py --model SmolLM2-135M-Instruct.Q4_1.gguf     (needs the extra `bench`)

The map of `resid_pre`, every layer and position of one pair, beside TransformerLens's, which runs one forward a patch:
on a model of the architecture Llama, whose weights its converter takes. With `--layers` it does so many of them, and
its seconds are scaled, as the table says. And 20 tokens of text by `generate` beside transformers' own.
"""

import argparse
import tempfile

from processes import now, run, tell, transformers_model

CLEAN, CORRUPTED = (f"When Mary and John went to the store, {name} gave a drink to" for name in ("John", "Mary"))
PROMPT, TOKENS = "The capital of France is", 20


def ours_map(path: str, folder: str) -> None:
    from interp_jax.cli import main

    main(["patch", "--model", path, "--clean", CLEAN, "--corrupted", CORRUPTED, "--answer", " Mary"]
         + ["--distractor", " John", "--out", folder])  # fmt: skip
    tell(map=now())


def lens_map(path: str, layers: str) -> None:
    from transformer_lens import HookedTransformer, HookedTransformerConfig, patching
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights

    peer, tokenizer = transformers_model(path)
    c = peer.config
    config = HookedTransformerConfig(
        n_layers=c.num_hidden_layers, n_heads=c.num_attention_heads, n_key_value_heads=c.num_key_value_heads,
        d_model=c.hidden_size, d_head=c.hidden_size // c.num_attention_heads, d_mlp=c.intermediate_size,
        d_vocab=c.vocab_size, n_ctx=2048, act_fn="silu", gated_mlp=True, normalization_type="RMS", eps=c.rms_norm_eps,
        positional_embedding_type="rotary", rotary_adjacent_pairs=False, final_rms=True, original_architecture="",
        rotary_dim=c.hidden_size // c.num_attention_heads, rotary_base=int(c.rope_parameters["rope_theta"]),
    )  # fmt: skip
    model = HookedTransformer(config)
    model.load_state_dict(convert_llama_weights(peer, config), strict=False)
    clean, corrupted = (tokenizer(text, return_tensors="pt").input_ids for text in (CLEAN, CORRUPTED))
    mary, john = (tokenizer(text, add_special_tokens=False).input_ids[0] for text in (" Mary", " John"))
    _, cache = model.run_with_cache(clean)
    start = now()
    config.n_layers = int(layers) or config.n_layers  # how many the sweep goes over
    patching.get_act_patch_resid_pre(model, corrupted, cache, lambda x: x[0, -1, mary] - x[0, -1, john])
    tell(start=start, map=start + (now() - start) * c.num_hidden_layers / config.n_layers)


def ours_text(path: str) -> None:
    import jax.numpy as jnp

    from interp_jax import models
    from interp_jax.cli import programs

    programs.keep()
    model, tokenizer = models.load(path, dtype="float32")
    tokens = jnp.asarray(tokenizer.encode(PROMPT))
    loaded = now()
    models.generate(model, tokens, TOKENS).block_until_ready()
    first = now()
    models.generate(model, tokens, TOKENS).block_until_ready()
    tell(load=loaded, first=first - loaded, again=now() - first)


def peer_text(path: str) -> None:
    model, tokenizer = transformers_model(path)
    tokens = tokenizer(PROMPT, return_tensors="pt").input_ids
    loaded = now()
    model.generate(tokens, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
    first = now()
    model.generate(tokens, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
    tell(load=loaded, first=first - loaded, again=now() - first)


def both(path: str, layers: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        child = lambda *words: run(__file__, "--child", *words, XDG_CACHE_HOME=folder)  # noqa: E731
        maps = {name: child("ours_map", path, f"{folder}/out")["process"] for name in ("an empty cache", "a warm one")}
    with tempfile.TemporaryDirectory() as folder:
        child = lambda *words: run(__file__, "--child", *words, XDG_CACHE_HOME=folder)  # noqa: E731
        texts = {f"ours, {name}": child("ours_text", path) for name in ("an empty cache", "a warm one")}
        texts["transformers"] = child("peer_text", path)
    print(f"{'20 tokens of text, seconds':34}{'to load':>9}{'first':>9}{'again':>9}")
    for name, x in texts.items():
        print(f"{name:34}{x['load']:9.1f}{x['first']:9.2f}{x['again']:9.2f}")
    lens = run(__file__, "--child", "lens_map", path, layers)
    print(f"{'the map, whole process, seconds':34}\n{'TransformerLens':34}{lens['map']:9.1f}", end="")
    print(f" (start {lens['start']:.1f}{f', {layers} layers scaled to all' if int(layers) else ''})")
    for name, seconds in maps.items():
        print(f"{f'ours, {name}':34}{seconds:9.1f}{lens['map'] / seconds:8.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--layers", default="0")
    parser.add_argument("--child", nargs="+")
    args = parser.parse_args()
    both(args.model, args.layers) if args.child is None else globals()[args.child[0]](*args.child[1:])


if __name__ == "__main__":
    main()
